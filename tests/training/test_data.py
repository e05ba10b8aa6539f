"""Long-tailed sub-samples are the field's; held-out images are never trained on."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from osdtw_models.evaluation import frequency_groups
from osdtw_models.image_set import ImageSet
from osdtw_models.sources.digits import digits
from osdtw_training import data as reading
from osdtw_training.data import load_data
from osdtw_training.subsets import halves, hold_out, long_tail, profile

# The protocol's sizes (LDAM-DRW): images in all and, for CIFAR-100, classes with many, medium and few of them.
TOTALS = {
    10: {10: 20431, 20: 17023, 50: 13996, 100: 12406, 200: 11203},
    100: {10: 19573, 20: 15907, 50: 12608, 100: 10847, 200: 9502},
}
GROUPS = {10: (69, 31, 0), 20: (53, 47, 0), 50: (41, 41, 18), 100: (35, 35, 30), 200: (30, 31, 39)}
CIFAR10 = [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]


def ldam_drw(labels, classes, factor, seed):
    """The reference's procedure (imbalance_cifar.py, "exp"), with NumPy's global generator as it uses it."""
    sizes = [int(len(labels) / classes * (1 / factor) ** (c / (classes - 1.0))) for c in range(classes)]
    np.random.seed(seed)
    chosen = []
    for c, size in zip(np.unique(labels), sizes, strict=True):
        of_class = np.where(np.array(labels) == c)[0]
        np.random.shuffle(of_class)
        chosen += list(of_class[:size])
    return chosen


def groups(counts):
    return tuple(len(classes) for classes in frequency_groups(counts).values())


@pytest.mark.parametrize("factor", [10, 20, 50, 100, 200])
@pytest.mark.parametrize("classes", [10, 100])
def test_the_profile_is_the_published_one(classes, factor):
    counts = profile(50_000 // classes, classes, factor)
    assert sum(counts) == TOTALS[classes][factor]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] == 50_000 // classes
    # Truncated by whole numbers: n is the largest with n ** (C - 1) * IF ** i <= n_max ** (C - 1).
    last = classes - 1
    for i, n in enumerate(counts):
        assert n**last * factor**i <= counts[0] ** last < (n + 1) ** last * factor**i
    if classes == 100:
        assert groups(counts) == GROUPS[factor]


def test_the_counts_that_papers_print():
    assert profile(5000, 10, 100) == CIFAR10
    assert groups(CIFAR10) == (8, 2, 0)
    counts = profile(500, 100, 100)
    assert (counts[:4], counts[-3:]) == ([500, 477, 455, 434], [5, 5, 5])
    assert min(profile(500, 100, 200)) == 2


@pytest.mark.parametrize("factor", [10, 50, 100, 200])
def test_a_set_of_the_shape_of_cifar_100_gives_the_protocols_sets(tiny, monkeypatch, factor):
    def of_each(source, split, *_, **__):  # the real images are known by a digest of all of them when they are read
        labels = torch.arange(100).repeat(500 if split == "train" else 100)
        blank = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
        return ImageSet(blank, labels, tuple(map(str, range(100))), tuple(map(str, range(len(labels)))))

    monkeypatch.setattr(reading, "read_images", of_each)
    data = load_data(tiny(data="cifar100", imbalance_factor=factor))
    assert data.group_counts == profile(500, 100, factor)
    assert sum(data.group_counts) == TOTALS[100][factor]
    assert groups(data.group_counts) == GROUPS[factor]
    assert data.test.counts() == [100] * 100
    assert not set(data.train_indices) & set(data.holdout_indices)


def test_the_profile_never_empties_a_class():
    assert profile(3, 4, 1000)[-1] == 1
    assert profile(7, 1, 100) == [7]


@pytest.mark.parametrize("factor", [10, 100])
@pytest.mark.parametrize("seed", [0, 3])
def test_the_sub_sample_is_that_of_ldam_drw(factor, seed):
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 200))
    chosen = long_tail(labels, profile(200, 10, factor), seed)
    assert chosen == ldam_drw(labels, 10, factor, seed)


@st.composite
def labelled(draw):
    """Labels of a source, and an arbitrary choice of its images."""
    labels = np.array(draw(st.lists(st.integers(0, 3), min_size=1, max_size=150)))
    chosen = draw(st.sets(st.integers(0, len(labels) - 1), min_size=1))
    return labels, sorted(chosen)


@given(labelled(), st.sampled_from(["0", "0.05", "0.1", "0.25", "0.5"]), st.integers(0, 9))
def test_held_out_and_training_images_part_each_class_rounded_down(drawn, part, seed):
    labels, chosen = drawn
    train, held = hold_out(labels, chosen, float(part), seed)
    assert sorted(train + held) == chosen
    assert (train, held) == (sorted(train), sorted(held))
    for c in set(labels[chosen].tolist()):
        assert sum(labels[held] == c) == math.floor(Fraction(part) * int(sum(labels[chosen] == c)))


def test_every_class_that_can_keeps_an_image_on_both_sides():
    labels = np.repeat(range(5), [1, 2, 3, 9, 50])
    train, held = hold_out(labels, list(range(65)), 0.1, 0, least=1)
    assert np.bincount(labels[train], minlength=5).tolist() == [1, 1, 2, 8, 45]
    assert np.bincount(labels[held], minlength=5).tolist() == [0, 1, 1, 1, 5]
    assert sorted(train + held) == list(range(65))


def test_held_out_images_depend_on_the_seed_and_not_on_the_order():
    labels = np.repeat(np.arange(4), 50)
    first, again, other = (hold_out(labels, list(range(200)), 0.1, seed)[1] for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_a_run_has_long_tailed_training_and_whole_test_images(tiny):
    data = load_data(tiny())
    source, test = digits("train"), digits("test")
    assert data.group_counts == profile(min(source.counts()), 10, 50)
    assert [a - b for a, b in zip(data.group_counts, data.counts, strict=True)] == [n // 10 for n in data.group_counts]
    assert not set(data.train_indices) & set(data.holdout_indices)
    assert data.test.names == test.names
    assert data.train.images.shape[1:] == (3, 16, 16)
    assert data.train.names == tuple(source.names[i] for i in data.train_indices)
    assert torch.equal(data.holdout.labels, source.labels[data.holdout_indices])


def test_without_an_imbalance_factor_every_image_is_used(tiny):
    data = load_data(tiny(imbalance_factor=None, holdout=0))
    assert data.train_indices == list(range(len(digits("train"))))
    assert len(data.holdout) == 0


def folder_of(root, classes):
    for name, number in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(number):
            Image.new("RGB", (20, 20), (10 * i, 0, 0)).save(root / name / f"{i}.png")


def test_a_plain_folder_has_no_test_images(tiny, tmp_path):
    folder_of(tmp_path, {"cat": 3, "dog": 2})
    data = load_data(tiny(data=str(tmp_path), imbalance_factor=None))
    assert data.test is None
    assert data.counts == [3, 2]


def test_a_class_in_only_one_of_the_two_folders_is_named(tiny, tmp_path):
    folder_of(tmp_path / "train", {"cat": 3, "dog": 2})
    folder_of(tmp_path / "test", {"cat": 1, "cow": 1})
    with pytest.raises(ValueError, match="Class 'cow' is in only one"):
        load_data(tiny(data=str(tmp_path), imbalance_factor=None))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 3))
def test_halves_are_disjoint_and_even_in_every_class(counts, seed):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])
    first, second = halves(labels, seed)
    assert sorted(first + second) == list(range(len(labels)))
    assert abs(len(first) - len(second)) <= 1
    each = [labels[half].bincount(minlength=len(counts)) for half in (first, second)]
    assert (each[0] - each[1]).abs().max() <= 1
    assert halves(labels, seed) == (first, second)


def test_validation_images_are_held_out_and_every_training_image_is_trained_on(tiny, tmp_path):
    for split, classes in {
        "train": {"cat": 5, "dog": 2},
        "val": {"cat": 2, "dog": 2},
        "test": {"cat": 1, "dog": 1},
    }.items():
        folder_of(tmp_path / split, classes)
    data = load_data(tiny(data=str(tmp_path), imbalance_factor=None, holdout=0.5))
    assert data.validation
    assert (data.counts, data.group_counts, data.holdout.counts(), len(data.test)) == ([5, 2], [5, 2], [2, 2], 2)
    assert (data.train_indices, data.holdout_indices) == (list(range(7)), list(range(4)))
    without = load_data(tiny(data=str(tmp_path), imbalance_factor=None, holdout=0))
    assert (without.counts, len(without.holdout), without.validation) == ([5, 2], 0, False)


def test_the_long_tail_of_a_list_keeps_its_own_validation_list(tiny, tmp_path):
    folder_of(tmp_path, {"cat": 4, "dog": 4})
    for split, last in {"train": 4, "val": 1}.items():
        lines = [f"{name}/{i}.png,{name}" for name in ("dog", "cat") for i in range(last)]
        (tmp_path / f"{split}.csv").write_text("\n".join(lines))
    lists = {"data": str(tmp_path / "train.csv"), "val_list": str(tmp_path / "val.csv")}
    data = load_data(tiny(**lists, imbalance_factor=4, crop="resized"))
    assert (data.counts, data.holdout.counts(), data.test) == ([4, 1], [1, 1], None)
    assert data.train.class_names == ("cat", "dog")


def test_what_the_test_list_does_not_know_is_refused(tiny, tmp_path):
    folder_of(tmp_path, {"cat": 2, "dog": 1})
    (tmp_path / "train.csv").write_text("cat/0.png,cat\ndog/0.png,dog\n")
    (tmp_path / "test.csv").write_text("cat/1.png,cow\n")
    lists = {"data": str(tmp_path / "train.csv"), "test_list": str(tmp_path / "test.csv")}
    with pytest.raises(ValueError, match=r"test\.csv, line 1 has the class 'cow'"):
        load_data(tiny(**lists, imbalance_factor=None))


@pytest.mark.parametrize("crop", ["padded", "resized"])
def test_a_data_set_that_timm_names_is_made_long_tailed_like_any_other(tiny, tmp_path, crop):
    folder_of(tmp_path / "train", {"cat": 8, "cow": 8, "dog": 8})
    folder_of(tmp_path / "test", {"cat": 1, "cow": 1, "dog": 1})
    given = {"imbalance_factor": 4, "holdout": 0.25, "crop": crop}
    named = load_data(tiny(data="torch/image_folder", data_dir=str(tmp_path), **given))
    own = load_data(tiny(data=str(tmp_path), **given))
    assert named.group_counts == [8, 4, 2]
    assert (named.train_indices, named.holdout_indices) == (own.train_indices, own.holdout_indices)
    assert (named.train.digests(), named.train.names) == (own.train.digests(), own.train.names)
    assert torch.equal(named.test.images[:], own.test.images[:])
