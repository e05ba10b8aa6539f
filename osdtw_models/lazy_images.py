"""Images that are decoded when they are indexed, wherever they are kept: no memory holds every data set."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from osdtw_models.pixels import Pixels, fit_image


class LazyImages(ABC):
    """Used like a tensor of pixels (N, 3, S, S): what is indexed is decoded and fitted."""

    img_size: int
    crop_pct: float
    interpolation: str

    @abstractmethod
    def __len__(self) -> int:
        """Number of images N."""

    @abstractmethod
    def picture(self, place: int) -> Image.Image:
        """One image as it is kept, RGB."""

    @abstractmethod
    def select(self, indices: Sequence[int]) -> Self:
        """The images at the given indices, in that order."""

    @abstractmethod
    def digests(self) -> list[str]:
        """SHA-256 of each image as it is kept, as hex."""

    def __getitem__(self, picked: Tensor | slice) -> Tensor:
        """Read some images: shape (B, 3, S, S), uint8."""
        places = range(len(self))[picked] if isinstance(picked, slice) else picked.tolist()
        fit = self.img_size, self.crop_pct, self.interpolation
        return torch.from_numpy(np.stack([fit_image(self.picture(i), *fit) for i in places])).permute(0, 3, 1, 2)

    def split(self, batch_size: int) -> Iterator[Tensor]:
        """All images in order, batch by batch."""
        for start in range(0, len(self), batch_size):
            yield self[start : start + batch_size]


class Gallery(Protocol):
    """Where images are kept that are in no files of their own: in memory, or in another library's tables."""

    def picture(self, index: int) -> Image.Image:
        """One image, RGB."""

    def content(self, index: int) -> bytes:
        """What its digest is taken of."""


@dataclass(frozen=True)
class HeldImages:
    """A gallery in memory.

    Args:
        pixels: Of each image, shape (H, W, 3), uint8; they may differ in size.
    """

    pixels: Sequence[Pixels]

    def picture(self, index: int) -> Image.Image:
        """One image, RGB."""
        return Image.fromarray(self.pixels[index])

    def content(self, index: int) -> bytes:
        """Its pixels."""
        return self.pixels[index].tobytes()


@dataclass(frozen=True)
class GalleryImages(LazyImages):
    """Images of a gallery.

    Args:
        gallery: Where they are kept.
        indices: Which of them.
        img_size: Side S of the images in pixels.
        crop_pct: See `osdtw_models.pixels.fit_image`.
        interpolation: Likewise.
    """

    gallery: Gallery
    indices: tuple[int, ...]
    img_size: int
    crop_pct: float = 1.0
    interpolation: str = "bilinear"

    def __len__(self) -> int:
        return len(self.indices)

    def picture(self, place: int) -> Image.Image:
        """One image, RGB."""
        return self.gallery.picture(self.indices[place])

    def select(self, indices: Sequence[int]) -> GalleryImages:
        """The images at the given indices, in that order."""
        return replace(self, indices=tuple(self.indices[i] for i in indices))

    def digests(self) -> list[str]:
        """SHA-256 of each image's pixels, or of the bytes that encode them, as hex."""
        return [hashlib.sha256(self.gallery.content(i)).hexdigest() for i in self.indices]
