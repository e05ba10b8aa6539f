"""Class-balanced cross-entropy (Cui et al. 2019): classes weigh the inverse of their effective number of images.

beta = 0.9999 is the paper's for CIFAR-LT. The loss is the weighted mean over the batch, as in the code of LDAM-DRW and
BagofTricks-LT.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.class_weights import counted
from osdtw_training.data import LongTailedData
from osdtw_training.methods.single import train_plain
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def effective_weights(counts: Sequence[float], beta: float) -> Tensor:
    """Weight of each class, (1 - beta) / (1 - beta^n), scaled to mean 1 (equation 2).

    Args:
        counts: Images per class, length C.
        beta: 0 gives equal weights; towards 1 they become inverse frequencies.

    Returns:
        Shape (C,).
    """
    numbers = (1 - beta ** torch.tensor(counts, dtype=torch.float64)) / (1 - beta)
    weights = 1 / numbers
    return (weights * len(counts) / weights.sum()).float()


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone by weighted cross-entropy."""
    counts = counted(data.train_batches(recipe))
    weights = effective_weights(counts, recipe.peer.beta).to(recipe.device)
    return train_plain(recipe, data, run, partial(weighted_loss, weights=weights))


def weighted_loss(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Each image's loss times its class's weight, over the mean weight of the batch: shape (B,)."""
    each = weights[labels]
    return each / each.mean() * F.cross_entropy(logits, labels, reduction="none")
