"""ONNX Runtime against PyTorch, output by output.

One batch proves little: an exporter can fix the batch size or fold a batch norm wrongly and still agree on the
example it saw. Hence batches of 1, 3 and 8 random images, none of them the example's size.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from osdtw_export.metadata import Metadata
from osdtw_export.runtime import OnnxClassifier
from osdtw_models import OsdtwNet

BATCHES = (1, 3, 8)
# Relative to the largest logit; float32 on two engines measures about 1e-6. What eight bits cost is measured on images.
TOLERANCES = {"fp32": 1e-4, "fp16": 1e-2, "int8": math.inf}


@dataclass(frozen=True)
class ParityRow:
    """One output at one batch size.

    Args:
        batch: Number of images.
        output: Name of the output.
        difference: Largest absolute difference between the two.
        allowed: Largest difference that passes.
    """

    batch: int
    output: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        """Whether the two agree; a difference that is not a number does not."""
        return self.difference <= self.allowed


@dataclass(frozen=True)
class ParityReport:
    """All comparisons of one file.

    Args:
        rows: One row per batch and output.
    """

    rows: tuple[ParityRow, ...]

    def worst(self, batch: int | None = None) -> ParityRow:
        """The row closest to failing, of one batch size or of all; of int8, which cannot fail, the widest."""
        rows = [row for row in self.rows if batch in (None, row.batch)]
        return max(rows, key=lambda row: (row.difference / row.allowed, row.difference))


def check_parity(model: OsdtwNet, path: str | os.PathLike[str]) -> ParityReport:
    """Compare an ONNX file with the network it was made of, on the CPU.

    Args:
        model: The network in eval mode, float32, on the CPU.
        path: Its ONNX file.

    Returns:
        The report; every row has passed.

    Raises:
        ValueError: If an output differs by more than 1e-4 * max(1, max |logit|) (fp16: 1e-2) or is not finite.
    """
    classifier = OnnxClassifier(path, "cpu")  # a GPU rounds to TF32
    metadata = classifier.metadata
    tolerance = TOLERANCES[metadata.precision]
    noise = torch.Generator().manual_seed(0)
    rows = []
    for batch in [metadata.batch] if metadata.batch else BATCHES:
        images, floats = _images(metadata, batch, noise)
        with torch.inference_mode():
            each = model.forward_outputs(floats)
            fused = model.fuse(each)
            expected = [fused, *model.calibrated(each), *([fused.softmax(-1)] if metadata.softmax else [])]
        found = classifier.outputs(images.numpy(), classifier.output_names)
        for name, ours, theirs in zip(classifier.output_names, expected, found, strict=True):
            if not ours.isfinite().all():
                raise ValueError(f"PyTorch's own {name!r} is not finite; check the weights, the training diverged.")
            if not np.isfinite(theirs).all():
                raise ValueError(f"ONNX Runtime's {name!r} is not finite at batch {batch}; try another precision.")
            difference = (ours - torch.from_numpy(theirs)).abs().max().item()
            rows.append(ParityRow(batch, name, difference, tolerance * max(1.0, ours.abs().max().item())))
            if not rows[-1].passed:
                raise ValueError(
                    f"ONNX Runtime and PyTorch differ by {difference:.1e} in {name!r} at batch {batch} (allowed "
                    f"{rows[-1].allowed:.1e}); try another opset and report this as a bug."
                )
    return ParityReport(tuple(rows))


def _images(metadata: Metadata, batch: int, noise: torch.Generator) -> tuple[Tensor, Tensor]:
    """Random images as the file takes them, and as the network does."""
    channels, *size = metadata.input_size
    if not metadata.uint8:
        images = torch.randn(batch, channels, *size, generator=noise)
        return images, images
    pixels = torch.randint(256, (batch, *size, channels), generator=noise, dtype=torch.uint8)
    floats = (pixels / 255 - torch.tensor(metadata.mean)) / torch.tensor(metadata.std)
    return pixels, floats.permute(0, 3, 1, 2).contiguous()
