"""Labelled images: pixels in memory or photographs in their files, with classes, names and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from osdtw_models.lazy_images import LazyImages
from osdtw_models.names import printable
from osdtw_models.photographs import Photographs
from osdtw_models.soundness import BrokenImage, Policy, sound_images


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Args:
        images: Pixels, shape (N, channels, H, W), uint8; or what gives such pixels when it is indexed.
        labels: Class of each image, shape (N,), int64.
        class_names: Names of the C classes.
        names: Where each image comes from: a path inside the folder, or the index in its source.
        left_out: Broken images of the source that are not among them.
        list_sha256: Digest of the published list that names the images, if one does.
    """

    images: Tensor | LazyImages
    labels: Tensor
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    left_out: tuple[BrokenImage, ...] = ()
    list_sha256: str | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """The images at the given indices, in that order."""
        picked = torch.as_tensor(indices, dtype=torch.int64)
        names = tuple(self.names[i] for i in indices)
        images = self.images.select(indices) if isinstance(self.images, LazyImages) else self.images[picked]
        return ImageSet(images, self.labels[picked], self.class_names, names, list_sha256=self.list_sha256)

    def counts(self) -> list[int]:
        """Images per class, length C."""
        return torch.bincount(self.labels, minlength=len(self.class_names)).tolist()

    def digests(self) -> list[str]:
        """SHA-256 of each image's pixels (channels last), or of its file, as hex."""
        if isinstance(self.images, LazyImages):
            return self.images.digests()
        pixels = self.images.permute(0, 2, 3, 1).contiguous().numpy()
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]


@dataclass(frozen=True)
class Reading:
    """How images are read from where they are kept.

    Args:
        img_size: Side of the images in pixels.
        crop_pct: See `osdtw_models.pixels.fit_image`.
        interpolation: Likewise.
        lazy: Leave them there until they are used; image files have been opened once all the same.
        broken: For image files: see `osdtw_models.soundness.sound_images`.
    """

    img_size: int
    crop_pct: float = 1.0
    interpolation: str = "bilinear"
    lazy: bool = False
    broken: Policy = "error"

    @property
    def fit(self) -> tuple[int, float, str]:
        """What becomes of an image of any size."""
        return self.img_size, self.crop_pct, self.interpolation


def photograph_set(
    root: Path,
    found: Sequence[Path],
    labels: Sequence[int],
    class_names: Sequence[str],
    reading: Reading,
    source: Path | None = None,
) -> ImageSet:
    """Image files as an image set.

    Args:
        root: Folder of all files; images are named by their path below it.
        found: The files.
        labels: Class of each.
        class_names: Names of the classes.
        reading: How they are read.
        source: The list that names the files, if one does.

    Returns:
        The images, in the order of the files.
    """
    kept, left_out = sound_images(found, [class_names[label] for label in labels], source or root, reading.broken, root)
    photographs = Photographs(tuple(found[i] for i in kept), *reading.fit)
    names = tuple(printable(str(file.relative_to(root))) for file in photographs.files)
    images = photographs if reading.lazy else photographs[:]
    return ImageSet(images, torch.tensor([labels[i] for i in kept]), tuple(class_names), names, left_out)


def check_classes(images: ImageSet, source: str) -> None:
    """Refuse training images that leave a class empty.

    Args:
        images: The images.
        source: Where they come from, for the message.

    Raises:
        ValueError: If a class has no image.
    """
    for name, count in zip(images.class_names, images.counts(), strict=True):
        if not count:
            raise ValueError(f"{source} has no training image of class {name!r}; add some or leave the class out.")


def canonical_order(images: ImageSet) -> tuple[ImageSet, list[str]]:
    """Sort images by the SHA-256 of their pixels, then by label.

    torchvision and the Hub hold the same images in different orders; after sorting, an index means the same
    image whatever the source.

    Returns:
        The sorted images, and the digest of each.
    """
    digests = images.digests()
    labels = images.labels.tolist()
    order = sorted(range(len(digests)), key=lambda i: (digests[i], labels[i]))
    return images.subset(order), [digests[i] for i in order]


def resize(images: ImageSet, img_size: int) -> ImageSet:
    """Scale square images to another side (bilinear, antialiased)."""
    assert isinstance(images.images, Tensor)
    if images.images.shape[-1] == img_size:
        return images
    scaled = torch.nn.functional.interpolate(
        images.images.float(), size=(img_size, img_size), mode="bilinear", antialias=True, align_corners=False
    )
    return ImageSet(scaled.round().clamp(0, 255).to(torch.uint8), images.labels, images.class_names, images.names)


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels -> what networks take.

    Args:
        images: Pixels, shape (B, C, H, W), uint8.
        mean: Mean per channel, of pixels scaled to 0 .. 1.
        std: Standard deviation per channel.

    Returns:
        Floats of the same shape, in channels-last memory (faster on CPUs).
    """
    centre, scale = (torch.tensor(each, device=images.device).view(1, -1, 1, 1) for each in (mean, std))
    return ((images.float() / 255 - centre) / scale).contiguous(memory_format=torch.channels_last)
