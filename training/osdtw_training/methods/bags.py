"""Balanced group softmax (BAGS, Li et al. 2020): a softmax for classes of like frequency, each with "others".

On frozen features of cross-entropy; per group, of the images of other groups no more than ``reject`` times its own are
kept in a batch. Groups at 10 and 100 images and 8 times are the paper's. In this package it is one more partition: all
blocks shared, a task per group, raw fusion.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.class_weights import class_weights
from osdtw_training.data import LongTailedData
from osdtw_training.distributed import gathered
from osdtw_training.engine import fit
from osdtw_training.methods.cross_entropy import train as train_cross_entropy
from osdtw_training.methods.single import Draws
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import selection

BOUNDS = (999, 99, 9)


def groups(counts: list[int]) -> ClassPartition:
    """Classes with at least 1000, 100 and 10 images, and the rest; groups without classes are left out."""
    inside = [bound for bound in BOUNDS if min(counts) <= bound < max(counts)]
    kept: list[int] = []
    for bound in inside:  # a bound that leaves a group empty parts nothing
        above = [n for n in counts if n > bound and (not kept or n <= kept[-1])]
        if above:
            kept.append(bound)
    return ClassPartition.from_bins(counts, kept) if kept else ClassPartition.single(len(counts))


def group_loss(logits: Tensor, own: Tensor, kept: Tensor, weights: Tensor) -> Tensor:
    """Mean cross-entropy of one group's softmax over the images that are kept.

    Args:
        logits: Shape (B, n_k + 1), "others" last.
        own: Label inside the group, "others" for images of other groups; shape (B,).
        kept: Which images count, shape (B,).
        weights: Weight of each image, shape (B,).

    Returns:
        A scalar, in nats, not divided by the weights; 0 if no image is kept.
    """
    losses = F.cross_entropy(logits, own, reduction="none")
    return (weights * losses * kept).sum() / kept.sum().clamp(min=1)


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Features by cross-entropy over ``[train]``, then one classifier per group over ``[refit]``."""
    plain = train_cross_entropy(recipe, data, run)
    partition, draws = groups(data.counts), Draws(recipe)
    network = new_network(recipe, partition, shared_depth=-1, fusion="raw")
    blocks = {key: value for key, value in plain.state_dict().items() if ".block" in key}
    network.load_state_dict({_shared(key): value for key, value in blocks.items()}, strict=False)
    batches = data.train_batches(recipe)
    weights = class_weights(batches)
    maps = [each.to(recipe.device) for each in partition.label_maps]

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            shared = network.forward_encoder(images)
        total, labels = torch.zeros((), device=images.device), gathered(labels)
        for k, label_map in enumerate(maps):
            logits, own = gathered(network.forward_decoder(shared, k).float()), label_map[labels]
            inside = own < len(partition.tasks[k]) if partition.has_none else torch.ones_like(own, dtype=torch.bool)
            kept = inside | draws.some(~inside, recipe.peer.reject * int(inside.sum()))
            total = total + group_loss(logits, own, kept, weights[labels])
        return total

    parts = list(network.decoders)
    chosen = selection(recipe, "refit", data.holdout_batches(recipe), network)
    fit("refit", network, parts, loss, batches, recipe.refit, recipe, run, recipe.train.epochs, draws.begin, chosen)
    return network


def _shared(key: str) -> str:
    """Name of a plain network's block in one that shares all blocks."""
    return key.replace("decoders.0.block", "encoder.block")
