"""Classifiers that see cosines while they are trained, and ordinary linear layers afterwards.

For networks with ``normalise_features``: LDAM's (Cao et al. 2019), and those of the experts that build on it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osdtw_models.network import OsdtwNet
from osdtw_training.methods.single import pooled


def cosines(network: OsdtwNet, images: Tensor) -> list[Tensor]:
    """Cosines between each task's features and the rows of its classifier.

    Args:
        network: A network that normalises its features.
        images: Normalised images, shape (B, C, H, W).

    Returns:
        One tensor per task, shape (B, outputs).
    """
    features = pooled(network, images).float()
    parts = features.chunk(network.partition.num_tasks, 1)
    rows = [F.normalize(classifier.weight.float()) for classifier in _classifiers(network)]
    return [F.linear(part, each) for part, each in zip(parts, rows, strict=True)]


@torch.no_grad()
def fold_scale(network: OsdtwNet, scale: float) -> None:
    """Make ``scale`` times the cosines the network's own logits."""
    for classifier in _classifiers(network):
        classifier.weight.copy_(scale * F.normalize(classifier.weight))
        classifier.bias.zero_()


def _classifiers(network: OsdtwNet) -> list[nn.Linear]:
    return [classifier for classifier in network.get_classifier() if isinstance(classifier, nn.Linear)]
