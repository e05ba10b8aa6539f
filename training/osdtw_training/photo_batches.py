"""Photographs, batch by batch: random parts of them for training, by timm's transform, read by worker processes.

What becomes of an image in an epoch depends on (seed, epoch, index of the image) alone: every draw of the transform is
made under a seed of that image's own, in whatever process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from timm.data import create_transform
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from osdtw_models.image_set import ImageSet
from osdtw_models.lazy_images import LazyImages
from osdtw_training.preparation import preparation
from osdtw_training.recipe import Recipe
from osdtw_training.seeding import seeded


class Augmented(Dataset[tuple[Tensor, int]]):
    """Augmented images of one epoch.

    Args:
        images: The images.
        indices: Index of each image in its source.
        recipe: Augmentation, seed.
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
            auto_augment="original" if recipe.auto_augment else None,
            interpolation=wanted.interpolation,
            use_prefetcher=True,  # bytes: they are normalised batch by batch, where the network is
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        """One image (3, S, S), uint8, and its class."""
        with seeded((*self.seed, self.indices[place])):
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
        Pixels (B, 3, S, S), uint8, and labels (B,).
    """
    dataset = Augmented(images, indices, recipe, epoch)
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=recipe.workers,
        worker_init_fn=_one_thread,
        pin_memory=torch.device(recipe.device).type == "cuda",
        generator=torch.Generator(),  # it draws a seed for the workers that nobody uses: not from everybody's generator
    )
    yield from loader


def _picture(images: ImageSet, place: int) -> Image.Image:
    if isinstance(images.images, LazyImages):
        return images.images.picture(place)
    return Image.fromarray(images.images[place].permute(1, 2, 0).numpy())


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
