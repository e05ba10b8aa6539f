"""Logit adjustment (Menon et al. 2021): the log-prior, times tau, in the loss or after training.

tau = 1 is the paper's, in both forms; in the loss it is balanced softmax (Ren et al. 2020).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.class_weights import counted
from osdtw_training.data import LongTailedData
from osdtw_training.methods.cross_entropy import train as train_cross_entropy
from osdtw_training.methods.single import only_classifier, train_plain
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def adjustment(counts: Sequence[float], tau: float) -> Tensor:
    """tau times the log-frequency of each class, shape (C,)."""
    prior = torch.tensor(counts, dtype=torch.float64)
    return (tau * (prior / prior.sum()).log()).float()


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone on logits plus tau log-prior (equation 10)."""
    shift = _shift(recipe, data)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(logits + shift, labels, reduction="none")

    return train_plain(recipe, data, run, loss)


def train_post_hoc(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train by cross-entropy, then take tau log-prior off the classifier's bias (equation 9)."""
    shift = _shift(recipe, data)
    network = train_cross_entropy(recipe, data, run, lambda net, images: net(images) - shift)
    with torch.no_grad():
        only_classifier(network).bias.sub_(shift)
    return network


def _shift(recipe: Recipe, data: LongTailedData) -> Tensor:
    counts = counted(data.train_batches(recipe))
    return adjustment(counts, recipe.peer.tau).to(recipe.device)
