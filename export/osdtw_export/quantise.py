"""A float32 file -> one in eight bits, calibrated on real images.

Quantisation hurts rare classes first: their logits move as much as those of others but had less room. So the images
that set the ranges are drawn class by class, and what the file costs is told for few, medium and many.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quant_pre_process,
    quantize_static,
)

from osdtw_export.interface import INPUT, prepared
from osdtw_export.metadata import Metadata

IMAGES = 512
BATCH = 64
# The rest stays in float32: of the fusion of the tasks all but its additions.
OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool"]


def class_balanced(labels: Sequence[int], number: int = IMAGES) -> list[int]:
    """Indices of images, as many of each class as there are, in turns: the rare classes run out first.

    Args:
        labels: Class of each image.
        number: How many to choose.

    Returns:
        The first image of every class, then the second of every class, and so on; all, if there are fewer.
    """
    turn: dict[int, int] = {}
    order = []
    for index, label in enumerate(labels):
        turn[label] = turn.get(label, 0) + 1
        order.append((turn[label], label, index))
    return [index for *_, index in sorted(order)[:number]]


def quantise(source: Path, target: Path, metadata: Metadata, batches: Iterator[NDArray[np.uint8]]) -> None:
    """Write a file again in eight bits: weights per channel, activations as calibrated (static QDQ).

    Args:
        source: A float32 file.
        target: Where to write.
        metadata: What the file says about itself.
        batches: Pixels for calibration, (B, H, W, C), uint8 each.
    """
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "ready.onnx"
        quant_pre_process(source, ready, skip_symbolic_shape=True)
        quiet, logging.root.disabled = logging.root.disabled, True  # it advises on every file, whatever was done
        try:
            quantize_static(
                ready,
                target,
                _Images(metadata, batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=OPERATORS,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=CalibrationMethod.MinMax,
            )
        finally:
            logging.root.disabled = quiet


class _Images(CalibrationDataReader):  # type: ignore[misc]
    """Batches as the graph takes them, filled up where it takes one size only."""

    def __init__(self, metadata: Metadata, batches: Iterator[NDArray[np.uint8]]) -> None:
        self._metadata, self._batches = metadata, batches

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """The next batch, None after the last."""
        pixels = next(self._batches, None)
        if pixels is None:
            return None
        number = self._metadata.batch
        if number and len(pixels) < number:
            pixels = np.resize(pixels, (number, *pixels.shape[1:]))
        return {INPUT: prepared(pixels, self._metadata)}
