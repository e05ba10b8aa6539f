"""Networks on their way through the stages: made, re-cut at another depth, started from one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from timm import create_model

from osdtw_models.checkpoint import convert_checkpoint
from osdtw_models.doors import first_line
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.batch_norm import global_batch_norm
from osdtw_training.batches import Batches
from osdtw_training.preparation import preparation
from osdtw_training.recipe import Recipe


def tasks_of(recipe: Recipe, counts: Sequence[int]) -> ClassPartition:
    """The tasks that a recipe wants.

    Args:
        recipe: Number of tasks or threshold, whether "none" is open.
        counts: Training images per class, length C.

    Returns:
        The partition.

    Raises:
        ValueError: If there are fewer classes than tasks, or the threshold leaves a task empty.
    """
    partition = ClassPartition.from_counts(counts, recipe.num_tasks, recipe.head_threshold)
    return replace(partition, open_none=recipe.open_none)


def new_network(
    recipe: Recipe,
    partition: ClassPartition,
    shared_depth: int = -1,
    logit_offsets: list[list[float]] | None = None,
    start: bool = False,
    **arguments: Any,
) -> OsdtwNet:
    """A fresh network of the recipe's architecture; its initial weights depend on the recipe's seed alone.

    Args:
        recipe: The recipe.
        partition: The tasks.
        shared_depth: Shared blocks; -1 = all.
        logit_offsets: See `OsdtwNet`.
        start: Whether training starts from it: the recipe's weights of the backbone are loaded.
        **arguments: More arguments of the network, before the recipe's.

    Returns:
        The network, on the recipe's device.

    Raises:
        ValueError: If the architecture is not one of ours or has no such widths, or the device is not there.
        FileNotFoundError: If the weights of the backbone cannot be had.
    """
    wanted, weights = preparation(recipe), recipe.backbone_weights if start else "none"
    overlay = {
        "input_size": (3, wanted.img_size, wanted.img_size),
        "pool_size": None,
        "num_classes": partition.num_classes,
        "mean": wanted.mean,
        "std": wanted.std,
        "crop_pct": wanted.crop_pct,
        "interpolation": wanted.interpolation,
        **({} if weights in ("none", "timm") else {"file": weights}),
    }
    begin: dict[str, Any] = {} if weights == "none" else {"backbone_pretrained": True}
    wished = {"fusion": recipe.fusion, "widths": recipe.widths, **arguments}
    torch.manual_seed(recipe.seed)
    model = create_model(
        recipe.model,
        num_classes=partition.num_classes,
        shared_depth=shared_depth,
        task_classes=partition.to_lists(),
        open_none=partition.open_none,
        logit_offsets=logit_offsets,
        pretrained_cfg_overlay=overlay,
        **begin,
        **wished,
    )
    assert isinstance(model, OsdtwNet)
    try:
        return model.to(recipe.device).to(memory_format=torch.channels_last)
    except (RuntimeError, AssertionError) as error:  # torch's answers to a device that is missing or unknown
        raise ValueError(f"device {recipe.device!r} cannot be used ({first_line(error)}).") from error


def at_depth(network: OsdtwNet, recipe: Recipe, shared_depth: int) -> OsdtwNet:
    """The same function at a shallower cut: shared blocks copied into every decoder."""
    other = new_network(recipe, network.partition, shared_depth, network.model_args().get("logit_offsets"))
    other.load_state_dict(convert_checkpoint(network.state_dict(), other))
    return other


def split_classifier(plain: OsdtwNet, network: OsdtwNet) -> None:
    """Start a network of several tasks from the plain backbone.

    Every block is copied; a task's classifier takes the rows of its own classes, and its "none" row their mean
    over the other classes, raised by the log of their number: the value at which equal logits give "none" the
    mass of all of them together. An open "none" takes all their rows.

    Args:
        plain: Trained network of one task.
        network: Network of the same backbone and classes that shares every block; overwritten.
    """
    state = {key: value for key, value in plain.state_dict().items() if key.startswith("encoder.")}
    network.load_state_dict(state, strict=False)
    (rows,) = plain.get_classifier()
    assert isinstance(rows, torch.nn.Linear)
    for classes, classifier in zip(network.partition.tasks, network.get_classifier(), strict=True):
        assert isinstance(classifier, torch.nn.Linear)
        own, other = list(classes), [c for c in range(network.num_classes) if c not in set(classes)]
        with torch.no_grad():
            weight, bias = rows.weight[other], rows.bias[other]
            if not network.partition.open_none:
                weight = weight.mean(0, keepdim=True)
                bias = (bias.mean() + torch.tensor(float(len(other))).log()).view(1)
            classifier.weight.copy_(torch.cat([rows.weight[own], weight]))
            classifier.bias.copy_(torch.cat([rows.bias[own], bias]))


def average_encoder(network: OsdtwNet, source: OsdtwNet, weights: Sequence[float]) -> None:
    """Start the shared encoder from the weighted average of the task networks; decoders stay their own.

    Args:
        network: Network at the planned depth; overwritten.
        source: Network that shares nothing (depth 0): decoder k is the whole network of task k.
        weights: Weight of each task, sum 1.
    """
    state = source.state_dict()
    result = {}
    for key in network.state_dict():
        if key.startswith("encoder."):
            name = key.removeprefix("encoder.")
            values = [state[f"decoders.{k}.{name}"] for k in source.tasks]
            if values[0].is_floating_point():
                result[key] = sum(w * value for w, value in zip(weights, values, strict=True))
            else:
                result[key] = values[0]
        else:
            result[key] = state[key]
    network.load_state_dict(result)


def recalibrate_batch_norm(network: OsdtwNet, batches: Batches, epoch: int) -> None:
    """Estimate all batch-norm statistics anew, as averages over one epoch of batches (theory.md section 9).

    The batches are augmented like those of training: a network that knows its training images by heart answers to
    the plain ones with statistics that no other image has. They are not mixed: no image is, once training is over.

    Args:
        network: The network, changed; in evaluation mode afterwards.
        batches: Training images.
        epoch: Number of the epoch whose batches to use.
    """
    unmixed = replace(batches, recipe=replace(batches.recipe, cutmix="none"))
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    network.train()
    with torch.no_grad(), global_batch_norm(network):
        for images, _ in unmixed.epoch(epoch):
            network.forward_features(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
