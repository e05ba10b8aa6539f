"""Photographs: fitted like timm does it, read only when they are looked at."""

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform

from osdtw_models.datasets import read_images
from osdtw_models.photographs import Photographs
from osdtw_models.pixels import fit_image


def picture(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [(50, 40), (40, 51), (33, 90), (101, 32), (24, 24), (7, 300)])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_an_image_is_fitted_to_the_pixel_as_timm_fits_it(size, crop_pct, interpolation):
    image = picture(*size)
    timms = create_transform((3, 32, 32), crop_pct=crop_pct, interpolation=interpolation, mean=(0,) * 3, std=(1,) * 3)
    expected = (timms(image) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    assert np.array_equal(fit_image(image, 32, crop_pct, interpolation), expected)


def test_an_unknown_interpolation_is_named():
    with pytest.raises(ValueError, match="interpolation is 'nearest'; choose one of bilinear, bicubic"):
        fit_image(picture(9, 9), 8, 1.0, "nearest")


@pytest.fixture
def folder(tmp_path):
    for name, number in {"cat": 3, "dog": 4}.items():
        (tmp_path / name).mkdir()
        for i in range(number):
            picture(30 + i, 40 - i).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_in_files_or_in_memory_the_images_are_the_same(folder):
    lazy, held = (read_images(str(folder), "train", 16, None, 0.9, "bicubic", lazy) for lazy in (True, False))
    assert isinstance(lazy.images, Photographs)
    assert torch.equal(lazy.images[:], held.images)
    assert torch.equal(torch.cat(list(lazy.images.split(3))), held.images)
    part = lazy.subset([5, 0])
    assert torch.equal(part.images[torch.tensor([1, 0])], held.images[[0, 5]])
    assert (part.names, part.counts()) == (held.subset([5, 0]).names, [1, 1])
    assert len(part.digests()) == len(set(part.digests())) == len(part) == 2


def test_a_broken_photograph_is_named_before_any_is_used(folder):
    (folder / "cat" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"cat.0\.png \(not an image\); mend or remove them"):
        read_images(str(folder), "train", 16, lazy=True)
