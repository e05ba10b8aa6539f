"""Hostile ONNX files: bytes, graphs, metadata, and files that reach for other files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

import odd
from osdtw_export import OnnxClassifier
from osdtw_export.export import export_onnx
from osdtw_export.metadata import Metadata
from osdtw_models import create_model
from osdtw_models.predict import Predictor
from sandbox import Attack

TASKS = [[3, 0, 2], [1, 4, 5]]
HUGE = (2**31 - 1, 2**40, 2**62, 10**9, 0, -1)


def _exported(folder: Path) -> bytes:
    torch.manual_seed(0)
    model = create_model("osdtw_resnet14", widths=(4, 8, 16), num_classes=6, task_classes=TASKS).eval()
    export_onnx(model, folder / "sound.onnx", source="sound", label_names=["cat", "dog", "owl", "eel", "elk", "ape"])
    (folder / "trap.bin").write_bytes(b"\0" * 10**6)
    (folder / "link").symlink_to("trap.bin")
    os.link(folder / "trap.bin", folder / "trap_too")
    return (folder / "sound.onnx").read_bytes()


def _used(folder: Path, content: bytes) -> Callable[[], object]:
    file = folder / "hostile.onnx"
    file.write_bytes(content)

    def act() -> None:
        classifier = OnnxClassifier(file, "cpu", threads=1)
        channels, height, width = classifier.input_size
        classifier.probabilities(np.zeros((3, height, width, channels), np.uint8))
        if (channels, height) == (3, width):
            Predictor(classifier)(np.zeros((40, 50, 3), np.uint8))

    return act


def _bytes(stream: Random, folder: Path, content: bytes) -> Callable[[], object]:
    return _used(folder, odd.spoilt(content, stream, stream.choice((200, 5000, None))))


def _metadata(stream: Random, folder: Path, content: bytes) -> Callable[[], object]:
    model = onnx.load_model_from_string(content)
    entry = stream.choice(model.metadata_props)
    if stream.random() < 0.2:
        entry.key, entry.value = (
            stream.choice(("", "osdtw_format", "batch", "x" * 10_000)),
            json.dumps(odd.value(stream)),
        )
    elif stream.random() < 0.2:
        entry.value = "[" * 100_000
    else:
        try:
            entry.value = json.dumps(odd.changed(json.loads(entry.value), stream))
        except ValueError:
            entry.value = str(odd.value(stream)).encode("utf-8", "replace").decode()
    return _used(folder, model.SerializeToString())


def _props(folder: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load_model_from_string(_exported(folder)).metadata_props}


def _fields(stream: Random, folder: Path, sound: dict[str, str]) -> Callable[[], object]:
    """Metadata without the file around it: many tries a second."""
    props = dict(sound)
    name = stream.choice(list(props))
    if stream.random() < 0.1:
        del props[name]
    else:
        try:
            props[name] = json.dumps(odd.changed(json.loads(props[name]), stream, stream.choice((1, 2))))
        except ValueError:
            props[name] = json.dumps(odd.value(stream))
    return lambda: Metadata.from_props(props).output_sizes


def _graph(stream: Random, folder: Path, content: bytes) -> Callable[[], object]:
    model = onnx.load_model_from_string(content)
    for _ in range(stream.choice((1, 1, 2))):
        _change(model, stream)
    return _used(folder, model.SerializeToString())


def _change(model: onnx.ModelProto, stream: Random) -> None:
    graph, kind = model.graph, stream.randrange(12)
    node, tensor = stream.choice(graph.node), stream.choice(graph.initializer)
    if kind == 0:  # weights elsewhere
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        place = stream.choice(
            ("trap.bin", "link", "../trap.bin", "trap_too", "/etc/passwd", "*/_ORT_MEM_ADDR_/*", *odd.NAMES)
        )
        for key, value in (("location", place), ("offset", str(stream.choice(HUGE))), ("length", "4")):
            tensor.external_data.add(key=key, value=value.encode("utf-8", "replace").decode())
    elif kind == 1:  # huge or lying sizes
        tensor.dims[:] = [stream.choice((*HUGE, 1, 4)) for _ in range(stream.choice((0, 1, len(tensor.dims), 9)))]
    elif kind == 2:
        tensor.data_type = stream.choice((0, 2, 7, 8, 9, 10, 11, 16, 99))
    elif kind == 3:  # other operators, other domains
        node.domain = stream.choice(("", "com.evil", "com.microsoft", "ai.onnx.ml", "ai.onnx.training"))
        node.op_type = stream.choice(("Loop", "Tile", "Softmax", "Conv", "Evil", "Attention", "", "Identity"))
    elif kind == 4:
        node.attribute.append(helper.make_attribute(stream.choice(("group", "pads", "strides", "axis", "x")), HUGE[0]))
    elif kind == 5 and node.attribute:
        attribute = stream.choice(node.attribute)
        attribute.i = stream.choice(HUGE)
        attribute.ints[:] = [stream.choice(HUGE) for _ in attribute.ints]
    elif kind == 6:  # cycles, missing inputs, outputs twice
        node.input[:] = [stream.choice((*node.output, "", "none", "pixel_values")) for _ in node.input]
    elif kind == 7:
        stream.choice((graph.input, graph.output))[0].type.tensor_type.shape.dim[-1].dim_value = stream.choice(HUGE)
    elif kind == 8:
        _grow(graph, stream)
    elif kind == 9:
        del graph.node[stream.randrange(len(graph.node))]
    elif kind == 10:
        body = helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], "body", [], [])
        graph.node.append(helper.make_node("Loop", ["", ""], ["forever"], body=body))
    else:
        model.ir_version, model.opset_import[0].version = (
            stream.choice((*HUGE[:1], 0, 3, 99)),
            stream.choice((0, 1, 25, 999)),
        )


def _grow(graph: onnx.GraphProto, stream: Random) -> None:
    """A node that makes much of nothing, which ONNX Runtime computes when it opens the file."""
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [2], [stream.choice((10**5, 10**6)), 10**5])
    graph.initializer.append(sizes)
    name, more = stream.choice(
        (("ConstantOfShape", []), ("Expand", ["one"]), ("Tile", ["ones"]), ("RandomNormal", None))
    )
    graph.initializer.append(helper.make_tensor("one", TensorProto.FLOAT, [1], [1.0]))
    graph.initializer.append(helper.make_tensor("ones", TensorProto.FLOAT, [1, 1], [1.0]))
    if more is None:
        graph.node.append(helper.make_node(name, [], ["much"], shape=[10**5, 10**6]))
    else:
        graph.node.append(helper.make_node(name, [*more, "sizes"], ["much"]))
    graph.node.append(helper.make_node("ReduceSum", ["much"], ["sum"], keepdims=0))
    first: Any = graph.node[0]
    graph.node.append(helper.make_node("Add", [first.output[0], "sum"], ["wasted"]))
    target = graph.node[stream.randrange(1, len(graph.node) - 3)]
    target.input[:] = ["wasted" if each == first.output[0] else each for each in target.input]


ATTACKS = (
    Attack("ONNX: bytes", "OnnxClassifier, Predictor", 200, _exported, _bytes),
    Attack("ONNX: metadata in the file", "OnnxClassifier, Predictor", 150, _exported, _metadata),
    Attack("ONNX: metadata alone", "Metadata.from_props", 2000, _props, _fields),
    Attack(
        "ONNX: weights elsewhere, operators, sizes, cycles, bombs", "OnnxClassifier, Predictor", 200, _exported, _graph
    ),
)
