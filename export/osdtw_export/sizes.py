"""How large the tensors of a graph get, by ONNX's own shape inference, before anything is computed.

A file of a hundred bytes can ask for a tensor of a terabyte, and ONNX Runtime computes what does not depend on the
images when it opens the file. What the inference cannot tell (the number of images, operators of ONNX Runtime's own)
stays unknown: this stops files that ask for memory, not programs that find a way to.

The inference itself can be made to take memory: it writes shapes down number by number, and one line of a file says a
shape of two thousand million numbers. So what may become a shape has a bound before it starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import onnx

MOST_NUMBERS = 1 << 28  # of one tensor; 1 GiB as float32
SMALL = 1024  # numbers of what may be a shape
DIMENSIONS = 8  # of what a network computes
WHOLE = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
WHOLE_ALONE = {"tensor(int32)", "tensor(int64)"}
JOINING = ("Concat", "Gather", "Unsqueeze")  # as long, or of as many dimensions, as their inputs together
HIDDEN = "a shape without a bound"


def check_sizes(model: onnx.ModelProto) -> None:
    """Refuse a graph with a tensor that is too large.

    Args:
        model: The model; it stays as it is.

    Raises:
        ValueError: If a tensor has more than `MOST_NUMBERS` numbers, a shape more than `SMALL`, or a weight fewer than
            it says; the message completes "it ...".
    """
    for tensor in model.graph.initializer:
        _check_stored(tensor)
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.node.extend(model.graph.node)
    unbounded = _bound_shapes(skeleton, model.graph.initializer)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:  # the inference wants their shapes, and the values of those that are shapes
        if math.prod(tensor.dims) <= SMALL:
            graph.initializer.append(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    try:
        inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True)
    except Exception as error:  # the inference is C++ with errors of its own
        raise ValueError("has a graph whose shapes contradict each other") from error
    for value in (*inferred.graph.input, *inferred.graph.value_info, *inferred.graph.output):
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim if size.HasField("dim_value")]
        if math.prod(sizes) > MOST_NUMBERS or min(sizes, default=0) < 0:
            raise ValueError(f"asks for a tensor of {' x '.join(map(str, sizes))} numbers ({value.name!r})")
        if value.name in unbounded and len(sizes) == 1 and sizes[0] > SMALL:
            raise ValueError(f"asks for a shape of {sizes[0]} numbers ({value.name!r})")


def _check_stored(tensor: onnx.TensorProto) -> None:
    """Refuse a weight that has fewer numbers than it says; none takes less than two bits."""
    if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > 4 * tensor.ByteSize():
        sizes = " x ".join(map(str, tensor.dims))
        raise ValueError(f"says that a weight has {sizes} numbers, which it does not hold ({tensor.name!r})")


def _bound_shapes(skeleton: onnx.ModelProto, weights: Iterable[onnx.TensorProto]) -> set[str]:
    """Bound what the inference writes down as shapes, and hide from it what has no bound.

    Args:
        skeleton: The model; where a node takes whole numbers without a bound, its input is renamed to `HIDDEN`.
        weights: The model's weights.

    Returns:
        Names of values without a bound that nodes take as shapes, or as other whole numbers.

    Raises:
        ValueError: If operators join known numbers to more than `SMALL`.
    """
    versions = {each.domain: each.version for each in skeleton.opset_import}
    longest = {weight.name: math.prod(weight.dims) for weight in weights if weight.data_type in WHOLE}
    unbounded = set()
    for node in skeleton.graph.node:
        schema = _schema(node, versions)
        for place in _places_of_whole_numbers(node, schema):
            name = node.input[place]
            if name not in longest:
                unbounded.add(name)
            if longest.get(name, SMALL + 1) > SMALL:
                node.input[place] = HIDDEN
        bound = _longest_output(node, schema, longest)
        if bound is None:
            continue
        if bound > SMALL and node.op_type in JOINING:
            raise ValueError(f"joins numbers to a shape of more than {SMALL} ({', '.join(node.output)!r})")
        longest.update(dict.fromkeys(node.output, bound))
    return unbounded


def _schema(node: onnx.NodeProto, versions: dict[str, int]) -> onnx.defs.OpSchema | None:
    """What ONNX says of an operator, None of one that it does not know."""
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        return onnx.defs.get_schema(node.op_type, versions.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return None


def _places_of_whole_numbers(node: onnx.NodeProto, schema: onnx.defs.OpSchema | None) -> list[int]:
    """Inputs of a node that can be nothing but whole numbers: shapes, axes, indices."""
    formal = schema.inputs if schema else []
    return [k for k, name in enumerate(node.input) if name and k < len(formal) and set(formal[k].types) <= WHOLE_ALONE]


def _longest_output(node: onnx.NodeProto, schema: onnx.defs.OpSchema | None, longest: dict[str, int]) -> int | None:
    """How many known whole numbers an output has at most; None if the inference knows none of them."""
    if node.op_type == "Constant":
        tensors = [each.t for each in node.attribute if each.t.data_type in WHOLE]
        return sum(map(len, (each.ints for each in node.attribute))) + sum(math.prod(each.dims) for each in tensors)
    if schema is None or not schema.has_data_propagation_function:
        return None
    if node.op_type in ("Shape", "Size"):
        return DIMENSIONS
    bounds = [longest.get(name) for name in node.input if name]
    known = [bound for bound in bounds if bound is not None]
    if not bounds or len(known) < len(bounds):
        return None
    return sum(known) if node.op_type in JOINING else max(known)
