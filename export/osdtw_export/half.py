"""A float32 file -> one that computes in 16 bits; what goes in and comes out stays as it is."""

from __future__ import annotations

import os
from pathlib import Path

import onnx
import onnx_ir
from onnxruntime.transformers import float16

# Sums of exponentials: the fusion of the tasks stays exact, and nothing overflows.
KEPT = ("LogSoftmax", "Softmax", "ReduceLogSumExp", "Exp", "Log")


def convert_to_half(source: Path, target: Path) -> None:
    """Write a file again in half precision.

    Args:
        source: A float32 file.
        target: Where to write.
    """
    model = onnx.load(os.fspath(source))
    blocked = [*float16.DEFAULT_OP_BLOCK_LIST, *KEPT]
    half = onnx_ir.from_proto(float16.convert_float_to_float16(model, keep_io_types=True, op_block_list=blocked))
    half.graph.sort()  # the converter puts its casts at the end
    onnx_ir.save(half, target)
