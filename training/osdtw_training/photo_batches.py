"""Photographs, batch by batch: random parts of them for training, by timm's transform, read by worker processes.

What becomes of an image in an epoch depends on (seed, epoch, index of the image) alone: every draw of the transform is
made under a seed of that image's own, in whatever process.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from osdtw_models.image_set import ImageSet
from osdtw_models.lazy_images import LazyImages
from osdtw_training.preparation import preparation
from osdtw_training.recipe import Recipe


class Augmented(Dataset[tuple[Tensor, int]]):
    """Augmented, normalised images of one epoch.

    Args:
        images: The images.
        indices: Index of each image in its source.
        recipe: Augmentation, mean and std, seed.
        epoch: Number of the epoch in the whole run.
    """

    def __init__(self, images: ImageSet, indices: Sequence[int], recipe: Recipe, epoch: int) -> None:
        self.images, self.indices, self.seed = images, indices, (recipe.seed, epoch, 2)
        wanted = preparation(recipe)
        self.transform = create_transform(
            wanted.img_size,
            is_training=True,
            scale=recipe.crop_scale,
            hflip=0.5 if recipe.flip else 0.0,
            color_jitter=recipe.color_jitter,
            interpolation=wanted.interpolation,
            mean=wanted.mean,
            std=wanted.std,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        """One image (3, S, S), float32, and its class."""
        with _seeded((*self.seed, self.indices[place])):
            return self.transform(_picture(self.images, place)), int(self.images.labels[place])


def augmented_batches(
    images: ImageSet, indices: Sequence[int], recipe: Recipe, epoch: int, order: Sequence[list[int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of one epoch.

    Args:
        images: The images.
        indices: Index of each image in its source.
        recipe: Augmentation and workers.
        epoch: Number of the epoch in the whole run.
        order: Which images are in each batch.

    Yields:
        Normalised images (B, 3, S, S) in channels-last memory, and labels (B,).
    """
    dataset = Augmented(images, indices, recipe, epoch)
    own = (
        torch.Generator()
    )  # the loader draws a seed for its workers, which nobody uses: not from everybody's generator
    loader = DataLoader(
        dataset, batch_sampler=order, num_workers=recipe.workers, worker_init_fn=_one_thread, generator=own
    )
    for batch, labels in loader:
        yield batch.contiguous(memory_format=torch.channels_last), labels


def _picture(images: ImageSet, place: int) -> Image.Image:
    if isinstance(images.images, LazyImages):
        return images.images.picture(place)
    return Image.fromarray(images.images[place].permute(1, 2, 0).numpy())


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


@contextmanager
def _seeded(key: tuple[int, ...]) -> Iterator[None]:
    """Seed all generators that transforms draw from, and put them back afterwards."""
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])
