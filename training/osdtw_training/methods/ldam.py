"""LDAM with deferred re-weighting (Cao et al. 2019): larger margins for rarer classes, class weights near the end.

Features and classifier are normalised, logits are ``scale`` times cosines. Margin 0.5, scale 30, weights of beta 0.9999
over the last fifth (160 of 200 epochs) are the paper's.
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
from osdtw_training.methods.cosine import cosines, fold_scale
from osdtw_training.methods.single import train_plain
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def margins(counts: Sequence[int], largest: float) -> Tensor:
    """Margin of each class, in proportion to n^(-1/4), the rarest class's being ``largest`` (equation 13)."""
    raw = torch.tensor(counts, dtype=torch.float64) ** -0.25
    return (largest * raw / raw.max()).float()


def ldam_loss(cosines: Tensor, labels: Tensor, margin: Tensor, scale: float, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy on ``scale (cos - margin of the true class)`` (equation 12) of each image.

    Args:
        cosines: Between features and class vectors, shape (B, C).
        labels: Shape (B,).
        margin: Of each class, shape (C,).
        scale: Factor on the cosines.
        weights: Of each class, shape (C,), divided by their mean over the batch as in the reference; none = equal.

    Returns:
        Shape (B,), in nats.
    """
    own = F.one_hot(labels, cosines.shape[1]).bool()
    shifted = torch.where(own, cosines - margin[labels][:, None], cosines)
    losses = F.cross_entropy(scale * shifted, labels, reduction="none")
    return losses if weights is None else weights[labels] / weights[labels].mean() * losses


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone by LDAM-DRW; its classifier is folded into an ordinary linear layer at the end."""
    wanted = recipe.peer
    margin = margins(data.counts, wanted.margin).to(recipe.device)
    counts = counted(data.train_batches(recipe))
    late = effective_weights(counts, wanted.beta).to(recipe.device)
    deferred = round(wanted.defer * recipe.train.epochs)
    weights: list[Tensor | None] = [None]

    def before_epoch(epoch: int) -> None:
        weights[0] = late if epoch >= deferred else None

    def single(network: OsdtwNet, images: Tensor) -> Tensor:
        return cosines(network, images)[0]

    def loss(found: Tensor, labels: Tensor) -> Tensor:
        return ldam_loss(found, labels, margin, wanted.scale, weights[0])

    def judge(network: OsdtwNet, images: Tensor) -> Tensor:
        return wanted.scale * single(network, images)

    network = train_plain(recipe, data, run, loss, single, before_epoch, judge, normalise_features=True)
    fold_scale(network, wanted.scale)
    return network
