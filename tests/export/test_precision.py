"""Files in fewer bits: what stays, what is calibrated on what, what it costs."""

import logging
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from timm.models import save_for_hf

from osdtw_export import OnnxClassifier
from osdtw_export.accuracy import Data, accuracies, accuracy_cost, batches, read_data
from osdtw_export.cli import main
from osdtw_export.export import export_onnx
from osdtw_export.parity import check_parity
from osdtw_export.precision import lower_precision
from osdtw_export.quantise import class_balanced
from osdtw_export.telling import file_lines
from osdtw_export.variant import Variant
from osdtw_models.image_set import ImageSet

COUNTS = [200, 150, 120, 60, 50, 40, 30, 10, 5, 3]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of ten classes, train/ long-tailed, test/ not; a colour for each class."""
    root, noise = tmp_path_factory.mktemp("animals"), np.random.default_rng(0)
    for split, number in (("train", 4), ("test", 2)):
        for c in range(10):
            (root / split / f"animal {c}").mkdir(parents=True)
            for i in range(number if c < 5 else 1):
                pixels = np.clip(noise.normal(25 * c, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / split / f"animal {c}" / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def full(make_network, tmp_path_factory):
    """A network that knows how frequent its classes are, and its unpacked float32 file."""
    model = make_network(class_counts=COUNTS, shared_depth=5)
    model.pretrained_cfg = {
        **model.pretrained_cfg,
        "num_classes": 10,
        "label_names": [f"animal {c}" for c in range(10)],
    }
    path = tmp_path_factory.mktemp("full") / "full.onnx"
    return model, export_onnx(model, path, source="test", variant=Variant("none"))


def lowered(full, precision, target, data):
    metadata = replace(full[1].metadata, precision=precision)
    lower_precision(full[1].path, target, metadata, data)
    return OnnxClassifier(target)


def test_calibration_takes_classes_in_turns():
    labels = [0, 0, 0, 0, 1, 1, 0, 2]
    assert class_balanced(labels, 3) == [0, 4, 7]
    assert class_balanced(labels, 5) == [0, 4, 7, 1, 5]
    assert class_balanced(labels, 6) == [0, 4, 7, 1, 5, 2]
    assert sorted(class_balanced(labels, 99)) == list(range(8))


def test_half_precision_keeps_inputs_outputs_and_the_answers_to_a_thousandth(full, tmp_path):
    classifier = lowered(full, "fp16", tmp_path / "half.onnx", None)
    assert classifier.metadata.precision == "fp16"
    report = check_parity(full[0], tmp_path / "half.onnx")
    worst = report.worst()
    assert 0 < worst.difference < worst.allowed
    weights = [w for w in onnx.load(tmp_path / "half.onnx").graph.initializer if len(w.dims) == 4]
    assert {w.data_type for w in weights} == {onnx.TensorProto.FLOAT16}


def test_eight_bits_are_calibrated_on_the_images_and_close(full, folder, tmp_path):
    data = read_data(full[1].metadata, str(folder))
    assert data.apart
    assert (len(data.train), len(data.test)) == (25, 15)
    classifier = lowered(full, "int8", tmp_path / "int8.onnx", data)
    inside = onnx.load(tmp_path / "int8.onnx").graph
    weights = [w for w in inside.initializer if len(w.dims) == 4]
    assert {w.data_type for w in weights} == {onnx.TensorProto.INT8}
    # Range of the input = the largest pixel of the images it was calibrated on, in 255 steps.
    pixels = np.concatenate(list(batches(data.train, range(25), 64)))
    floats = (pixels / 255 - classifier.mean) / classifier.std
    first = next(node for node in inside.node if node.op_type == "QuantizeLinear" and "pixel_values" in node.input)
    scale = next(onnx.numpy_helper.to_array(w) for w in inside.initializer if w.name == first.input[1])
    assert scale == pytest.approx((max(floats.max(), 0) - min(floats.min(), 0)) / 255, rel=1e-5)
    ours, exact = classifier.logits(pixels), OnnxClassifier(full[1].path).logits(pixels)
    assert 0 < np.abs(ours - exact).max() < 0.25 * np.abs(exact).max()
    assert not logging.root.disabled


def test_accuracies_are_those_of_the_logits_counted_by_hand(full, folder):
    data = read_data(full[1].metadata, str(folder))
    predicted = OnnxClassifier(full[1].path).logits(next(batches(data.test, range(15), 64))).argmax(-1)
    labels = data.test.labels.numpy()
    by_class = [100 * np.mean(predicted[labels == c] == c) for c in range(10)]
    assert accuracies(full[1].path, data.test) == pytest.approx(
        {
            "overall": 100 * np.mean(predicted == labels),
            "many": np.mean(by_class[:3]),
            "medium": np.mean(by_class[3:7]),
            "few": np.mean(by_class[7:]),
        }
    )
    cost = accuracy_cost(full[1].path, full[1].path, data.test)
    assert all(before == after for before, after in cost.values())


def test_fp16_without_images_says_that_its_cost_is_not_known(full):
    file = replace(full[1], metadata=replace(full[1].metadata, precision="fp16"))
    lines = list(file_lines(file, Variant(precision="fp16"), None))
    assert "Accuracy not measured; --data with a test set tells what fewer bits cost" in lines


def test_the_door_tells_the_cost_in_every_group(full, folder, tmp_path, capsys, monkeypatch):
    save_for_hf(full[0], tmp_path / "run", safe_serialization=True)
    monkeypatch.chdir(tmp_path)
    assert main(["--onnx", "run", "--precision", "int8", "--data", str(folder), "-o", "q.onnx"]) == 0
    out = capsys.readouterr().out
    assert "Packing  none\n" in out
    assert "on 15 test images" in out
    for figure in ("overall", "many", "medium", "few"):
        assert figure in out
    assert OnnxClassifier("q.onnx").metadata.precision == "int8"


def test_without_images_there_is_no_int8_and_other_classes_are_refused(full, folder, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="calibrated on real images; name them with --data"):
        export_onnx(full[0], tmp_path / "model.onnx", source="test", variant=Variant(precision="int8"))
    (folder / "test" / "animal 9").rename(folder / "test" / "plant")
    with pytest.raises(ValueError, match=r"10 classes of .* are not the 10 of this network"):
        read_data(full[1].metadata, str(folder))
    (folder / "test" / "plant").rename(folder / "test" / "animal 9")


def test_a_last_calibration_batch_is_filled_up_for_a_file_of_one_batch_size(make_network, folder, tmp_path):
    model = make_network(task_classes=[list(range(10))], class_counts=COUNTS)
    images = ImageSet(torch.zeros(3, 3, 32, 32, dtype=torch.uint8), torch.arange(3), tuple("abcdefghij"), ("", "", ""))
    file = export_onnx(
        model,
        tmp_path / "model.onnx",
        source="test",
        variant=Variant(precision="int8", batch=2, uint8=True),
        data=Data(images, images, False),
    )
    assert set(file.cost) == {"overall", "many", "medium", "few"}
    session = onnxruntime.InferenceSession(file.path)
    assert session.get_inputs()[0].shape == [2, 32, 32, 3]
