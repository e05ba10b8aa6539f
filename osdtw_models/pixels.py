"""Image file -> pixels, safely: allowed formats only, no oversized images, errors that name the file. No torch."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
MAX_PIXELS = 80_000_000  # below Pillow's own warning
MAX_SIDE = 8192  # of the squares that networks take
LEAST_CROP = 0.1  # part of a scaled image that a network looks at: a small one means a large image
MAX_RATIO = 200  # of a photograph's sides: scaled by its short side, a strip would become a bomb

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


class BrokenImageError(ValueError):
    """An image file that cannot be used.

    Args:
        file: The file.
        reason: What is wrong with it.
    """

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"Cannot read the image {file} ({reason}); mend it or remove it.")
        self.reason = reason


def open_image(file: Path) -> Image.Image:
    """Decode one image.

    Args:
        file: The image file.

    Returns:
        The image, RGB.

    Raises:
        BrokenImageError: If the file is not a readable image of an allowed format and size.
    """
    if not file.is_file():  # a pipe would be waited for, a device never ends
        raise BrokenImageError(file, "there is no such file")
    try:
        return _decode(file)
    except Exception as error:  # decoders raise many kinds (EOFError, struct.error, ...); the verdict is the same
        raise BrokenImageError(file, _reason_of_file(file, error)) from error


def decode_image(content: bytes, name: str) -> Image.Image:
    """The same as `open_image` of a file's content, where it lies in no file of its own.

    Args:
        content: What the file would hold.
        name: What the image is called.

    Returns:
        The image, RGB.

    Raises:
        ValueError: If it is not a readable image of an allowed format and size.
    """
    try:
        return _decode(io.BytesIO(content))
    except Exception as error:  # see above
        raise ValueError(f"Cannot read the image {name} ({_reason(error)}); mend it or leave it out.") from error


def _decode(source: Path | BinaryIO) -> Image.Image:
    """Decode, but refuse before that what would take too much memory or lose part of itself."""
    with Image.open(source, formats=IMAGE_FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are too many")
        if max(image.size) > MAX_RATIO * min(image.size):
            raise ValueError(f"{image.width} x {image.height} pixels are a strip, not a picture")
        if image.mode.startswith(("I", "F")):
            raise ValueError("more than 8 bits a channel, which would be cut off; convert it to 8 bits")
        return image.convert("RGB")


def fit_image(image: Image.Image, img_size: int, crop_pct: float = 1.0, interpolation: str = "bilinear") -> Pixels:
    """Scale an image and take its centre square, to the pixel what timm's evaluation transform does.

    Args:
        image: The image, RGB.
        img_size: Side of the result in pixels.
        crop_pct: The short side is scaled to ``img_size / crop_pct``.
        interpolation: "bilinear" or "bicubic".

    Returns:
        Shape (img_size, img_size, 3), uint8.

    Raises:
        ValueError: If the interpolation is another one.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"interpolation is {interpolation!r}; choose one of {', '.join(INTERPOLATIONS)}.")
    short = math.floor(img_size / crop_pct)
    least = min(image.size)
    width, height = (short if side == least else int(short * side / least) for side in image.size)
    image = image.resize((width, height), INTERPOLATIONS[interpolation])
    left, top = round((width - img_size) / 2), round((height - img_size) / 2)
    return np.array(image.crop((left, top, left + img_size, top + img_size)))


def _reason_of_file(file: Path, error: Exception) -> str:
    if not file.stat().st_size:
        return "it is empty"
    return _reason(error)


def _reason(error: Exception) -> str:
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error) or type(error).__name__
