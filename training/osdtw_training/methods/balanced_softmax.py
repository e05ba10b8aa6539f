"""Balanced softmax (Ren et al. 2020): cross-entropy on logits shifted by the log-prior, one plain network."""

from __future__ import annotations

from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.class_weights import counted
from osdtw_training.data import LongTailedData
from osdtw_training.methods.single import train_plain
from osdtw_training.objectives import task_objectives
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone (one task) by balanced softmax over the ``[train]`` schedule."""
    counts = counted(data.train_batches(recipe))
    (objective,) = task_objectives(ClassPartition.single(len(counts)), counts)
    return train_plain(recipe, data, run, objective.to(recipe.device).per_sample)
