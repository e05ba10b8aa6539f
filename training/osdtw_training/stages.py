"""The method, stage by stage (arXiv 2605.24969, abstract; theory.md section 7).

0. All tasks start from one common warm-up. 1. Each task is trained alone from there: its optimum and its
statistics are known. The proxy then chooses the shared depth and the task weights. 2. The shared encoder is
trained jointly with those weights. 3. Encoder and decoders are assembled: decoders refit on the frozen encoder,
batch norm recalibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import planning
from osdtw_training.batches import Batches
from osdtw_training.class_weights import class_weights, counted
from osdtw_training.data import LongTailedData
from osdtw_training.engine import fit
from osdtw_training.networks import (
    at_depth,
    average_encoder,
    new_network,
    recalibrate_batch_norm,
    split_classifier,
    tasks_of,
)
from osdtw_training.objectives import TaskObjective, distillation, scale_gradient, task_objectives
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import selection
from osdtw_training.steps import Loss
from osdtw_training.subsets import halves


@dataclass(frozen=True)
class Context:
    """What every stage needs."""

    recipe: Recipe
    run: Run
    batches: Batches
    holdout: Batches
    counts: list[float]
    partition: ClassPartition
    objectives: list[TaskObjective]
    whole: TaskObjective
    """All classes as one task: balanced softmax."""


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Run all stages; each goes on from its checkpoint if the run folder has one.

    Args:
        recipe: The recipe.
        data: The images.
        run: Run folder; gets checkpoints, statistics and ``plan.json``.

    Returns:
        The assembled network.
    """
    stage = prepare(recipe, data, run)
    start = warm_up(stage)
    tasks = train_tasks(stage, start)
    plan = planning.given(recipe, run)
    if plan is None:
        replicates = train_replicates(stage, start)
        planning.measure(tasks, stage.objectives, stage.batches, recipe, run, replicates)
        plan = planning.plan_from_statistics(run, recipe)
    joint = train_jointly(stage, tasks, plan)
    return assemble(stage, tasks, joint)


def prepare(recipe: Recipe, data: LongTailedData, run: Run) -> Context:
    """Partition the classes and set up each task's objective."""
    partition = tasks_of(recipe, data.counts)
    batches = data.train_batches(recipe)
    counts, given = counted(batches), class_weights(batches)
    objectives = task_objectives(partition, counts, recipe.none_weights, recipe.none_clip, given, recipe.open_share)
    (whole,) = task_objectives(ClassPartition.single(len(counts)), counts, given=given)
    objectives, whole = [o.to(recipe.device) for o in objectives], whole.to(recipe.device)
    return Context(recipe, run, batches, data.holdout_batches(recipe), counts, partition, objectives, whole)


def warm_up(stage: Context) -> OsdtwNet:
    """Stage 0: a network that shares every block, trained on all tasks at once or on all classes as one task."""
    recipe, start = stage.recipe, not stage.run.has_checkpoint("warmup")
    network = new_network(recipe, stage.partition, -1, _offsets(stage), start)
    if recipe.warmup.objective == "tasks" or not stage.partition.has_none:
        loss = _mean_loss(network, stage.objectives)
        fit("warmup", network, [network], loss, stage.batches, recipe.warmup, recipe, stage.run)
        return network
    single = ClassPartition.single(stage.partition.num_classes)
    plain = new_network(recipe, single, start=start)

    def loss_plain(images: Tensor, labels: Tensor) -> Tensor:
        return stage.whole(plain.forward_task(images, 0), labels)

    fit("warmup", plain, [plain], loss_plain, stage.batches, recipe.warmup, recipe, stage.run)
    split_classifier(plain, network)
    return network


def train_tasks(stage: Context, start: OsdtwNet, prefix: str = "") -> OsdtwNet:
    """Stage 1: each task alone, from the common start; decoder k of the result is the whole network of task k.

    Args:
        stage: The context.
        start: Network to start from, at any depth.
        prefix: Put before the names of the checkpoints.

    Returns:
        The task networks, as one network that shares nothing.
    """
    recipe = stage.recipe
    network = at_depth(start, recipe, 0)
    for k in network.tasks:

        def loss(images: Tensor, labels: Tensor, k: int = k) -> Tensor:
            return stage.objectives[k](network.forward_task(images, k), labels)

        name = f"{prefix}task{k}"
        first = recipe.warmup.epochs  # all tasks see the same images in the same order
        fit(name, network, [network.decoders[k]], loss, stage.batches, recipe.tasks, recipe, stage.run, first)
    return network


def train_replicates(stage: Context, start: OsdtwNet) -> list[OsdtwNet]:
    """Stage 1 twice more, on disjoint halves of the images: what the tasks' optima owe to chance (Prop 7).

    Each half is trained in batches half as large: as many steps at the same rates, so the networks travel as
    far as those of the whole set, and every source of noise, images and batches, is twice as strong.

    Args:
        stage: The context.
        start: Network that the tasks started from.

    Returns:
        Two networks like that of `train_tasks`; none if the recipe wants none.
    """
    if not stage.recipe.search.replicates:
        return []
    replicates = []
    for number, half in enumerate(halves(stage.batches.images.labels, stage.recipe.seed)):
        images, indices = stage.batches.images.subset(half), [stage.batches.indices[i] for i in half]
        recipe = replace(stage.recipe, batch_size=max(stage.batches.batch_size // 2, 2))
        part = replace(stage, batches=Batches(images, indices, recipe))
        replicates.append(train_tasks(part, start, f"half{number}_"))
    return replicates


def train_jointly(stage: Context, tasks: OsdtwNet, plan: planning.Choice) -> OsdtwNet:
    """Stage 2: the shared encoder, started from the task networks' weighted average, and all decoders."""
    recipe = stage.recipe
    fresh = recipe.joint.start == "scratch"
    start = fresh and not stage.run.has_checkpoint("joint")
    network = new_network(recipe, stage.partition, plan.shared_depth, _offsets(stage), start)
    if not fresh:
        average_encoder(network, tasks, plan.task_weights)
    loss = _weighted_loss(stage, network, plan.task_weights)
    first = recipe.warmup.epochs + recipe.tasks.epochs
    chosen = selection(recipe, "joint", stage.holdout, network)
    fit("joint", network, [network], loss, stage.batches, recipe.joint, recipe, stage.run, first, selection=chosen)
    return network


def assemble(stage: Context, tasks: OsdtwNet, joint: OsdtwNet) -> OsdtwNet:
    """Stage 3: the joint encoder with the recipe's decoders, batch norm recalibrated.

    Refit decoders start from stage 2's: the decoders of stage 1 do not fit an encoder that has moved.

    Returns:
        The assembled network; ``joint`` itself, changed.
    """
    recipe = stage.recipe
    first = recipe.warmup.epochs + recipe.tasks.epochs + recipe.joint.epochs
    if recipe.refit.decoders == "tasks":
        own = {k: v for k, v in tasks.state_dict().items() if k in joint.state_dict() and k.startswith("decoders.")}
        joint.load_state_dict(own, strict=False)
    if recipe.refit.decoders == "refit":
        loss = refit_loss(joint, tasks, stage)
        chosen = selection(recipe, "refit", stage.holdout, joint)
        parts = list(joint.decoders)
        fit("refit", joint, parts, loss, stage.batches, recipe.refit, recipe, stage.run, first, selection=chosen)
    recalibrate_batch_norm(joint, stage.batches, first + recipe.refit.epochs)
    return joint


def _mean_loss(network: OsdtwNet, objectives: Sequence[TaskObjective]) -> Loss:
    """Mean over tasks of the mean loss over the batch."""

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits = network.forward_tasks(images)
        return torch.stack([each(z, labels) for each, z in zip(objectives, logits, strict=True)]).mean()

    return loss


def _weighted_loss(stage: Context, network: OsdtwNet, weights: Sequence[float]) -> Loss:
    """Stage 2's loss: the sum of the tasks' or the fused one; the weights on what reaches the encoder, or on losses."""
    # On the encoder it is what the proxy speaks of: the shared blocks follow the weighted sum, while a decoder's
    # optimum does not depend on its weight, and so its rate of learning should not either.
    wanted = stage.recipe.joint
    factors = [weight * (len(weights) if wanted.objective == "fused" else 1) for weight in weights]

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        shared = network.forward_encoder(images)
        if wanted.weigh == "losses":
            total = torch.zeros((), device=images.device)
            for k, (weight, objective) in enumerate(zip(weights, stage.objectives, strict=True)):
                total = total + weight * objective(network.forward_decoder(shared, k), labels)
            return total
        ways = [scale_gradient(shared, factor) for factor in factors]
        return _of_all(stage, network, [network.forward_decoder(way, k).float() for k, way in enumerate(ways)], labels)

    return loss


def refit_loss(network: OsdtwNet, tasks: OsdtwNet, stage: Context) -> Loss:
    """Stage 2's loss on the frozen encoder, in part replaced by the posteriors of stage 1's networks (stage 3)."""
    share = stage.recipe.refit.distill

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        with torch.no_grad():
            shared = network.forward_encoder(images)
        logits = [network.forward_decoder(shared, k).float() for k in network.tasks]
        own = _of_all(stage, network, logits, labels)
        if not share:
            return own
        with torch.no_grad():
            teachers = [tasks.forward_task(images, k) for k in network.tasks]
        apart = torch.stack([distillation(z, teacher) for z, teacher in zip(logits, teachers, strict=True)]).sum()
        return (1 - share) * own + share * apart

    return loss


def _of_all(stage: Context, network: OsdtwNet, logits: list[Tensor], labels: Tensor) -> Tensor:
    """The loss of all decoders together: that of their fused scores, or the sum of the tasks'."""
    if stage.recipe.joint.objective == "fused":
        return stage.whole(network.fuse(logits), labels)
    return torch.stack([each(z, labels) for each, z in zip(stage.objectives, logits, strict=True)]).sum()


def _offsets(stage: Context) -> list[list[float]] | None:
    """Offsets that the network must apply at test time: only without "none" weights (Prop 8 (ii))."""
    if stage.recipe.none_weights or stage.recipe.open_none or not stage.partition.has_none:
        return None
    return [objective.offsets.tolist() for objective in stage.objectives]
