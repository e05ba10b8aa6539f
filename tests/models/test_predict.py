"""Predictions from image files: names, probabilities, tasks and their order."""

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_models import create_model
from osdtw_models.predict import TorchClassifier, image_files, predict_files, preprocess, softmax

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
        found = predict_files(TorchClassifier(model), files, topk=3, batch_size=batch_size)
        assert [prediction.file for prediction in found] == files
        for prediction in found:
            image = torch.from_numpy(np.array(Image.open(prediction.file))).permute(2, 0, 1) / 255
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
    (prediction,) = predict_files(TorchClassifier(model), files[:1], topk=9)
    assert prediction.none == []
    assert sorted(prediction.labels) == list("01234")
    assert prediction.tasks == [0] * 5
    assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-5)


def test_an_unreadable_file_is_an_error_and_not_left_out(model, files):
    files[3].write_bytes(b"")
    with pytest.raises(ValueError, match=r"3\.png \(it is empty\)"):
        predict_files(TorchClassifier(model), files)


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
