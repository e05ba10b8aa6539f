"""Experts: networks that share their first stages and know every class each; their logits are averaged.

As in RIDE's code (Wang et al. 2021) there are three, the last two stages are an expert's own and, in CIFAR ResNets,
three quarters as wide (16, 24 and 48 channels instead of 16, 32 and 64), and classifiers see cosines.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from osdtw_models.cifar import Stem
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.data import LongTailedData
from osdtw_training.distributed import gathered
from osdtw_training.engine import fit
from osdtw_training.methods.cosine import cosines, fold_scale
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import selection

EXPERTS = 3


def train_experts(
    recipe: Recipe,
    data: LongTailedData,
    run: Run,
    criterion: Callable[[list[Tensor], Tensor], Tensor],
    before_epoch: Callable[[int], None] | None = None,
) -> OsdtwNet:
    """Train experts over the ``[train]`` schedule.

    Args:
        recipe: The recipe.
        data: The images.
        run: Run folder.
        criterion: From the experts' cosines, each (B, C), and labels (B,) to the loss, a scalar.
        before_epoch: Called with the number of each epoch before it begins.

    Returns:
        The network, its logits the mean of ``scale`` times the cosines.
    """
    network = new_experts(recipe, len(data.counts), start=not run.has_checkpoint("train"))

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return criterion([gathered(each) for each in cosines(network, images)], gathered(labels))

    def judge(images: Tensor) -> Tensor:
        return recipe.peer.scale * torch.stack(cosines(network, images)).mean(0)

    batches = data.train_batches(recipe)
    chosen = selection(recipe, "train", data.holdout_batches(recipe), judge)
    fit("train", network, [network], loss, batches, recipe.train, recipe, run, 0, before_epoch, chosen)
    fold_scale(network, recipe.peer.scale)
    return network


def new_experts(recipe: Recipe, num_classes: int, start: bool = False) -> OsdtwNet:
    """A fresh network of experts on the recipe's model.

    Args:
        recipe: The recipe; its ``shared_depth`` and ``widths`` come first.
        num_classes: Number of classes.
        start: See `new_network`.

    Returns:
        The network.
    """
    plain = new_network(recipe, ClassPartition.single(num_classes))
    depth = plain.level_block(-3) if recipe.shared_depth is None else recipe.shared_depth
    partition = ClassPartition.of_experts(num_classes, EXPERTS)
    widths = recipe.widths or narrower(plain)
    wished: dict[str, Any] = {"fusion": "mean", "widths": widths, "normalise_features": True}
    return new_network(recipe, partition, depth, start=start, **wished)


def narrower(plain: OsdtwNet) -> list[int] | None:
    """Three quarters of the width in all stages but the first; none for timm's models, whose widths are fixed."""
    if not isinstance(plain.encoder[0], Stem):
        return None
    first, *others = [int(info["num_chs"]) for info in plain.feature_info]
    return [first, *(3 * width // 4 for width in others)]
