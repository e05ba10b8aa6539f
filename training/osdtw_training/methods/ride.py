"""RIDE (Wang et al. 2021, arXiv:2010.01809): experts trained one by one, and driven apart.

Every expert has LDAM's loss of its own, re-weighted near the end, less a share of its divergence from the mean of all:
without distillation and routing. Three experts, diversity 0.2, spread 0.05 and LDAM's margin, scale and weights are
those of the authors' ``config_imbalance_cifar100_ride.json`` and ``RIDELoss``.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.class_weights import counted
from osdtw_training.data import LongTailedData
from osdtw_training.methods.class_balanced import effective_weights
from osdtw_training.methods.experts import train_experts
from osdtw_training.methods.ldam import ldam_loss, margins
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def temperatures(counts: Sequence[float], spread: float) -> Tensor:
    """Temperature of each class, 1 for the most frequent: in proportion to 1 + spread (C pi - 1).

    Args:
        counts: Images per class, length C.
        spread: 0 gives 1 for every class, 1 the relative frequency.

    Returns:
        Shape (C,).
    """
    number = torch.tensor(counts, dtype=torch.float64)
    raw = 1 - spread + spread * len(counts) * number / number.sum()
    return (raw / raw.max()).float()


def divergence(logits: Tensor, mean: Tensor, temperature: Tensor) -> Tensor:
    """KL divergence of an expert's posterior from that of the mean logits, mean over the batch.

    Args:
        logits: Of the expert, shape (B, C).
        mean: Mean logits of all experts, shape (B, C); no gradient flows into them.
        temperature: Of each class, shape (C,).

    Returns:
        A scalar in nats, times the squared mean temperature.
    """
    expert, all_ = F.log_softmax(logits / temperature, 1), F.softmax(mean.detach() / temperature, 1)
    return temperature.mean() ** 2 * F.kl_div(expert, all_, reduction="batchmean")


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the experts by the sum of their losses; weights and temperatures by class come in the last fifth."""
    wanted = recipe.peer
    margin = margins(data.counts, wanted.margin).to(recipe.device)
    counts = counted(data.train_batches(recipe))
    weights = effective_weights(counts, wanted.beta).to(recipe.device)
    late = temperatures(counts, wanted.spread).to(recipe.device)
    deferred = round(wanted.defer * recipe.train.epochs)
    now: list[tuple[Tensor | None, Tensor]] = [(None, torch.ones_like(late))]

    def before_epoch(epoch: int) -> None:
        now[0] = (weights, late) if epoch >= deferred else (None, torch.ones_like(late))

    def loss(found: list[Tensor], labels: Tensor) -> Tensor:
        by_class, temperature = now[0]
        mean = wanted.scale * torch.stack(found).mean(0)
        own = [ldam_loss(each, labels, margin, wanted.scale, by_class).mean() for each in found]
        apart = [divergence(wanted.scale * each, mean, temperature) for each in found]
        return torch.stack(own).sum() - wanted.diversity * torch.stack(apart).sum()

    return train_experts(recipe, data, run, loss, before_epoch)
