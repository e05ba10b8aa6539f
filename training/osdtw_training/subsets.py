"""Which images of a source: long-tailed sub-samples, held-out parts, halves. Labels in, indices out.

The profile is the field's (Cui et al. 2019; LDAM-DRW): class i of C keeps ``int(n_max * IF ** (-i / (C - 1)))``
images, drawn by NumPy's legacy generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor


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
