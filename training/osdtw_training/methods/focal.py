"""Focal loss (Lin et al. 2017): easy images count less. gamma = 2 is the paper's."""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.data import LongTailedData
from osdtw_training.methods.single import train_plain
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def focal_loss(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """-(1 - p_y)^gamma log p_y of each image (equation 4, softmax instead of sigmoid).

    Args:
        logits: Shape (B, C).
        labels: Shape (B,).
        gamma: 0 gives cross-entropy.

    Returns:
        Shape (B,), in nats.
    """
    losses = F.cross_entropy(logits, labels, reduction="none")
    missing = (1 - torch.exp(-losses)).clamp(min=1e-12)  # a power below 1 has no slope at 0
    return missing**gamma * losses


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone by focal loss."""
    return train_plain(recipe, data, run, partial(focal_loss, gamma=recipe.peer.gamma))
