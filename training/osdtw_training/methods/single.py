"""What all single-network peers share: the plain backbone, one task, one loss over its logits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.class_weights import class_weights, weighted_mean
from osdtw_training.data import LongTailedData
from osdtw_training.distributed import gathered
from osdtw_training.engine import fit
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import selection

each_cross_entropy = partial(F.cross_entropy, reduction="none")
Criterion = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, C) and labels (B,) to the loss of each image, (B,); of all processes' images, if there are more."""


def train_plain(
    recipe: Recipe,
    data: LongTailedData,
    run: Run,
    criterion: Criterion,
    logits_of: Callable[[OsdtwNet, Tensor], Tensor] | None = None,
    before_epoch: Callable[[int], None] | None = None,
    judge: Callable[[OsdtwNet, Tensor], Tensor] | None = None,
    **arguments: Any,
) -> OsdtwNet:
    """Train the plain backbone over the ``[train]`` schedule, each image's loss times its class's weight.

    Args:
        recipe: The recipe.
        data: The images.
        run: Run folder.
        criterion: The loss.
        logits_of: From network and images to logits, if not its own.
        before_epoch: Called with the number of each epoch before it begins.
        judge: From network and images to the logits that the epoch is chosen by, if not the network's.
        **arguments: More arguments of the network.

    Returns:
        The network.
    """
    partition = ClassPartition.single(len(data.counts))
    network = new_network(recipe, partition, start=not run.has_checkpoint("train"), **arguments)
    forward = logits_of or (lambda net, images: net.forward_task(images, 0))

    batches = data.train_batches(recipe)
    weights = class_weights(batches)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits, every = gathered(forward(network, images).float()), gathered(labels)
        if every.dim() == 2:  # of mixed images; their loss is the sum of their classes', each in proportion
            return criterion(logits, every * weights).mean()
        return weighted_mean(criterion(logits, every), every, weights)

    holdout = data.holdout_batches(recipe)
    chosen = selection(recipe, "train", holdout, partial(judge, network) if judge else network)
    fit("train", network, [network], loss, batches, recipe.train, recipe, run, 0, before_epoch, chosen)
    return network


def pooled(network: OsdtwNet, images: Tensor) -> Tensor:
    """What the classifiers see of images: (B, C, H, W) -> (B, features of all tasks)."""
    return network.forward_head(network.forward_features(images), pre_logits=True)


def only_classifier(network: OsdtwNet) -> nn.Linear:
    """The classifier of a network of one task."""
    (classifier,) = network.get_classifier()
    assert isinstance(classifier, nn.Linear)
    return classifier


class Draws:
    """What a method draws for its batches: the same in every epoch of that number, wherever a run was resumed.

    Args:
        recipe: Gives the seed.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.seed = recipe.seed
        self.stream = np.random.default_rng([recipe.seed, 0, 5])

    def begin(self, epoch: int) -> None:
        """Start an epoch."""
        self.stream = np.random.default_rng([self.seed, epoch, 5])

    def beta(self, alpha: float) -> float:
        """One number of the distribution Beta(alpha, alpha)."""
        return float(self.stream.beta(alpha, alpha))

    def permutation(self, number: int) -> Tensor:
        """An order of ``number`` things."""
        return torch.from_numpy(self.stream.permutation(number))

    def some(self, among: Tensor, number: int) -> Tensor:
        """A mask of at most ``number`` of those that are True, shape (B,)."""
        places = among.nonzero().flatten().cpu()
        chosen = places[self.permutation(len(places))[:number]]
        mask = torch.zeros_like(among)
        mask[chosen.to(among.device)] = True
        return mask
