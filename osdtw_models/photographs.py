"""Images that stay in their files until they are looked at: no memory is large enough for some data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from osdtw_models.pixels import read_pixels


@dataclass(frozen=True)
class Photographs:
    """Image files, used like a tensor of pixels (N, 3, S, S): what is indexed is read.

    Args:
        files: The files.
        img_size: Side S of the images in pixels.
        crop_pct: See `osdtw_models.pixels.fit_image`.
        interpolation: Likewise.
    """

    files: tuple[Path, ...]
    img_size: int
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, picked: Tensor | slice) -> Tensor:
        """Read some images: shape (B, 3, S, S), uint8."""
        files = self.files[picked] if isinstance(picked, slice) else [self.files[i] for i in picked.tolist()]
        pixels = [read_pixels(file, self.img_size, self.crop_pct, self.interpolation) for file in files]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, batch by batch."""
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]

    def select(self, indices: Sequence[int]) -> Photographs:
        """The photographs at the given indices, in that order."""
        return replace(self, files=tuple(self.files[i] for i in indices))

    def digests(self) -> list[str]:
        """SHA-256 of each file, as hex."""
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
