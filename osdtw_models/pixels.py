"""Image file -> pixels, safely: allowed formats only, no oversized images, errors that name the file. No torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

IMAGE_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MAX_PIXELS = 80_000_000  # below Pillow's own warning

Pixels = np.ndarray[tuple[int, ...], np.dtype[np.uint8]]


def read_pixels(file: Path, img_size: int) -> Pixels:
    """Decode one image: short side scaled to ``img_size`` (bilinear), centre square, RGB.

    Args:
        file: The image file.
        img_size: Side of the result in pixels.

    Returns:
        Shape (img_size, img_size, 3), uint8.

    Raises:
        ValueError: If the file is not a readable image of an allowed format and size.
    """
    try:
        with Image.open(file, formats=IMAGE_FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise ValueError(f"{opened.width} x {opened.height} pixels are too many")
            if opened.mode.startswith(("I", "F")):
                raise ValueError("more than 8 bits a channel, which would be cut off; convert it to 8 bits")
            image = opened.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"Cannot read the image {file} ({_reason(file, error)}); mend it or remove it.") from error
    scale = img_size / min(image.size)
    size = [max(img_size, round(side * scale)) for side in image.size]
    image = image.resize((size[0], size[1]), Image.Resampling.BILINEAR)
    left, top = (size[0] - img_size) // 2, (size[1] - img_size) // 2
    return np.array(image.crop((left, top, left + img_size, top + img_size)))


def _reason(file: Path, error: Exception) -> str:
    if not file.is_file():
        return "there is no such file"
    if not file.stat().st_size:
        return "it is empty"
    return "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
