"""Batches of an image set, augmented for training or plain.

What happens to an image in an epoch depends on (seed, epoch, index of the image) alone: not on batches, workers,
processes or where a run was resumed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.image_set import ImageSet, normalise
from osdtw_training import distributed
from osdtw_training.auto_augment import auto_augment
from osdtw_training.cutmix import DRAWS, expected_part, givers, paste
from osdtw_training.photo_batches import augmented_batches
from osdtw_training.preparation import preparation
from osdtw_training.recipe import Recipe


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
            Normalised images (B, C, H, W) in channels-last memory, and labels (B,); with CutMix the part that each
            class has of an image, (B, classes). A last batch smaller than the others is left out, unless it is the
            only one.
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
        boxes = np.random.default_rng([self.recipe.seed, epoch, 3]).random((len(table), DRAWS))
        draws = torch.from_numpy(boxes[self.indices])
        for batch in batches:
            picked = torch.from_numpy(batch)
            images, labels = self._augmented(picked, rows, epoch), self.images.labels[picked]
            if self.recipe.cutmix != "none":
                whose = givers(self.images.labels, draws[picked, 1], self.recipe.cutmix == "balanced")
                others = self._augmented(whose, rows, epoch), self.images.labels[whose]
                images, labels = self._mixed((images, labels), others, draws[picked])
            yield self._normalise(images), self._there(labels)

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
        even = (counts > 0) * counts.sum() / (counts > 0).sum()
        shown = counts if self.recipe.sampler == "instance" else even
        if self.recipe.cutmix == "none":
            return shown
        pasted = self.recipe.cutmix_part * expected_part(preparation(self.recipe).img_size)
        return (1 - pasted) * shown + pasted * (even if self.recipe.cutmix == "balanced" else counts)

    def _order(self, stream: np.random.Generator) -> np.ndarray[Any, Any]:
        """Which images an epoch shows, in order."""
        number = len(self.images)
        if self.recipe.sampler == "instance":
            return stream.permutation(number)
        weights = 1 / np.array(self.images.counts())[self.images.labels.numpy()]
        return stream.choice(number, number, p=weights / weights.sum())

    def _augmented(self, places: Tensor, rows: Tensor, epoch: int) -> Tensor:
        """Images at these places, each as it looks in this epoch."""
        images = self.images.images[places]
        if self.recipe.auto_augment:
            images = auto_augment(images, [(self.recipe.seed, epoch, 4, self.indices[i]) for i in places.tolist()])
        return augment(images, rows[places], self.recipe)

    def _mixed(self, own: tuple[Tensor, Tensor], others: tuple[Tensor, Tensor], draws: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes of other images in some of the images, and what part each class has of every one."""
        mixed, part = paste(own[0], others[0], draws[:, 2:])
        chosen = draws[:, 0] < self.recipe.cutmix_part
        part = torch.where(chosen, part, 0)[:, None]
        one_hot = [F.one_hot(labels, len(self.images.class_names)).float() for labels in (own[1], others[1])]
        pixels = torch.where(chosen[:, None, None, None], mixed, own[0])
        return pixels, (1 - part) * one_hot[0] + part * one_hot[1]

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
