"""The runtime needs no torch, takes only our files, and says in one sentence what is wrong."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest

from osdtw_export import OnnxClassifier, providers
from osdtw_export.metadata import FORMAT_KEY, Metadata


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
        (np.zeros((1, 3, 32, 32)), r"numpy array of float32 .*, or of uint8 .*, not float64; use astype"),
        ([[0.0]], "uint8 .*, not list"),
        (np.zeros((1, 3, 32, 32), np.uint8), r"shape \(1, 3, 32, 32\), but this network takes \(batch, 32, 32, 3\)"),
        (np.zeros((3, 32, 32), np.float32), r"shape \(3, 32, 32\), but this network takes \(batch, 3, 32, 32\)"),
        (np.zeros((1, 32, 32, 3), np.float32), r"shape \(1, 32, 32, 3\)"),
    ],
)
def test_images_of_another_shape_or_type_are_refused(classifier, images, said):
    with pytest.raises(ValueError, match=said):
        classifier.logits(images)


def test_pixels_are_normalised_as_the_file_says(classifier):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    floats = (pixels.astype(np.float64) / 255 - classifier.mean) / classifier.std
    expected = classifier.logits(floats.transpose(0, 3, 1, 2).astype(np.float32))
    np.testing.assert_allclose(classifier.logits(pixels), expected, atol=1e-5)


def test_probabilities_are_the_softmax_and_classes_come_best_first(classifier):
    images = np.random.default_rng(0).normal(size=(3, 3, 32, 32)).astype(np.float32)
    exact = np.exp(classifier.logits(images).astype(np.float64))
    exact /= exact.sum(-1, keepdims=True)
    np.testing.assert_allclose(classifier.probabilities(images), exact, rtol=1e-5)
    for row, found in zip(exact, classifier.classify(images, topk=3), strict=True):
        order = sorted(range(10), key=lambda c: -row[c])[:3]
        assert [name for name, _ in found] == [f"animal {c}" for c in order]
        assert [value for _, value in found] == pytest.approx([row[c] for c in order], rel=1e-5)


@pytest.mark.parametrize("number", [0, 1, 5])
def test_more_images_than_a_batch_are_split_and_none_are_lost(classifier, exported, number):
    small = OnnxClassifier(exported.file.path, threads=1, batch_size=2)
    images = np.random.default_rng(0).normal(size=(number, 3, 32, 32)).astype(np.float32)
    for ours, theirs in zip(small.outputs(images), classifier.outputs(images), strict=True):
        assert ours.shape == theirs.shape == (number, ours.shape[1])
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_image_that_is_not_finite_is_named(classifier, value):
    images = np.zeros((3, 3, 32, 32), np.float32)
    images[1, 0, 5, 5] = value
    with pytest.raises(ValueError, match="Image 1 of the batch holds NaN or infinite values"):
        classifier.logits(images)


def test_threads_may_share_a_classifier(classifier):
    batches = [np.full((2, 3, 32, 32), value, np.float32) for value in np.linspace(-1, 1, 16)]
    alone = [classifier.logits(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(classifier.logits, batches))
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_torch_stays_out(exported):
    code = (
        "import sys, numpy as np; from osdtw_export import OnnxClassifier; "
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
    with pytest.raises(ValueError, match=r"bad\.onnx is no OSDTW file, it holds no ONNX model") as caught:
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
    with pytest.raises(ValueError, match="has 3 inputs and outputs where its metadata tell of 4"):
        OnnxClassifier(altered(lambda model: model.graph.output.pop()))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (FORMAT_KEY, "1"),
        ("batch", "0"),
        ("batch", "true"),
        ("uint8", "3"),
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
        ("crop_pct", "0"),
        ("crop_pct", "null"),
        ("interpolation", '"lanczos"'),
        ("precision", '"fp7"'),
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


def test_a_graph_with_a_scalar_is_refused(altered):
    def scalar(model):
        model.graph.input.append(onnx.helper.make_tensor_value_info("number", onnx.TensorProto.FLOAT, []))

    with pytest.raises(ValueError, match="is no OSDTW file"):
        OnnxClassifier(altered(scalar))


@pytest.mark.parametrize("wrong", [{"batch_size": -1}, {"batch_size": 0}, {"threads": 0}])
def test_numbers_below_one_are_refused(exported, wrong):
    with pytest.raises(ValueError, match="both must be at least 1"):
        OnnxClassifier(exported.file.path, **wrong)


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
    for asked in ("cuda", ["cuda", "cpu"], available):
        with pytest.raises(ValueError, match="CUDAExecutionProvider is installed but did not start; check the GPU"):
            OnnxClassifier(exported.file.path, providers=asked)
    with pytest.warns(RuntimeWarning, match="Running on the CPU"):  # nobody asked for CUDA
        assert OnnxClassifier(exported.file.path).providers == ["CPUExecutionProvider"]
    monkeypatch.setattr(providers, "version", lambda name: "1.0")
    with pytest.raises(ValueError, match="onnxruntime and onnxruntime-gpu are both installed"):
        OnnxClassifier(exported.file.path, providers="cuda")
    with pytest.raises(ValueError, match=r"has no TensorrtExecutionProvider, .* are both installed"):
        OnnxClassifier(exported.file.path, providers="tensorrt")


def test_both_packages_side_by_side_are_told_of_even_where_the_cpu_runs(exported, monkeypatch):
    monkeypatch.setattr(providers, "version", lambda name: "1.0")
    with pytest.warns(RuntimeWarning, match="both installed and overwrite each other's files; run: pip uninstall"):
        OnnxClassifier(exported.file.path)
    OnnxClassifier(exported.file.path, "cpu")  # who asks for the CPU gets what was asked for


def test_one_package_alone_is_not_both(monkeypatch):
    def only_the_gpus(name):
        if name == "onnxruntime":
            raise providers.PackageNotFoundError(name)
        return "1.31.1"

    monkeypatch.setattr(providers, "version", only_the_gpus)
    assert not providers.both_installed()


def test_providers_have_short_names_and_tensorrt_comes_only_when_asked_for(monkeypatch):
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: [providers.TENSORRT, providers.CUDA, providers.CPU]
    )
    assert providers.wanted_providers(None) == [providers.CUDA, providers.CPU]
    assert providers.wanted_providers("CPU") == [providers.CPU]
    assert providers.wanted_providers(["tensorrt", providers.CUDA]) == [providers.TENSORRT, providers.CUDA]


def test_a_fixed_batch_asks_for_cuda_graphs_and_fp16_for_tensorrts(monkeypatch):
    assert providers.provider_options(providers.CUDA, "m.onnx", "k", True, False) == {"enable_cuda_graph": "1"}
    options = providers.provider_options(providers.TENSORRT, "/a/m.onnx", "k", False, True)
    assert options["trt_engine_cache_path"] == "/a/m.tensorrt/k"  # engines of other weights lie elsewhere
    assert (options["trt_fp16_enable"], options["trt_cuda_graph_enable"]) == ("1", "0")
    assert providers.provider_options(providers.CPU, "m.onnx", "k", True, True) == {}


def test_an_error_without_words_is_still_a_sentence(exported, monkeypatch):
    class Odd(Exception):
        pass

    class Broken:
        def run(self, names, images):
            raise Odd

    classifier = OnnxClassifier(exported.file.path)
    monkeypatch.setattr(classifier, "_bound", None)
    monkeypatch.setattr(classifier, "_session", Broken())
    with pytest.raises(ValueError, match=r"cannot run .* \(Odd\)"):
        classifier.probabilities(np.zeros((1, *classifier.input_size[1:], 3), np.uint8))
