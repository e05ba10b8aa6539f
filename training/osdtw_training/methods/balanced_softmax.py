"""Balanced softmax (Ren et al. 2020): cross-entropy on logits shifted by the log-prior, one plain network."""

from __future__ import annotations

from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.data import Batches, LongTailedData
from osdtw_training.engine import fit
from osdtw_training.networks import new_network
from osdtw_training.objectives import task_objectives
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone (one task) by balanced softmax over the ``[train]`` schedule."""
    partition = ClassPartition.single(len(data.counts))
    network = new_network(recipe, partition, start=not run.has_checkpoint("train"))
    (objective,) = task_objectives(partition, data.counts)
    objective = objective.to(recipe.device)

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        return objective(network.forward_task(images, 0), labels)

    batches = Batches(data.train, data.train_indices, recipe)
    fit("train", network, [network], loss, batches, recipe.train, recipe, run)
    return network
