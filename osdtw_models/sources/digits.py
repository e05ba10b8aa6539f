"""scikit-learn's digits, which need no download."""

from __future__ import annotations

import numpy as np
import torch

from osdtw_models.doors import need
from osdtw_models.image_set import ImageSet

DIGITS_TEST_PER_CLASS = 60


def digits(split: str) -> ImageSet:
    """scikit-learn's 8x8 handwritten digits as RGB: 60 test images per class, the others for training."""
    need("training", "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    order = np.random.RandomState(0).permutation(len(labels))
    rank = torch.empty_like(labels)
    for c in range(10):
        of_class = order[bunch.target[order] == c]
        rank[of_class] = torch.arange(len(of_class))
    test = rank < DIGITS_TEST_PER_CLASS
    chosen = (test if split == "test" else ~test).nonzero().flatten().tolist()
    pixels = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8)
    images = pixels[:, None].expand(-1, 3, -1, -1).contiguous()
    names = tuple(f"digits[{i}]" for i in range(len(labels)))
    return ImageSet(images, labels, tuple(str(c) for c in range(10)), names).subset(chosen)
