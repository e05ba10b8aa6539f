"""CutMix: pixel by pixel, whose boxes, what is shown on average, and losses that are linear in the parts."""

import pytest
import torch

from osdtw_models.partition import ClassPartition
from osdtw_training.batches import Batches
from osdtw_training.class_weights import class_weights, counted
from osdtw_training.cutmix import expected_part, givers, paste
from osdtw_training.objectives import task_objectives

PLAIN = {"img_size": 8, "crop_pad": 0, "flip": False, "mean": (0, 0, 0), "std": (1, 1, 1)}


def test_a_box_is_the_others_and_the_rest_its_own_pixel_by_pixel():
    draws = torch.rand(200, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own, others = torch.zeros(200, 2, 6, 6), torch.ones(200, 2, 6, 6)
    mixed, part = paste(own, others, draws)
    sides = set()
    for image, share, (area, x, y) in zip(mixed, part, draws.tolist(), strict=True):
        box = int(area**0.5 * 6)
        left, top = int(x * (7 - box)), int(y * (7 - box))
        expected = [[float(left <= j < left + box and top <= i < top + box) for j in range(6)] for i in range(6)]
        assert torch.equal(image, torch.tensor(expected).expand(2, 6, 6))
        assert share == pytest.approx(image.mean().item())
        sides.add(box)
    assert sides == {0, 1, 2, 3, 4, 5}


def test_the_mean_part_is_that_of_even_areas():
    draws = torch.rand(40_000, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, part = paste(torch.zeros(40_000, 1, 8, 8), torch.ones(40_000, 1, 8, 8), draws)
    assert part.double().mean().item() == pytest.approx(expected_part(8), abs=0.01)  # standard error 0.0014


def test_every_image_or_every_class_gives_as_often():
    labels = torch.tensor([0] * 8 + [2] * 2)  # class 1 has no image
    even = (torch.arange(1000) + 0.5) / 1000
    by_image = torch.bincount(givers(labels, even, balanced=False), minlength=10)
    assert by_image.tolist() == [100] * 10
    by_class = torch.bincount(givers(labels, even, balanced=True), minlength=10)
    assert (by_class[:8] - 62.5).abs().max() <= 1
    assert (by_class[8:] - 250).abs().max() <= 1
    assert givers(labels, torch.tensor([0.0, 1.0]), balanced=True).tolist() == [0, 9]


@pytest.fixture
def batches(noise, tiny):
    labels = torch.tensor([0] * 60 + [1] * 30 + [2] * 10)

    def batches(**changes):
        return Batches(noise(labels), list(range(100)), tiny(**{**PLAIN, "batch_size": 20, **changes}))

    return batches


@pytest.mark.parametrize("kind", ["instance", "balanced"])
def test_an_epoch_shows_of_each_class_what_it_says_it_shows(batches, kind):
    mixed = batches(cutmix=kind, cutmix_part=0.7)
    sums = torch.stack([labels.sum(0) for epoch in range(40) for _, labels in mixed.epoch(epoch)])
    shown = sums.double().sum(0) / 40
    assert shown.sum().item() == pytest.approx(100, abs=1e-3)
    torch.testing.assert_close(shown, mixed.shown, rtol=0, atol=2.0)
    assert counted(mixed) == pytest.approx(mixed.shown.tolist())
    if kind == "balanced":
        assert mixed.shown[2] > 14
    else:
        torch.testing.assert_close(mixed.shown, torch.tensor([60.0, 30.0, 10.0], dtype=torch.float64))


def test_a_mixed_image_is_made_of_images_of_the_classes_it_says(noise, tiny):
    images = noise(number=50)  # each its own class
    mixed = Batches(images, list(range(50)), tiny(**PLAIN, cutmix="instance", cutmix_part=0.5, batch_size=50))
    pixels, parts = next(mixed.epoch(0))
    source = images.images.float() / 255
    assert torch.allclose(parts.sum(1), torch.ones(50))
    for image, part in zip(pixels, parts, strict=True):
        own = [c for c in range(50) if part[c] > 0]
        equal = [(image == source[c]).all(0) for c in own]
        assert torch.stack(equal).any(0).all()
        for same, c in zip(equal, own, strict=True):
            assert same.float().mean() >= part[c].item() - 1e-6
    whole = (parts.max(1).values == 1).float().mean()
    assert 0.3 < whole < 0.75


def test_an_image_is_mixed_the_same_in_any_batch(batches):
    small, large = (
        {
            tuple(x.flatten().tolist()): y
            for xs, ys in batches(cutmix="balanced", batch_size=n).epoch(3)
            for x, y in zip(xs, ys, strict=True)
        }
        for n in (10, 50)
    )
    assert small.keys() == large.keys()
    assert all(torch.equal(small[x], large[x]) for x in small)


@pytest.mark.parametrize("partition", [ClassPartition.single(3), ClassPartition(((0,), (2, 1)))])
def test_the_loss_of_a_mixed_image_is_the_parts_of_its_classes(partition):
    parts = torch.rand(7, 3).softmax(1)
    for objective, size in zip(task_objectives(partition, [60, 30, 10]), partition.output_sizes, strict=True):
        logits = torch.randn(7, size)
        pure = torch.stack([objective.per_sample(logits, torch.full((7,), c)) for c in range(3)], 1)
        torch.testing.assert_close(objective.per_sample(logits, parts), (parts * pure).sum(1))


def test_weights_of_classes_act_on_their_parts(batches):
    weights = class_weights(batches(cutmix="balanced", class_weights="auto"))
    shown = batches(cutmix="balanced").shown
    torch.testing.assert_close(
        weights.double() * shown, torch.full((3,), 100 / 3, dtype=torch.float64), rtol=1e-5, atol=0
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"cutmix": "balanced", "method": "ldam_drw"}, "one of the methods osdtw, cross_entropy"),
        ({"cutmix": "instance", "crop": "resized"}, "small images in memory"),
        ({"cutmix_part": 0.0}, "cutmix_part is 0.0"),
    ],
)
def test_what_cannot_be_mixed_is_refused(tiny, changes, said):
    with pytest.raises(ValueError, match=said):
        tiny(**changes)
