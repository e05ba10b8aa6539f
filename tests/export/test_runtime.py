"""The runtime needs no torch, takes only our files, and says in one sentence what is wrong."""

import os
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from osdtw_export.metadata import FORMAT_KEY, Metadata
from osdtw_export.runtime import OnnxClassifier


@pytest.fixture(scope="module")
def classifier(exported):
    return OnnxClassifier(exported.file.path, threads=1)


@pytest.fixture
def altered(exported, tmp_path):
    """Our file with one change, saved elsewhere."""

    def alter(change):
        model = onnx.load(exported.file.path)
        change(model)
        onnx.save(model, tmp_path / "altered.onnx")
        return tmp_path / "altered.onnx"

    return alter


def test_its_properties_are_those_of_the_file(classifier, exported):
    assert classifier.architecture == "osdtw_resnet14"
    assert classifier.num_classes == 10
    assert classifier.label_names == [f"animal {c}" for c in range(10)]
    assert classifier.task_classes == exported.model.partition.to_lists()
    assert (classifier.input_size, len(classifier.mean), len(classifier.std)) == ((3, 32, 32), 3, 3)
    assert classifier.output_names == ["logits", "logits_task0", "logits_task1"]
    assert classifier.providers == ["CPUExecutionProvider"]


def test_images_may_be_a_view_of_channels_last_arrays(classifier):
    view = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(classifier.logits(view), classifier.logits(view.copy(order="C")))


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((1, 3, 32, 32)), r"float32, not float64; use astype"),
        ([[0.0]], "numpy array of float32, not list"),
        (np.zeros((3, 32, 32), np.float32), r"shape \(3, 32, 32\), but this network takes \(batch, 3, 32, 32\)"),
        (np.zeros((1, 32, 32, 3), np.float32), r"shape \(1, 32, 32, 3\)"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(classifier, images, said):
    with pytest.raises(ValueError, match=said):
        classifier.logits(images)


def test_torch_stays_out(exported):
    code = (
        "import sys, numpy as np; from osdtw_export.runtime import OnnxClassifier; "
        f"OnnxClassifier({str(exported.file.path)!r}, threads=1).logits(np.zeros((1, 3, 32, 32), np.float32)); "
        "assert 'torch' not in sys.modules"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.onnx; write one with osdtw-export"):
        OnnxClassifier(tmp_path / "no.onnx")


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(100), bytes(10_000)])
def test_a_file_that_is_no_onnx_is_refused(tmp_path, content):
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot read .*bad\.onnx") as caught:
        OnnxClassifier(tmp_path / "bad.onnx")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_file_that_was_cut_short_is_refused(exported, tmp_path, share):
    whole = exported.file.path.read_bytes()
    (tmp_path / "cut.onnx").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ValueError, match=r"cut\.onnx"):
        OnnxClassifier(tmp_path / "cut.onnx")


def test_an_onnx_file_of_others_is_refused(altered):
    with pytest.raises(ValueError, match="is no OSDTW file, it has no OSDTW metadata"):
        OnnxClassifier(altered(lambda model: model.ClearField("metadata_props")))


def test_a_graph_that_is_not_what_its_metadata_tell_is_refused(altered):
    with pytest.raises(ValueError, match="its outputs are"):
        OnnxClassifier(altered(lambda model: model.graph.output.pop()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (FORMAT_KEY, "2"),
        ("task_classes", "[[0, 1], [1]]"),
        ("task_classes", "[[0, 1"),
        ("task_classes", "3"),
        ("task_classes", "[" * 100_000),
        ("label_names", '["one"]'),
        ("label_names", "7"),
        ("input_size", "[3, 32]"),
        ("input_size", '[3, "32", 32]'),
        ("mean", "[0.5]"),
        ("mean", "[NaN, 0, 0]"),
        ("std", "[1, 1, 0]"),
        ("std", None),
        ("architecture", None),
    ],
)
def test_damaged_metadata_are_refused(exported, key, value):
    props = exported.file.metadata.to_props()
    props[key] = value
    if value is None:
        del props[key]
    with pytest.raises(ValueError, match="OSDTW metadata"):
        Metadata.from_props(props)


def test_a_provider_that_is_not_installed_is_an_error(exported):
    with pytest.raises(ValueError, match=r"has no NoSuchProvider, only .*CPUExecutionProvider"):
        OnnxClassifier(exported.file.path, providers=["NoSuchProvider"])


def test_a_provider_that_does_not_start_is_an_error(exported, monkeypatch):
    session = onnxruntime.InferenceSession
    available = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
    # ONNX Runtime itself falls back to the CPU without an exception.
    monkeypatch.setattr(
        onnxruntime, "InferenceSession", lambda *args, providers: session(*args, providers=["CPUExecutionProvider"])
    )
    with pytest.raises(ValueError, match="CUDAExecutionProvider is installed but did not start"):
        OnnxClassifier(exported.file.path, providers=available)
