"""Long-tailed training sets and the batches made of them.

The profile is the field's (Cui et al. 2019; LDAM-DRW): class i of C keeps ``int(n_max * IF ** (-i / (C - 1)))``
images, drawn by NumPy's legacy generator. What happens to an image in an epoch depends on (seed, epoch, index
of the image) alone: not on batches, workers or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.datasets import has_split, read_images
from osdtw_models.image_set import ImageSet, normalise
from osdtw_models.soundness import BrokenImage
from osdtw_models.sources.lists import Lists
from osdtw_training import distributed
from osdtw_training.photo_batches import augmented_batches
from osdtw_training.preparation import preparation
from osdtw_training.recipe import Recipe


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
    fitting = (
        wanted.img_size,
        recipe.data_dir,
        wanted.crop_pct,
        wanted.interpolation,
        recipe.crop == "resized",
        recipe.broken,
        lists,
    )
    source = read_images(recipe.data, "train", *fitting)
    labels = source.labels.numpy()
    chosen = list(range(len(source)))
    if recipe.imbalance_factor is not None:
        n_max = min(source.counts())
        chosen = long_tail(labels, profile(n_max, len(source.class_names), recipe.imbalance_factor), recipe.seed)
    other: dict[str, ImageSet] = {}
    for split in ("test", "val") if recipe.holds_out else ("test",):
        if has_split(recipe.data, split, recipe.data_dir, lists):
            other[split] = read_images(recipe.data, split, *fitting, class_names=source.class_names)
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


def profile(n_max: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Images per class of the exponential profile, class 0 largest.

    Args:
        n_max: Images of the largest class.
        num_classes: Number of classes C.
        imbalance_factor: Largest over smallest class.

    Returns:
        Counts, length C; truncated as in the reference, at least 1.
    """
    last = max(num_classes - 1, 1)
    return [max(1, int(n_max * imbalance_factor ** (-i / last))) for i in range(num_classes)]


def long_tail(labels: np.ndarray[Any, Any], counts: list[int], seed: int) -> list[int]:
    """Indices of a sub-sample with the given counts: one legacy stream, classes in label order (LDAM-DRW).

    Args:
        labels: Class of each image, shape (N,).
        counts: Images to keep per class.
        seed: Seed of the stream; the protocol's is 0.

    Returns:
        Indices grouped by class.
    """
    stream = np.random.RandomState(seed)
    chosen: list[int] = []
    for c, count in enumerate(counts):
        indices = np.where(labels == c)[0]
        stream.shuffle(indices)
        chosen.extend(indices[:count].tolist())
    return chosen


def hold_out(
    labels: np.ndarray[Any, Any], chosen: list[int], part: float, seed: int, least: int = 0
) -> tuple[list[int], list[int]]:
    """Split indices into a training and a held-out part, class by class.

    Args:
        labels: Class of each image of the source, shape (N,).
        chosen: Indices to split.
        part: Part of each class to hold out, rounded down: a class too small to spare an image keeps all.
        seed: Seed of the draw.
        least: Images to hold out at least, of every class that has more.

    Returns:
        Training indices and held-out indices, each in ascending order.
    """
    stream = np.random.default_rng([seed, 1])
    of_class: dict[int, list[int]] = {}
    for index in chosen:
        of_class.setdefault(int(labels[index]), []).append(index)
    held: set[int] = set()
    for c in sorted(of_class):
        indices = of_class[c]
        number = max(int(part * len(indices)), least if len(indices) > least else 0)
        held.update(stream.permutation(indices)[:number].tolist())
    return sorted(set(chosen) - held), sorted(held)


def halves(labels: Tensor, seed: int) -> tuple[list[int], list[int]]:
    """Two disjoint halves of an image set, class by class.

    Args:
        labels: Class of each image, shape (N,).
        seed: Seed of the draw.

    Returns:
        Ascending indices of both halves. The odd image of a class goes to the half that has fewer so far: a class
        of one image is in one half only.
    """
    stream = np.random.default_rng([seed, 3])
    parts: tuple[list[int], list[int]] = ([], [])
    for c in range(int(labels.max()) + 1):
        indices = stream.permutation((labels == c).nonzero().flatten().numpy()).tolist()
        smaller = int(len(parts[0]) > len(parts[1]))
        middle = (len(indices) + 1) // 2
        parts[smaller].extend(indices[:middle])
        parts[1 - smaller].extend(indices[middle:])
    return sorted(parts[0]), sorted(parts[1])


@dataclass(frozen=True)
class Batches:
    """Batches of an image set, augmented for training or plain.

    Args:
        images: The images.
        indices: Index of each image in its source; with seed and epoch it decides the augmentation.
        recipe: Batch size, augmentation, mean and std, seed and device.
    """

    images: ImageSet
    indices: list[int]
    recipe: Recipe

    def epoch(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Shuffled, augmented batches of one epoch: this process's part of each micro-batch.

        Args:
            epoch: Number of the epoch in the whole run; decides order and augmentation.

        Yields:
            Normalised images (B, C, H, W) in channels-last memory, and labels (B,). A last batch smaller than
            the others is left out, unless it is the only one.
        """
        order = self._order(np.random.default_rng([self.recipe.seed, epoch, 0]))
        whole = order[: self.steps * self.batch_size].reshape(self.steps, self.batch_size)
        micro = [part for batch in whole for part in np.array_split(batch, self.recipe.accumulate)]
        batches = [part[distributed.share(len(part))] for part in micro]
        if self.recipe.crop == "resized":
            for images, labels in augmented_batches(
                self.images, self.indices, self.recipe, epoch, [b.tolist() for b in batches]
            ):
                yield self._normalise(images), self._there(labels)
            return
        # One row of random numbers per source image: what an image gets depends on its index alone.
        table = np.random.default_rng([self.recipe.seed, epoch, 1]).random((max(self.indices) + 1, 5))
        rows = torch.from_numpy(table[self.indices])
        for batch in batches:
            picked = torch.from_numpy(batch)
            images = augment(self.images.images[picked], rows[picked], self.recipe)
            yield self._normalise(images), self._there(self.images.labels[picked])

    def plain(self, batch_size: int = 100) -> Iterator[tuple[Tensor, Tensor]]:
        """All images once, in order, without augmentation."""
        for start in range(0, len(self.images), batch_size):
            images = self.images.images[start : start + batch_size]
            yield self._normalise(images), self._there(self.images.labels[start : start + batch_size])

    @property
    def batch_size(self) -> int:
        """Images per batch: the recipe's, or all images if they are fewer."""
        return min(self.recipe.batch_size, len(self.images))

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.images) // self.batch_size

    @property
    def shown(self) -> Tensor:
        """Images of each class that an epoch shows on average, shape (C,), float64."""
        counts = torch.tensor(self.images.counts(), dtype=torch.float64)
        if self.recipe.sampler == "instance":
            return counts
        return (counts > 0) * counts.sum() / (counts > 0).sum()

    def _order(self, stream: np.random.Generator) -> np.ndarray[Any, Any]:
        """Which images an epoch shows, in order."""
        number = len(self.images)
        if self.recipe.sampler == "instance":
            return stream.permutation(number)
        weights = 1 / np.array(self.images.counts())[self.images.labels.numpy()]
        return stream.choice(number, number, p=weights / weights.sum())

    def _normalise(self, images: Tensor) -> Tensor:
        wanted = preparation(self.recipe)
        return normalise(self._there(images), wanted.mean, wanted.std)  # bytes travel; a GPU makes floats of them

    def _there(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.recipe.device, non_blocking=True)


def augment(images: Tensor, rows: Tensor, recipe: Recipe) -> Tensor:
    """Random crop from the padded image, horizontal flip, Cutout.

    Args:
        images: Pixels, shape (B, C, S, S), uint8.
        rows: Five uniform numbers per image, shape (B, 5): crop x and y, flip, square x and y.
        recipe: Which augmentations, and how strong.

    Returns:
        Augmented pixels, shape (B, C, S, S), uint8.
    """
    batch, _, side, _ = images.shape
    span = torch.arange(side)
    pad = recipe.crop_pad
    shift = (rows[:, :2] * (2 * pad + 1)).long()
    x = shift[:, :1] + span
    y = shift[:, 1:] + span
    if recipe.flip:
        x = torch.where(rows[:, 2:3] < 0.5, x.flip(1), x)
    padded = F.pad(images, (pad, pad, pad, pad))
    each = torch.arange(batch)[:, None, None]
    out = padded[each, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2).contiguous()
    if recipe.cutout:
        start = (rows[:, 3:] * side).long()[..., None] - recipe.cutout // 2
        near = (span >= start) & (span < start + recipe.cutout)
        square = near[:, 1, :, None] & near[:, 0, None, :]
        grey = (torch.tensor(preparation(recipe).mean) * 255).round().to(torch.uint8).view(1, 3, 1, 1)
        out = torch.where(square[:, None], grey, out)
    return out
