"""A second opinion on the best plans without training them: merge, refit the decoders once, look at held-out images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training import stages
from osdtw_training.data import LongTailedData
from osdtw_training.fisher import Statistics
from osdtw_training.layers import assign, block_layers
from osdtw_training.networks import average_encoder, new_network, recalibrate_batch_norm
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Refit
from osdtw_training.responses import Responses
from osdtw_training.runs import Run
from osdtw_training.search import Plan


def check_plans(
    recipe: Recipe, data: LongTailedData, run: Run, statistics: Statistics | Responses, plan: Plan, number: int
) -> list[dict[str, Any]]:
    """Held-out loss of the best plans, each depth at its best weights.

    Args:
        recipe: The run's recipe.
        data: Its images; some must be held out.
        run: Run folder with finished tasks.
        statistics: Its statistics.
        plan: The plan found by the search.
        number: How many depths to check, best first.

    Returns:
        Per plan depth, weights, proxy and the held-out loss, summed over tasks, every class weighing the same.

    Raises:
        ValueError: If no images are held out.
    """
    if not len(data.holdout):
        raise ValueError(f"The recipe of {run.folder} holds no images out; train with --holdout 0.05 to check plans.")
    stage = stages.prepare(recipe, data, run)
    tasks = stages.train_tasks(stage, stages.warm_up(stage))
    best = plan.terms.proxy.argmin(1)
    values = plan.terms.proxy[torch.arange(len(best)), best]
    rows = []
    for depth in values.argsort()[:number].tolist():
        weights = plan.terms.weights[best[depth]].tolist()
        network = merge(stage, tasks, statistics, depth, weights)
        refit_once(stage, network)
        loss = held_out_loss(stage, network, data)
        row = {"shared_depth": depth, "task_weights": weights, "proxy": float(values[depth]), "held_out_loss": loss}
        rows.append(row)
        print(f"Check: share {depth:2d} at {' '.join(f'{w:.3f}' for w in weights)}: held-out loss {loss:.4f}")
    return rows


def merge(
    stage: stages.Context,
    tasks: OsdtwNet,
    statistics: Statistics | Responses,
    depth: int,
    weights: Sequence[float],
) -> OsdtwNet:
    """The encoder where the theory expects it to settle (Prop 4), with the decoders of stage 1.

    Args:
        stage: The context.
        tasks: Task networks (depth 0).
        statistics: Diagonal ones give every parameter its Fisher-weighted mean; others the tasks' weighted mean.
        depth: Number of shared blocks.
        weights: Weight of each task.

    Returns:
        The network, batch norm not recalibrated.
    """
    network = new_network(stage.recipe, stage.partition, depth, tasks.model_args().get("logit_offsets"))
    average_encoder(network, tasks, weights)
    if isinstance(statistics, Responses) or stage.recipe.search.structure != "diagonal":
        return network
    place = [0] * (statistics.num_blocks + 1)
    for layer in block_layers(tasks):
        shape = layer.own(0).shape
        part = slice(place[layer.block], place[layer.block] + shape.numel())
        place[layer.block] = part.stop
        if layer.block > depth:
            continue
        block = statistics.blocks[layer.block - 1]
        curvature = block.curvature[:, part] + stage.recipe.search.damping * statistics.damping
        pull = torch.tensor(weights)[:, None] * curvature
        settled = (pull * block.optimum[:, part]).sum(0) / pull.sum(0)
        assign(network.encoder.get_submodule(layer.name), settled.view(shape))
    return network


def refit_once(stage: stages.Context, network: OsdtwNet) -> None:
    """One pass over the training images for the decoders, the encoder frozen; then batch norm is recalibrated."""
    recipe = replace(stage.recipe, refit=Refit(epochs=1, lr=stage.recipe.refit.lr or 0.01))
    optimizer = torch.optim.SGD(network.decoders.parameters(), recipe.refit.lr, recipe.momentum, nesterov=True)
    loss = stages.refit_loss(network, network, replace(stage, recipe=recipe))
    recalibrate_batch_norm(network, stage.batches, 0)
    network.eval()
    whole = replace(stage.batches, recipe=replace(stage.batches.recipe, accumulate=1))
    for images, labels in whole.epoch(0):
        optimizer.zero_grad()
        loss(images, labels).backward()
        optimizer.step()
    recalibrate_batch_norm(network, stage.batches, 1)


@torch.no_grad()
def held_out_loss(stage: stages.Context, network: OsdtwNet, data: LongTailedData) -> float:
    """Balanced loss on the held-out images, summed over tasks, in nats; classes without such images do not count."""
    batches = replace(stage.batches, images=data.holdout, indices=data.holdout_indices)
    counts = torch.tensor(data.holdout.counts(), dtype=torch.float64)
    weights = (1 / counts / (counts > 0).sum()).to(stage.recipe.device)
    total = torch.zeros((), dtype=torch.float64)
    for images, labels in batches.plain():
        for objective, logits in zip(stage.objectives, network.forward_tasks(images), strict=True):
            losses: Tensor = torch.nn.functional.cross_entropy(logits, objective.label_map[labels], reduction="none")
            total += (weights[labels] * losses.double()).sum().cpu()
    return float(total)
