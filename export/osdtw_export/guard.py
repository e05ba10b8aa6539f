"""What is refused before ONNX Runtime sees it: files that reach for other files, foreign code or all memory.

ONNX files may keep their weights elsewhere (``../../etc/passwd`` is a path like any other) and may use operators that a
plug-in brings, that loop for ever, or that make much of nothing. Ours do none of it: they are one file of standard
operators, one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import onnx

from osdtw_export.sizes import check_sizes

OPERATORS = ("", "ai.onnx", "com.microsoft")  # ONNX's own, and those that every ONNX Runtime has built in


def check_content(content: bytes) -> dict[str, str]:
    """Look through the bytes of a file.

    Args:
        content: The file.

    Returns:
        Its metadata.

    Raises:
        ValueError: If it is no ONNX model, reaches outside itself, loops, or asks for too much memory; the message
            completes "it ...".
    """
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has errors of its own
        raise ValueError("holds no ONNX model or only a part of one") from error
    if not model.graph.node:
        raise ValueError("holds no ONNX model or only a part of one")
    foreign = {node.domain for node in _nodes(model.graph)} - {*OPERATORS}
    if foreign or model.functions:
        raise ValueError(f"uses operators that are not ONNX's own ({', '.join(sorted(foreign)) or 'functions'})")
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise ValueError(f"keeps its weights in another file ({tensor.name!r}), which ours never do")
    if model.graph.sparse_initializer:
        raise ValueError("has sparse weights, which ours never have and which get as large as they say")
    if next(islice(_graphs(model.graph), 1, None), None) is not None:
        raise ValueError("has loops or branches, which ours never have")
    check_sizes(model)
    return {entry.key: entry.value for entry in model.metadata_props}


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and all graphs inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g, *attribute.graphs] if attribute.HasField("g") else attribute.graphs:
                yield from _graphs(inner)


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for each in _graphs(graph):
        yield from each.node


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor, wherever one may stand."""
    for each in _graphs(graph):
        yield from each.initializer
        for sparse in each.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in each.node:
            for attribute in node.attribute:
                yield from ([attribute.t] if attribute.HasField("t") else [])
                yield from attribute.tensors
                for sparse in [
                    *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
                    *attribute.sparse_tensors,
                ]:
                    yield from (sparse.values, sparse.indices)
