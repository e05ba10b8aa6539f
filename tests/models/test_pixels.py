"""Image files become pixels, or one sentence that names the file."""

import numpy as np
import pytest
from PIL import Image

from osdtw_models import pixels
from osdtw_models.pixels import IMAGE_FORMATS, fit_image, open_image


def read_pixels(file, side):
    return fit_image(open_image(file), side)


SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "WEBP": ".webp", "TIFF": ".tif"}


def picture(width=20, height=16):
    """A smooth picture, so that lossy formats come close."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return Image.fromarray(np.stack([x, y, 255 - x], -1).astype(np.uint8))


@pytest.fixture
def save(tmp_path):
    def save(image, kind="PNG"):
        file = tmp_path / f"image{SUFFIXES[kind]}"
        image.save(file, kind)
        return file

    return save


def refusal(file) -> str:
    with pytest.raises(ValueError, match="Cannot read the image") as caught:
        read_pixels(file, 8)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_every_allowed_format_is_read(save, kind):
    found = read_pixels(save(picture(16, 16), kind), 16)
    assert (found.shape, found.dtype) == ((16, 16, 3), np.uint8)
    tolerance = 0 if kind in ("PNG", "BMP", "TIFF") else 40
    assert np.abs(found.astype(int) - np.asarray(picture(16, 16)).astype(int)).max() <= tolerance


@pytest.mark.parametrize(("width", "height"), [(16, 16), (24, 16), (16, 25), (17, 90)])
def test_the_centre_square_is_cut_without_scaling_the_short_side(save, width, height):
    image = picture(width, height)
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    expected = np.asarray(image)[top : top + side, left : left + side]
    assert np.array_equal(read_pixels(save(image), side), expected)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (5, 3), (3, 500), (640, 480)])
@pytest.mark.parametrize("side", [1, 8, 33])
def test_any_size_becomes_the_wanted_square(save, width, height, side):
    assert read_pixels(save(picture(width, height)), side).shape == (side, side, 3)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_colour_mode_becomes_rgb(save, mode):
    image = picture().convert(mode)
    expected = np.asarray(image.convert("RGB"))
    file = save(image, "TIFF" if mode == "CMYK" else "PNG")
    assert np.array_equal(read_pixels(file, 16), expected[:, 2:18])


def test_sixteen_bits_become_eight_or_are_refused(save):
    grey = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    found = attempt(save(Image.fromarray(grey)))
    assert isinstance(found, str) or found.mean() == pytest.approx(127.5, abs=2)


def attempt(file):
    """The pixels of a file, or the sentence with which it is refused."""
    try:
        return read_pixels(file, 8)
    except ValueError as error:
        return str(error)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what Pillow says before its error
@pytest.mark.parametrize("kind", IMAGE_FORMATS)
def test_a_file_cut_short_is_read_whole_or_refused(save, kind):
    """Some formats end in bytes that carry no pixel; wherever the cut is, no other error comes out."""
    file = save(picture(), kind)
    whole, expected = file.read_bytes(), read_pixels(file, 8)
    refused = 0
    for length in range(0, len(whole), max(1, len(whole) // 60)):
        file.write_bytes(whole[:length])
        found = attempt(file)
        if isinstance(found, str):
            assert f"Cannot read the image {file}" in found
            refused += 1
        else:
            assert np.array_equal(found, expected)
    assert refused > 20


@pytest.mark.parametrize(("content", "said"), [(b"", "it is empty"), (b"text", "not an image"), (None, "no such file")])
def test_what_is_no_image_says_why(tmp_path, content, said):
    file = tmp_path / "image.png"
    if content is not None:
        file.write_bytes(content)
    assert said in refusal(file)


def test_other_formats_are_not_opened(tmp_path):
    picture().save(tmp_path / "image.png", "PPM")
    assert "not an image" in refusal(tmp_path / "image.png")


def test_an_oversized_image_is_refused_before_it_is_decoded(save, monkeypatch):
    monkeypatch.setattr(pixels, "MAX_PIXELS", 20 * 16 - 1)
    monkeypatch.setattr(Image.Image, "convert", lambda *args: pytest.fail("decoded"))
    assert "20 x 16 pixels are too many" in refusal(save(picture()))
