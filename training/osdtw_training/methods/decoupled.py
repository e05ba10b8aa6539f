"""Decoupled training (Kang et al. 2020): features by cross-entropy, then another classifier on frozen features.

Four classifiers: retrained on class-balanced batches (cRT), its rows rescaled by learned factors (LWS), by a power of
their length (tau-normalisation), or the nearest class mean (NCM). The power is chosen on held-out images, as there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osdtw_models.network import OsdtwNet
from osdtw_training.batches import Batches
from osdtw_training.calibration import image_weights
from osdtw_training.class_weights import class_weights, weighted_mean
from osdtw_training.data import LongTailedData
from osdtw_training.engine import fit
from osdtw_training.methods.cross_entropy import train as train_cross_entropy
from osdtw_training.methods.single import Criterion, each_cross_entropy, only_classifier, pooled
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import selection

POWERS = torch.linspace(0, 2, 21)


def train_crt(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """cRT: a new classifier, trained over ``[refit]`` on batches in which every class is as frequent."""
    network = train_cross_entropy(recipe, data, run)
    classifier = only_classifier(network)
    torch.manual_seed(recipe.seed)
    classifier.reset_parameters()

    def logits(features: Tensor) -> Tensor:
        return cast("Tensor", classifier(features))

    second_stage(recipe, data, run, network, [classifier], logits)
    return network


def train_lws(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """LWS: one learned factor per class on the classifier's logits; folded into its rows afterwards."""
    network = train_cross_entropy(recipe, data, run)
    classifier = only_classifier(network)
    scales = Scales(len(data.counts)).to(recipe.device)
    network.add_module("scales", scales)  # saved with the stage's checkpoint

    def logits(features: Tensor) -> Tensor:
        return cast("Tensor", scales(classifier(features)))

    second_stage(recipe, data, run, network, [scales], logits)
    fold_scales(network, classifier)
    return network


def fold_scales(network: OsdtwNet, classifier: nn.Linear) -> None:
    """Multiply learned scales into the classifier's rows and take them out of the network."""
    scales = network.scales
    assert isinstance(scales, Scales)
    with torch.no_grad():
        classifier.weight.mul_(scales.factors[:, None])
        classifier.bias.mul_(scales.factors)
    del network.scales


def train_tau_norm(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """tau-normalisation: rows divided by their length to the power that is best on the held-out images."""
    network = train_cross_entropy(recipe, data, run)
    classifier = only_classifier(network)
    images = data.holdout_batches(recipe)
    features, labels = _features(network, images)
    weights = image_weights(network, labels)
    right = []
    for power in POWERS:
        found = F.linear(features, tau_normalised(classifier.weight.cpu(), float(power))).argmax(1) == labels
        right.append(float((weights * found).sum()))
    best = float(POWERS[max(range(len(POWERS)), key=right.__getitem__)])
    with torch.no_grad():
        classifier.weight.copy_(tau_normalised(classifier.weight, best))
        classifier.bias.zero_()
    return network


def train_ncm(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """NCM: the class whose mean training feature is nearest, written as a linear layer."""
    network = train_cross_entropy(recipe, data, run)
    classifier = only_classifier(network)
    features, labels = _features(network, data.train_batches(recipe))
    weight, bias = nearest_mean(features, labels, len(data.counts))
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return network


def tau_normalised(rows: Tensor, power: float) -> Tensor:
    """Rows w / |w|^power (equation 7), shape (C, features)."""
    return rows.detach() / rows.detach().norm(dim=1, keepdim=True) ** power


def nearest_mean(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The linear layer whose largest logit is the nearest class mean, -|f - m|^2 / 2 up to what classes share.

    Args:
        features: Shape (N, D).
        labels: Shape (N,).
        num_classes: Number of classes C.

    Returns:
        Weight (C, D) and bias (C,).
    """
    means = torch.stack([features[labels == c].mean(0) for c in range(num_classes)])
    return means, -means.square().sum(1) / 2


class Scales(nn.Module):
    """One factor per class, from 1.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.factors = nn.Parameter(torch.ones(num_classes))

    def forward(self, logits: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        return logits * self.factors


def second_stage(
    recipe: Recipe,
    data: LongTailedData,
    run: Run,
    network: OsdtwNet,
    trained: Sequence[nn.Module],
    logits: Callable[[Tensor], Tensor],
    criterion: Criterion = each_cross_entropy,
) -> None:
    """Train on frozen features over ``[refit]``, on batches in which every class is as frequent.

    Args:
        recipe: The recipe.
        data: The images.
        run: Run folder.
        network: The network, its features trained.
        trained: What is trained: modules of the network.
        logits: From pooled features (B, D) to logits (B, C), through what is trained.
        criterion: From logits and labels (B,) to the loss of each image, (B,).
    """
    balanced = data.train_batches(replace(recipe, sampler="balanced"))
    weights = class_weights(balanced)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            features = pooled(network, images)
        return weighted_mean(criterion(logits(features).float(), labels), labels, weights)

    def judge(images: Tensor) -> Tensor:
        return logits(pooled(network, images))

    chosen = selection(recipe, "refit", data.holdout_batches(recipe), judge)
    first = recipe.train.epochs
    fit("refit", network, trained, loss, balanced, recipe.refit, recipe, run, first, selection=chosen)


@torch.no_grad()
def _features(network: OsdtwNet, batches: Batches) -> tuple[Tensor, Tensor]:
    """Pooled features of all images as they are, and their labels."""
    network.eval()
    parts = [(pooled(network, images).float().cpu(), labels.cpu()) for images, labels in batches.plain()]
    return torch.cat([features for features, _ in parts]), torch.cat([labels for _, labels in parts])
