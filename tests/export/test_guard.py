"""A file that reaches for other files or for foreign code is refused before ONNX Runtime sees it."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from osdtw_export import OnnxClassifier
from osdtw_export.guard import check_content


@pytest.fixture
def refusal(exported, tmp_path, monkeypatch):
    """The sentence with which a change of our file is refused, without a session."""

    def refused(change):
        model = onnx.load(exported.file.path)
        change(model)
        path = tmp_path / "hostile.onnx"
        path.write_bytes(model.SerializeToString())
        monkeypatch.setattr(onnxruntime, "InferenceSession", None)
        with pytest.raises(ValueError, match=r"hostile\.onnx is no OSDTW file") as caught:
            OnnxClassifier(path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return refused


def external(location, **more):
    """A tensor that says its bytes lie elsewhere."""
    tensor = TensorProto(name="stolen", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize(
    "location", ["../secret", "/etc/passwd", "beside.bin", "", "*/_ORT_MEM_ADDR_/*", "C:\\secret", "\\\\server\\share"]
)
def test_weights_in_other_files(refusal, location):
    assert "weights in another file ('stolen')" in refusal(lambda m: m.graph.initializer.append(external(location)))


@pytest.mark.parametrize("more", [{"offset": "-1"}, {"length": "9" * 30}, {"unknown": "x"}])
def test_weights_in_other_files_with_odd_keys(refusal, more):
    assert "weights in another file" in refusal(lambda m: m.graph.initializer.append(external("w", **more)))


def test_the_keys_alone_are_enough(refusal):
    def change(model):
        model.graph.initializer[0].external_data.add(key="location", value="w")

    assert "weights in another file" in refusal(change)


def test_weights_in_other_files_deep_inside(refusal):
    def inside(attribute):
        constant = helper.make_node("Constant", [], ["inner"])
        constant.attribute.append(attribute)
        branch = helper.make_graph([constant], "branch", [], [])
        return helper.make_node("If", ["pixel_values"], ["x"], then_branch=branch, else_branch=branch)

    sparse = onnx.SparseTensorProto(values=external("w"), indices=numpy_helper.from_array(np.zeros(1, np.int64)))
    for attribute in (helper.make_attribute("value", external("w")), helper.make_attribute("sparse_value", sparse)):
        assert "another file" in refusal(lambda m, a=attribute: m.graph.node.append(inside(a)))
    assert "another file" in refusal(lambda m: m.graph.sparse_initializer.append(sparse))


def test_operators_of_others(refusal):
    def change(model):
        model.graph.node.append(helper.make_node("Evil", ["pixel_values"], ["x"], domain="com.evil"))

    assert "operators that are not ONNX's own (com.evil)" in refusal(change)


def test_functions(refusal):
    node = helper.make_node("Relu", ["a"], ["b"])
    function = helper.make_function("custom", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 20)])
    assert "operators that are not ONNX's own" in refusal(lambda model: model.functions.append(function))


def test_our_own_file_passes_and_gives_its_metadata(exported):
    props = check_content(exported.file.path.read_bytes())
    assert props == exported.file.metadata.to_props()
