"""Batches: what happens to an image depends on seed, epoch and index alone; crops, flips and Cutout pixel by pixel."""

import numpy as np
import pytest
import torch
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from osdtw_training.auto_augment import auto_augment
from osdtw_training.batches import Batches, augment
from osdtw_training.preparation import preparation

ALL = {"crop_pad": 2, "flip": True, "cutout": 4}


@pytest.fixture
def seen(noise, tiny):
    """Pixels that each of 40 images gets in an epoch, by image."""

    def seen(epoch=3, indices=tuple(range(40)), **changes):
        batches = Batches(noise(number=40).subset(indices), list(indices), tiny(**{**ALL, **changes}))
        return {int(y): x for images, labels in batches.epoch(epoch) for x, y in zip(images, labels, strict=True)}

    return seen


def assert_same(first, second):
    common = first.keys() & second.keys()
    assert len(common) > 5
    for image in common:
        torch.testing.assert_close(first[image], second[image], rtol=0, atol=0)


def test_an_image_looks_the_same_in_any_batch(seen):
    assert_same(seen(batch_size=7), seen(batch_size=13))


def test_an_image_looks_the_same_in_any_subset_and_order(seen):
    assert_same(seen(), seen(indices=[33, 8, 2, 39, 21, 17, 5]))


@pytest.mark.parametrize("change", [{"epoch": 4}, {"seed": 1}])
def test_another_epoch_or_seed_changes_images_and_order(seen, change):
    first, second = seen(), seen(**change)
    assert list(first) != list(second)
    assert sum(not torch.equal(first[image], second[image]) for image in first) > 20


@pytest.mark.parametrize(("batch_size", "sizes"), [(16, [16, 16]), (40, [40]), (64, [40]), (7, [7] * 5)])
def test_batches_are_full_and_no_image_comes_twice(noise, tiny, batch_size, sizes):
    batches = Batches(noise(number=40), list(range(40)), tiny(batch_size=batch_size))
    labels = [labels for _, labels in batches.epoch(0)]
    assert [len(y) for y in labels] == sizes
    assert batches.steps == len(sizes)
    assert len(set(torch.cat(labels).tolist())) == sum(sizes)


def test_plain_batches_are_all_images_in_order_normalised(noise, tiny):
    images = noise(number=40)
    recipe = tiny(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), **ALL)
    pixels, labels = zip(*Batches(images, list(range(40)), recipe).plain(batch_size=15), strict=True)
    assert torch.equal(torch.cat(labels), torch.arange(40))
    for channel in range(3):
        wanted = preparation(recipe)
        expected = (images.images[:, channel].double() / 255 - wanted.mean[channel]) / wanted.std[channel]
        torch.testing.assert_close(torch.cat(pixels)[:, channel].double(), expected, rtol=0, atol=1e-6)


def naive(image, row, recipe):
    """One image, pixel by pixel: a crop of the black-padded image, perhaps mirrored, then the grey square."""
    side, pad = image.shape[-1], recipe.crop_pad
    left, top = int(row[0] * (2 * pad + 1)) - pad, int(row[1] * (2 * pad + 1)) - pad
    out = torch.zeros_like(image)
    for y in range(side):
        for x in range(side):
            from_x = (side - 1 - x if recipe.flip and row[2] < 0.5 else x) + left
            if 0 <= y + top < side and 0 <= from_x < side:
                out[:, y, x] = image[:, y + top, from_x]
    centre_x, centre_y = int(row[3] * side), int(row[4] * side)
    for y in range(centre_y - recipe.cutout // 2, centre_y - recipe.cutout // 2 + recipe.cutout):
        for x in range(centre_x - recipe.cutout // 2, centre_x - recipe.cutout // 2 + recipe.cutout):
            if 0 <= y < side and 0 <= x < side:
                out[:, y, x] = torch.tensor([round(255 * m) for m in preparation(recipe).mean], dtype=torch.uint8)
    return out


@pytest.mark.parametrize(
    "changes",
    [
        {"crop_pad": 0, "flip": False},
        {"crop_pad": 3, "flip": False},
        {"crop_pad": 0, "flip": True},
        {"crop_pad": 0, "flip": False, "cutout": 4},
        {"crop_pad": 0, "flip": False, "cutout": 3},
        ALL,
    ],
)
def test_augmentation_is_the_naive_one(noise, tiny, changes):
    images, recipe = noise(number=40).images, tiny(**changes)
    rows = torch.rand(40, 5, dtype=torch.float64)
    expected = torch.stack([naive(image, row, recipe) for image, row in zip(images, rows, strict=True)])
    assert torch.equal(augment(images, rows, recipe), expected)


def test_every_shift_occurs_and_half_of_the_images_are_mirrored(noise, tiny):
    images = noise(number=900)
    batches = Batches(
        images, list(range(900)), tiny(crop_pad=1, flip=True, batch_size=900, mean=(0, 0, 0), std=(1, 1, 1))
    )
    pixels, labels = next(batches.epoch(0))
    found = dict.fromkeys(((x, y, flip) for x in range(3) for y in range(3) for flip in (False, True)), 0)
    padded = torch.nn.functional.pad(images.images.float() / 255, (1, 1, 1, 1))
    for x, y, flip in found:
        crop = padded[:, :, y : y + 8, x : x + 8]
        same = (crop.flip(-1) if flip else crop)[labels] == pixels
        found[x, y, flip] = int(same.flatten(1).all(1).sum())
    assert sum(found.values()) == 900
    assert min(found.values()) > 20  # 50 expected, standard deviation 7


def test_auto_augment_changes_images_by_their_own_seed_alone(seen):
    changes = {"crop_pad": 0, "flip": False, "cutout": 0}
    plain, first = seen(**changes), seen(auto_augment=True, **changes)
    assert_same(first, seen(auto_augment=True, batch_size=7, **changes))
    assert_same(first, seen(auto_augment=True, indices=[33, 8, 2, 39, 21, 17, 5], **changes))
    assert sum(not torch.equal(plain[image], first[image]) for image in first) > 15
    other = seen(auto_augment=True, epoch=4, **changes)
    assert sum(not torch.equal(other[image], first[image]) for image in first) > 15


def test_auto_augment_is_torchvisions_policy_under_the_images_seed(noise):
    images, keys = noise(number=5).images, [(3, i) for i in range(5)]
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10)
    before = torch.get_rng_state()
    found = auto_augment(images, keys)
    assert torch.equal(torch.get_rng_state(), before)
    for image, key, changed in zip(images, keys, found, strict=True):
        torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
        assert torch.equal(policy(image), changed)
