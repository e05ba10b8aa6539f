"""Images that stay in their files until they are looked at."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from osdtw_models.lazy_images import LazyImages
from osdtw_models.pixels import open_image


@dataclass(frozen=True)
class Photographs(LazyImages):
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

    def picture(self, place: int) -> Image.Image:
        """One photograph, RGB."""
        return open_image(self.files[place])

    def select(self, indices: Sequence[int]) -> Photographs:
        """The photographs at the given indices, in that order."""
        return replace(self, files=tuple(self.files[i] for i in indices))

    def digests(self) -> list[str]:
        """SHA-256 of each file, as hex."""
        return [hashlib.sha256(file.read_bytes()).hexdigest() for file in self.files]
