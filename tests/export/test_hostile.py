"""Hostile ONNX files: used, or refused in one sentence; what reaches for memory or time is refused before a session."""

from random import Random

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import attacks_on_onnx
from osdtw_export import OnnxClassifier
from sandbox import attempt

TRIES = 25


@pytest.mark.parametrize("attack", attacks_on_onnx.ATTACKS, ids=lambda attack: attack.fault)
def test_every_try_is_used_or_refused_in_one_sentence(attack, tmp_path):
    state = attack.begin(tmp_path)
    found = [attempt(attack.craft(Random(f"test/{i}"), tmp_path, state)) for i in range(TRIES)]
    assert set(found) <= {"accepted", "refused"}
    assert "refused" in found


@pytest.fixture
def refusal(exported, tmp_path, monkeypatch):
    """The sentence with which our file with one more node is refused, before there is a session."""

    def refused(*nodes, sizes=()):
        model = onnx.load(exported.file.path)
        model.graph.initializer.append(helper.make_tensor("sizes", TensorProto.INT64, [len(sizes)], sizes))
        model.graph.node.extend(nodes)
        (tmp_path / "hostile.onnx").write_bytes(model.SerializeToString())
        monkeypatch.setattr(onnxruntime, "InferenceSession", None)
        with pytest.raises(ValueError, match=r"hostile\.onnx is no OSDTW file") as caught:
            OnnxClassifier(tmp_path / "hostile.onnx")
        return str(caught.value)

    return refused


def test_much_of_nothing(refusal):
    node = helper.make_node("ConstantOfShape", ["sizes"], ["much"])
    assert "asks for a tensor of 1000000 x 1000000 numbers ('much')" in refusal(node, sizes=[10**6, 10**6])


def test_much_of_little(refusal):
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["long"]),
        helper.make_node("Transpose", ["long"], ["wide"]),
        helper.make_node("MatMul", ["long", "wide"], ["much"]),
    ]
    assert "asks for a tensor of 100000 x 100000 numbers ('much')" in refusal(*nodes, sizes=[10**5, 1])


def test_loops(refusal):
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
    assert "loops or branches" in refusal(helper.make_node("Loop", ["", ""], ["forever"], body=body))
