"""Pictures that visitors can pick: the user's own, or drawings, for photographs of strangers need permission."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from osdtw_models.pixels import open_image
from osdtw_models.predict import image_files

MOST = 48  # pictures
LONG_SIDE = 384  # pixels; the page is for phones, too
SIZE = 128
SKY, GRASS, ASPHALT = (120, 170, 230), (170, 160, 70), (90, 90, 90)

Drawing = ImageDraw.ImageDraw


def read_samples(paths: Sequence[Path], side: int) -> list[tuple[str, Image.Image]]:
    """The user's own pictures, made smaller.

    Args:
        paths: Image files, or folders of them.
        side: Side of the network's images in pixels: none is made smaller than twice that.

    Returns:
        Names and pictures, RGB. Only pixels are taken: no place and no camera travels with them.

    Raises:
        ValueError: If there are too many of them to choose from.
    """
    files = image_files(paths)
    if len(files) > MOST:
        raise ValueError(f"{len(files)} samples are too many to choose from; give {MOST} or fewer.")
    found = []
    for file in files:
        image = open_image(file)
        image.info.clear()  # else its colour profile and comments would be saved with it
        long, short = max(image.size), min(image.size)
        scale = max(max(LONG_SIDE, 2 * side) / long, 2 * side / short)
        if scale < 1:
            width, height = (max(1, round(length * scale)) for length in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        found.append((file.stem, image))
    return found


def drawings() -> list[tuple[str, Image.Image]]:
    """Names and simple pictures of a few of CIFAR-100's classes. The network may be wrong about them."""
    chosen = (_orange, _apple, _sunflower, _sea, _plain, _road)
    return [(f"drawing of: {draw.__name__.strip('_')}", _drawn(draw)) for draw in chosen]


def _drawn(draw: Callable[[Drawing], None]) -> Image.Image:
    image = Image.new("RGB", (2 * SIZE, 2 * SIZE), "white")
    draw(ImageDraw.Draw(image))
    return image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)  # drawn at twice the size: smooth edges


def _orange(pen: Drawing) -> None:
    pen.ellipse((48, 48, 208, 208), fill=(240, 130, 20))


def _apple(pen: Drawing) -> None:
    pen.ellipse((48, 48, 208, 208), fill=(190, 30, 30))
    pen.line((128, 60, 140, 20), fill=(80, 50, 20), width=8)
    pen.ellipse((140, 20, 180, 40), fill=(60, 140, 50))


def _sunflower(pen: Drawing) -> None:
    pen.rectangle((0, 0, 256, 256), fill=(60, 120, 40))
    for petal in range(18):
        angle = petal * math.pi / 9
        x, y = 128 + 70 * math.cos(angle), 128 + 70 * math.sin(angle)
        pen.ellipse((x - 26, y - 26, x + 26, y + 26), fill=(245, 195, 20))
    pen.ellipse((78, 78, 178, 178), fill=(80, 45, 15))


def _sea(pen: Drawing) -> None:
    pen.rectangle((0, 0, 256, 256), fill=(120, 170, 220))
    pen.rectangle((0, 128, 256, 256), fill=(20, 70, 130))


def _plain(pen: Drawing) -> None:
    pen.rectangle((0, 0, 256, 256), fill=SKY)
    pen.rectangle((0, 150, 256, 256), fill=GRASS)


def _road(pen: Drawing) -> None:
    _plain(pen)
    pen.polygon([(118, 150), (138, 150), (240, 256), (16, 256)], fill=ASPHALT)
    pen.line((128, 150, 128, 256), fill=(240, 240, 240), width=4)
