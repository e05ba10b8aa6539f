"""How large the tensors of a graph get, by ONNX's own shape inference, before anything is computed.

A file of a hundred bytes can ask for a tensor of a terabyte, and ONNX Runtime computes what does not depend on the
images when it opens the file. What the inference cannot tell (the number of images, operators of ONNX Runtime's own)
stays unknown: this stops files that ask for memory, not programs that find a way to.
"""

from __future__ import annotations

import math

import onnx

MOST_NUMBERS = 1 << 28  # of one tensor; 1 GiB as float32
SMALL = 1024  # numbers of a weight that may be a shape


def check_sizes(model: onnx.ModelProto) -> None:
    """Refuse a graph with a tensor that is too large.

    Args:
        model: The model; it stays as it is.

    Raises:
        ValueError: If a tensor has more than `MOST_NUMBERS` numbers; the message completes "it ...".
    """
    skeleton = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = skeleton.graph
    graph.node.extend(model.graph.node)
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
