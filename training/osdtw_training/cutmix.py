"""CutMix (Yun et al. 2019): a box of one image takes the place of the same box of another, labels in proportion.

Whose box it is may be anyone's, or a class's drawn first, every class alike, so that rare things are seen before the
backgrounds of frequent ones (CMO, Park et al. 2022, with its power of the inverse frequency at 1).
"""

from __future__ import annotations

import torch
from torch import Tensor

DRAWS = 5  # uniform numbers an image needs: whether, whose, how large, where (2)


def givers(labels: Tensor, draws: Tensor, balanced: bool) -> Tensor:
    """Which image gives a box to each image.

    Args:
        labels: Classes of all images, shape (N,).
        draws: Uniform numbers in 0 .. 1, shape (B,).
        balanced: Whether every class gives as often; else every image.

    Returns:
        Places among the N images, shape (B,).
    """
    weights = 1 / torch.bincount(labels).double()[labels] if balanced else torch.ones(len(labels)).double()
    reached = weights.cumsum(0)
    return torch.searchsorted(reached, draws.double() * reached[-1], right=True).clamp(max=len(labels) - 1)


def paste(images: Tensor, others: Tensor, draws: Tensor) -> tuple[Tensor, Tensor]:
    """Square boxes of other images at the same place of images.

    Args:
        images: Pixels, shape (B, C, S, S).
        others: The images that give, same shape.
        draws: Uniform numbers in 0 .. 1, shape (B, 3): area of the box, its place across, its place down.

    Returns:
        Pixels of the same shape, and the part of each that is another's, shape (B,), float32. The area is even
        between 0 and all before it is rounded to whole pixels; boxes lie inside the image.
    """
    side = images.shape[-1]
    box = (draws[:, 0].sqrt() * side).long()
    corner = (draws[:, 1:] * (side - box + 1)[:, None]).long()
    span = torch.arange(side, device=images.device)
    within = (span >= corner[..., None]) & (span < (corner + box[:, None])[..., None])  # (B, 2, S)
    mask = within[:, 1, :, None] & within[:, 0, None, :]
    return torch.where(mask[:, None], others, images), (box / side).square().float()


def expected_part(side: int) -> float:
    """Mean part of a mixed image that is another's: a box of h pixels has probability (2 h + 1) / S^2."""
    return sum((h / side) ** 2 * (2 * h + 1) / side**2 for h in range(side))
