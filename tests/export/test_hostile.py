"""Hostile ONNX files: used, or refused in one sentence; what reaches for memory or time is refused before a session."""

import resource
from itertools import pairwise
from pathlib import Path
from random import Random

import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import attacks_on_onnx
from osdtw_export import OnnxClassifier
from osdtw_export.sizes import check_sizes
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

    def refused(*nodes, sizes=(), weights=(), sparse=()):
        model = onnx.load(exported.file.path)
        model.graph.initializer.append(helper.make_tensor("sizes", TensorProto.INT64, [len(sizes)], sizes))
        model.graph.initializer.extend(weights)
        model.graph.sparse_initializer.extend(sparse)
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


@pytest.fixture
def thrifty():
    """Let 1 GiB more of address space be all that there is: who takes the bait fails, and the machine lives."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def weight(name, dims, **content):
    return TensorProto(name=name, data_type=TensorProto.INT64, dims=dims, **content)


@pytest.mark.usefixtures("thrifty")
@pytest.mark.parametrize("dims", [[2**31 - 1], [2**40, 1], [-1]])
def test_a_weight_that_holds_less_than_it_says(refusal, dims):
    lying = weight("lying", dims, raw_data=bytes(8))
    node = helper.make_node("Expand", ["pixel_values", "lying"], ["much"])
    assert "says that a weight has" in refusal(node, weights=[lying])


@pytest.mark.usefixtures("thrifty")
def test_a_shape_of_many_numbers_that_an_operator_makes(refusal):
    nodes = [
        helper.make_node("ConstantOfShape", ["sizes"], ["shape"], value=helper.make_tensor("", 7, [1], [1])),
        helper.make_node("Expand", ["pixel_values", "shape"], ["much"]),
    ]
    assert "asks for a shape of 200000000 numbers ('shape')" in refusal(*nodes, sizes=[2 * 10**8])


@pytest.mark.usefixtures("thrifty")
def test_a_shape_that_doubles_again_and_again(refusal):
    names = ["sizes", *(f"twice{k}" for k in range(30))]
    nodes = [helper.make_node("Concat", [a, a], [b], axis=0) for a, b in pairwise(names)]
    assert "joins numbers to a shape of more than 1024" in refusal(*nodes, sizes=[1])


@pytest.mark.usefixtures("thrifty")
def test_dimensions_that_double_again_and_again(refusal):
    names = ["sizes", *(f"twice{k}" for k in range(30))]
    nodes = [helper.make_node("Gather", [a, a], [b]) for a, b in pairwise(names)]
    assert "joins numbers to a shape of more than 1024" in refusal(*nodes, sizes=[0])


@pytest.mark.usefixtures("thrifty")
def test_sparse_weights(refusal):
    sparse = onnx.SparseTensorProto(
        values=weight("w", [1], raw_data=bytes(8)), indices=weight("i", [1], raw_data=bytes(8))
    )
    sparse.dims.extend([10**6, 10**6])
    assert "has sparse weights" in refusal(sparse=[sparse])


def test_many_weights_may_be_indices_and_one_computed_shape_may_follow_another(exported):
    model = onnx.load(exported.file.path)
    model.graph.initializer.append(weight("indices", [4000], int64_data=[0] * 4000))
    model.graph.initializer.append(weight("first", [1], int64_data=[0]))
    for node in (
        helper.make_node("Gather", ["pixel_values", "indices"], ["gathered"]),
        helper.make_node("Shape", ["gathered"], ["sizes"]),
        helper.make_node("Gather", ["sizes", "first"], ["size"]),
        helper.make_node("Concat", ["size", "first"], ["both"], axis=0),
        helper.make_node("Reshape", ["gathered", "both"], ["flat"]),
    ):
        model.graph.node.append(node)
    check_sizes(model)


def test_loops(refusal):
    body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
    assert "loops or branches" in refusal(helper.make_node("Loop", ["", ""], ["forever"], body=body))
