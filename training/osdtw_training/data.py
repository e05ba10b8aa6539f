"""The images of one run: read, made long-tailed, and split into those for training, decisions and the test."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from osdtw_models.datasets import has_split, read_images
from osdtw_models.image_set import ImageSet
from osdtw_models.soundness import BrokenImage
from osdtw_models.sources.lists import Lists
from osdtw_training.batches import Batches
from osdtw_training.preparation import preparation
from osdtw_training.recipe import Recipe
from osdtw_training.subsets import hold_out, long_tail, profile


@dataclass(frozen=True)
class LongTailedData:
    """The images of one run.

    Args:
        train: What every method trains on.
        holdout: Images kept for decisions, never trained on: part of the training set, or validation images.
        test: The whole balanced test set, or None where the data set has none.
        train_indices: Index of each training image in its source.
        holdout_indices: Index of each held-out image in its source.
        left_out: Broken images of the training, the test and the validation source, by "train", "test" and "val".
        validation: Whether the held-out images are validation images of their own, no part of the training set.
    """

    train: ImageSet
    holdout: ImageSet
    test: ImageSet | None
    train_indices: list[int]
    holdout_indices: list[int]
    left_out: dict[str, tuple[BrokenImage, ...]] = field(default_factory=dict)
    validation: bool = False

    def train_batches(self, recipe: Recipe) -> Batches:
        """The training images, drawn and augmented as a recipe says."""
        return Batches(self.train, self.train_indices, recipe)

    def holdout_batches(self, recipe: Recipe) -> Batches:
        """The held-out images."""
        return Batches(self.holdout, self.holdout_indices, recipe)

    @property
    def counts(self) -> list[int]:
        """Training images per class, held-out ones not counted."""
        return self.train.counts()

    @property
    def group_counts(self) -> list[int]:
        """Images per class of the long-tailed set, those held out of it included: decides many, medium and few."""
        if self.validation:
            return self.counts
        return [a + b for a, b in zip(self.train.counts(), self.holdout.counts(), strict=True)]


def load_data(recipe: Recipe) -> LongTailedData:
    """Read, sub-sample and split the images of a run.

    Args:
        recipe: Names the data, the imbalance factor, the held-out part and the seed.

    Returns:
        Training, held-out and test images.

    Raises:
        ValueError: If a class has no image or the data cannot be read.
    """
    wanted, lists = preparation(recipe), Lists(recipe.test_list, recipe.val_list, recipe.class_names)
    read = partial(
        read_images,
        recipe.data,
        img_size=wanted.img_size,
        data_dir=recipe.data_dir,
        crop_pct=wanted.crop_pct,
        interpolation=wanted.interpolation,
        lazy=recipe.crop == "resized",
        broken=recipe.broken,
        lists=lists,
    )
    source = read("train")
    labels = source.labels.numpy()
    chosen = list(range(len(source)))
    if recipe.imbalance_factor is not None:
        n_max = min(source.counts())
        chosen = long_tail(labels, profile(n_max, len(source.class_names), recipe.imbalance_factor), recipe.seed)
    other: dict[str, ImageSet] = {}
    for split in ("test", "val") if recipe.holds_out else ("test",):
        if has_split(recipe.data, split, recipe.data_dir, lists):
            other[split] = read(split, class_names=source.class_names)
            odd = sorted(set(other[split].class_names) ^ set(source.class_names))
            if odd:
                raise ValueError(f"Class {odd[0]!r} is in only one of train and {split}; add or remove it.")
    test, left_out = other.get("test"), {"train": source.left_out, "test": ()}
    left_out |= {split: images.left_out for split, images in other.items()}
    if "val" in other:
        train, held = sorted(chosen), list(range(len(other["val"])))
        return LongTailedData(source.subset(train), other["val"], test, train, held, left_out, validation=True)
    train, held = hold_out(labels, chosen, recipe.holdout, recipe.seed, recipe.holdout_least)
    return LongTailedData(source.subset(train), source.subset(held), test, train, held, left_out)
