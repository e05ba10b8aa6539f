"""AutoAugment's policy for CIFAR (Cubuk et al. 2019) on small images in memory, as torchvision has it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy

from osdtw_training.seeding import seeded


def auto_augment(images: Tensor, keys: Sequence[tuple[int, ...]]) -> Tensor:
    """One of the policy's pairs of changes for every image, drawn anew.

    Args:
        images: Pixels, shape (B, 3, S, S), uint8.
        keys: What each image's draws follow from.

    Returns:
        Pixels of the same shape and type.
    """
    changed = []
    for image, key in zip(images, keys, strict=True):
        with seeded(key):
            changed.append(_policy()(image))
    return torch.stack(changed)


@cache
def _policy() -> AutoAugment:
    return AutoAugment(AutoAugmentPolicy.CIFAR10)
