"""SADE's experts (Zhang et al. 2022, arXiv:2107.09249): the same network, each expert for another class prior.

One learns the training prior (cross-entropy), one the uniform (balanced softmax), one the inverse (inverse softmax).
Their mean is taken as it is: the paper's second part, which weighs them on the test images, is left out. Factor 2 on
the inverse prior is that of the authors' CIFAR-100 configurations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.class_weights import class_weights, counted, weighted_mean
from osdtw_training.data import LongTailedData
from osdtw_training.methods.experts import train_experts
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def shifts(counts: Sequence[float], factor: float) -> Tensor:
    """What is added to the logits of each expert: 0, log pi, and log pi - factor log pi_inverse.

    Args:
        counts: Images per class, length C.
        factor: Of the inverse prior, which gives the rarest class the frequency of the most frequent one, and so on.

    Returns:
        Shape (3, C).
    """
    number = torch.tensor(counts, dtype=torch.float64)
    prior = number / number.sum()
    order = torch.argsort(prior, stable=True)
    inverse = torch.empty_like(prior)
    inverse[order] = prior[order].flip(0)
    return torch.stack([torch.zeros_like(prior), prior.log(), prior.log() - factor * inverse.log()]).float()


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the three experts by the sum of their losses."""
    batches = data.train_batches(recipe)
    added, weights = shifts(counted(batches), recipe.peer.inverse).to(recipe.device), class_weights(batches)

    def loss(found: list[Tensor], labels: Tensor) -> Tensor:
        logits = [recipe.peer.scale * each + shift for each, shift in zip(found, added, strict=True)]
        losses = torch.stack([F.cross_entropy(each, labels, reduction="none") for each in logits]).sum(0)
        return weighted_mean(losses, labels, weights)

    return train_experts(recipe, data, run, loss)
