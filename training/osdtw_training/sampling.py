"""Which images the statistics look at, what each stands for, and how far that can be trusted."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from osdtw_training.batches import Batches
from osdtw_training.distributed import share

CHUNK = 32
RESAMPLES = 200


def stratified(labels: Tensor, samples: int, seed: int) -> list[int]:
    """Indices of a sub-sample spread evenly over the classes: small classes whole, large ones capped alike.

    Args:
        labels: Class of each image, shape (N,).
        samples: Images wanted; at least one per class is taken.
        seed: Seed of the draw.

    Returns:
        Ascending indices.
    """
    stream = np.random.default_rng([seed, 2])
    of_class = [stream.permutation((labels == c).nonzero().flatten().numpy()) for c in range(int(labels.max()) + 1)]
    cap = 1
    while sum(min(len(c), cap + 1) for c in of_class) <= samples and cap < max(map(len, of_class)):
        cap += 1
    return sorted(int(i) for indices in of_class for i in indices[:cap])


def weighted_batches(batches: Batches, picked: list[int]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Batches of a sub-sample: this process's part of it.

    Args:
        batches: The training images.
        picked: Indices of the sub-sample.

    Yields:
        Normalised images (B, C, H, W), their classes (B,), and two weights of each image (B,): with the first, sums
        are means over training images as the sampler shows them, with the second over images with every class weighing
        the same.
    """
    shown = batches.shown
    taken = torch.tensor(batches.images.subset(picked).counts(), dtype=torch.float64)
    own = picked[share(len(picked))]
    chosen = Batches(batches.images.subset(own), own, batches.recipe)
    to_training = (shown / shown.sum() / taken).float().to(batches.recipe.device)
    to_target = (1 / len(shown) / taken).float().to(batches.recipe.device)
    for images, labels in chosen.plain(CHUNK):
        yield images, labels, to_training[labels], to_target[labels]


def bootstrap_error(parts: Tensor, seed: int) -> float:
    """How far a sum over images is known from the images it was taken of.

    Args:
        parts: Each image's part of K sums, shape (K, n).
        seed: Seed of the resampling.

    Returns:
        Standard error over bootstrap samples of the images, relative to the sum; the largest of K.
    """
    stream = np.random.default_rng([seed, 4])
    images = parts.shape[1]
    drawn = torch.from_numpy(stream.multinomial(images, [1 / images] * images, RESAMPLES))
    resampled = parts.double() @ drawn.double().T  # (K, RESAMPLES)
    return float((resampled.std(1) / parts.double().sum(1)).max())
