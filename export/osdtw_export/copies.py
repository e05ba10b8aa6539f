"""A convolution of copies of a map -> a convolution of the map.

Packed decoders begin with K copies of the shared map, side by side. Their first convolutions need no copies: with a
group per copy they are one convolution whose outputs lie one after another; without groups, one of summed weights.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass


def convolve_without_copies(model: ir.Model) -> None:
    """Let convolutions read a map instead of copies of it, in place.

    Args:
        model: An ONNX model.
    """
    for node in list(model.graph):
        if node.op_type != "Conv" or node.inputs[0] is None:
            continue
        copies = node.inputs[0].producer()
        if copies is None or copies.op_type != "Concat" or copies.attributes["axis"].as_int() != 1:
            continue
        number = len(copies.inputs)
        if any(value is not copies.inputs[0] for value in copies.inputs):
            continue
        groups = node.attributes["group"].as_int() if "group" in node.attributes else 1
        if groups == 1:
            _sum_weights(model, node, number)
        elif groups != number:
            continue  # a group per copy and part of it: outputs would come in another order
        node.attributes["group"] = ir.AttrInt64("group", 1)
        node.replace_input_with(0, copies.inputs[0])
    RemoveUnusedNodesPass()(model)


def _sum_weights(model: ir.Model, node: ir.Node, number: int) -> None:
    """Give a dense convolution the sum of its weights over the copies; between the tasks they are zero."""
    old = node.inputs[1]
    assert old is not None
    assert old.const_value is not None
    array = old.const_value.numpy()
    summed = np.add.reduce(np.split(array, number, axis=1))
    weight = ir.val(f"{old.name}_summed", const_value=ir.tensor(summed, name=f"{old.name}_summed"))
    model.graph.register_initializer(weight)
    node.replace_input_with(1, weight)
