"""Predictions from image files: names, probabilities, tasks and their order."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config

from osdtw_models import Predictor, create_model
from osdtw_models.predict import TorchClassifier, image_files, preprocess, softmax

TASKS = [[3, 0], [2, 1, 4]]
NAMES = ["ant", "bee", "cat", "dog", "eel"]


@pytest.fixture
def files(tmp_path):
    made = []
    for i in range(5):
        made.append(tmp_path / f"{i}.png")
        stream = np.random.default_rng(i)
        Image.fromarray(stream.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(made[-1])
    return made


@pytest.fixture
def model():
    overlay = {"input_size": (3, 16, 16), "mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7), "label_names": NAMES}
    return create_model("osdtw_resnet14", num_classes=5, task_classes=TASKS, pretrained_cfg_overlay=overlay).eval()


def test_predictions_are_those_of_the_network_on_each_file(model, files):
    for batch_size in (2, 64):
        found = Predictor(TorchClassifier(model), topk=3, batch_size=batch_size)(files)
        assert [prediction.name for prediction in found] == list(map(str, files))
        for prediction in found:
            image = torch.from_numpy(np.array(Image.open(prediction.name))).permute(2, 0, 1) / 255
            mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
            with torch.no_grad():
                tasks = model.forward_tasks(((image - mean) / std)[None])
            values, classes = model.fuse(tasks)[0].softmax(0).topk(3)
            assert prediction.labels == [NAMES[c] for c in classes]
            assert prediction.probabilities == pytest.approx(values.tolist(), abs=1e-5)
            assert prediction.tasks == [0 if int(c) in TASKS[0] else 1 for c in classes]
            assert prediction.none == pytest.approx([float(z.softmax(1)[0, -1]) for z in tasks], abs=1e-5)


def test_one_task_has_no_none_and_classes_without_names_their_numbers(files):
    model = create_model("osdtw_resnet14", num_classes=5, task_classes=[list(range(5))]).eval()
    (prediction,) = Predictor(TorchClassifier(model), topk=9)(files[0])
    assert prediction.none == []
    assert sorted(prediction.labels) == list("01234")
    assert prediction.tasks == [0] * 5
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)


def test_files_folders_pictures_and_arrays_mean_the_same(model, files, tmp_path):
    predictor = Predictor(TorchClassifier(model))
    pictures = [Image.open(file) for file in files]
    expected = [prediction.probabilities for prediction in predictor(files)]
    for images in (tmp_path, str(tmp_path), pictures, [np.array(picture) for picture in pictures]):
        assert [prediction.probabilities for prediction in predictor(images)] == expected  # the same batch: bit for bit
    assert [p.name for p in predictor(pictures)] == list("01234")
    assert predictor(pictures[2])[0].probabilities == pytest.approx(expected[2], abs=1e-5)


def test_larger_images_are_fitted_as_the_config_says(model, tmp_path):
    model.pretrained_cfg.update(crop_pct=0.5, interpolation="bicubic")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8))
    transform = create_transform(**resolve_data_config({}, model=model))
    with torch.no_grad():
        expected = model(transform(image)[None]).softmax(1)[0]
    (found,) = Predictor(TorchClassifier(model), topk=5)(image)
    assert found.probabilities == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-5)


def test_under_the_training_prior_frequent_classes_win(model, files):
    model.class_counts = [1000, 1, 1, 1, 0]
    balanced = Predictor(TorchClassifier(model), topk=5)(files)
    trained = Predictor(TorchClassifier(model), "training", topk=5)(files)
    for one, other in zip(balanced, trained, strict=True):
        weights = dict(zip(NAMES, model.class_counts, strict=True))
        joint = {name: p * weights[name] for name, p in zip(one.labels, one.probabilities, strict=True)}
        expected = {name: value / sum(joint.values()) for name, value in joint.items()}
        assert dict(zip(other.labels, other.probabilities, strict=True)) == pytest.approx(expected, abs=1e-5)
        assert other.none == one.none


@pytest.mark.parametrize(("argument", "said"), [({"topk": 0}, "topk is 0"), ({"batch_size": 0}, "batch_size is 0")])
def test_what_cannot_be_is_refused(model, argument, said):
    with pytest.raises(ValueError, match=said):
        Predictor(TorchClassifier(model), **argument)


def test_a_prediction_is_one_row_of_a_table(model, files):
    (prediction,) = Predictor(TorchClassifier(model), topk=2)(files[0])
    row = prediction.row()
    columns = ["image", "label1", "probability1", "task1", "label2", "probability2", "task2", "none0", "none1"]
    assert list(row) == columns
    assert (row["image"], row["label2"], row["none1"]) == (str(files[0]), prediction.labels[1], prediction.none[1])


def test_an_unreadable_file_is_an_error_and_not_left_out(model, files):
    files[3].write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png \(it is empty\)"):
        Predictor(TorchClassifier(model))(files)


def test_pixels_are_normalised_per_channel(model):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    found = preprocess(pixels, TorchClassifier(model))
    assert (found.shape, found.dtype) == ((3, 4, 5), np.float32)
    for c, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.5, 0.6, 0.7), strict=True)):
        assert found[c] == pytest.approx((pixels[:, :, c] / 255 - mean) / std, abs=1e-6)


def test_softmax_does_not_overflow():
    logits = np.array([[1000.0, 999.0], [-1000.0, -1000.0]], dtype=np.float32)
    expected = torch.from_numpy(logits).double().softmax(1).numpy()
    assert softmax(logits) == pytest.approx(expected, abs=1e-6)


def test_folders_are_searched_and_files_kept_in_order(files, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    files[0].rename(tmp_path / "deep" / "er" / "z.JPG")
    (tmp_path / "notes.txt").write_text("no image")
    assert image_files([files[4], str(tmp_path / "deep")]) == [files[4], tmp_path / "deep" / "er" / "z.JPG"]
    assert image_files([tmp_path]) == [*files[1:], tmp_path / "deep" / "er" / "z.JPG"]


def test_missing_files_and_empty_folders_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file .*none\.png"):
        image_files([tmp_path / "none.png"])
    with pytest.raises(FileNotFoundError, match="No image in"):
        image_files([tmp_path])


def test_none_is_as_probable_as_the_task_said_in_training(model, files):
    offsets = [[4.0, 1.0, 2.0], [0.5, -1.0, 3.0, 0.2]]
    other = create_model("osdtw_resnet14", num_classes=5, task_classes=TASKS, logit_offsets=offsets).eval()
    other.load_state_dict(model.state_dict())
    other.pretrained_cfg = model.pretrained_cfg
    (found,) = Predictor(TorchClassifier(other))(files[0])
    classifier = TorchClassifier(model)
    logits = classifier.outputs(np.array(Image.open(files[0]))[None])[1:]
    posterior = [torch.softmax(torch.tensor(z[0]) + torch.tensor(m), 0) for z, m in zip(logits, offsets, strict=True)]
    assert found.none == pytest.approx([float(q[-1]) for q in posterior], abs=1e-5)


def test_a_network_in_half_precision_classifies(model, files):
    expected = Predictor(TorchClassifier(model))(files)
    found = Predictor(TorchClassifier(model.bfloat16()))(files)
    for one, two in zip(found, expected, strict=True):
        assert sum(one.probabilities) == pytest.approx(1, abs=1e-5)
        assert dict(zip(one.labels, one.probabilities, strict=True)) == pytest.approx(
            dict(zip(two.labels, two.probabilities, strict=True)), abs=0.05
        )


def test_a_folder_called_like_an_image_is_looked_through(files, tmp_path):
    (tmp_path / "album.jpg").mkdir()
    assert image_files([tmp_path]) == files
