"""A trained network -> ``results.json``: its figures, and what they depend on."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from osdtw_models.breakdown import breakdown
from osdtw_models.complexity import cost
from osdtw_models.evaluation import class_accuracies, evaluate_logits, predict_images
from osdtw_models.image_set import ImageSet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import distributed, mistakes
from osdtw_training.budget import plain_multiply_adds, training_passes
from osdtw_training.calibration import fit_calibration
from osdtw_training.commands import train_command
from osdtw_training.data import LongTailedData
from osdtw_training.inventory import rounded_weights
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import epoch_taken

PLAN = ("source", "shared_depth", "task_weights", "level_calibrated", "why")


def evaluate(
    recipe: Recipe,
    data: LongTailedData,
    network: OsdtwNet,
    partition: ClassPartition,
    run: Run,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """All numbers of a run, with what they depend on.

    Args:
        recipe: The recipe.
        data: The images.
        network: The trained network.
        partition: The tasks.
        run: Run folder.
        origin: See `osdtw_training.provenance`.

    Returns:
        The content of ``results.json``.
    """
    seconds = sum(row["seconds"] for row in run.metrics())
    plain = plain_multiply_adds(recipe, network.num_classes)
    results: dict[str, Any] = {
        "recipe": recipe.name,
        "command": train_command(recipe),
        "method": recipe.method,
        "model": recipe.model,
        "data": recipe.data,
        "imbalance_factor": recipe.imbalance_factor,
        "seed": recipe.seed,
        "passes": recipe.passes(),
        "training_passes": {k: round(v, 3) for k, v in training_passes(recipe, network, len(data.train)).items()},
        "inference_ratio": round(cost(network)["multiply_adds"]["total"] / plain, 4),
        "training_hours": round(seconds / 3600, 3),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "blocks": network.num_blocks,
        "image_size": list(network.pretrained_cfg["input_size"][1:]),
        **origin,
        "class_counts": data.group_counts,
        "training_counts": data.counts,
        "class_weights": rounded_weights(recipe, data),
        "test_images": len(data.test) if data.test is not None else 0,
        "broken_images_left_out": {split: len(broken) for split, broken in data.left_out.items()},
    }
    if recipe.method == "osdtw":
        plan = run.read_json("plan.json")
        results["plan"] = {key: plan[key] for key in PLAN if key in plan}  # a given plan has no reason
    results.update(epoch_taken(recipe, run))
    sets = {"test": data.test, "holdout": data.holdout}
    there = {split: images for split, images in sets.items() if images is not None and len(images)}
    for place, (split, images) in enumerate(there.items()):
        logits = _logits(network, images)
        results[split] = figures_of(logits, images, partition, data.group_counts)
        if place == 0:
            results[split]["mistakes"] = mistakes.keep(run, logits, images, results[split]["per_class"])
    return results


def calibrate(
    recipe: Recipe, data: LongTailedData, network: OsdtwNet, partition: ClassPartition
) -> dict[str, dict[str, Any]]:
    """Calibrate a network on the held-out images, if the recipe wants it and there are any.

    Returns:
        For ``results.json``: what was fitted, on how many images, and the figures before it.
    """
    if not recipe.calibrate or not len(data.holdout):
        return {}
    sets = {"test": data.test, "holdout": data.holdout}
    before = {
        split: figures_of(_logits(network, images), images, partition, data.group_counts)
        for split, images in sets.items()
        if images is not None
    }
    network.set_calibration(fit_calibration(network, data.holdout))
    for split in before.values():
        del split["per_class"]
        split["breakdown"] = {"reliability": split["breakdown"]["reliability"]}
    return {"calibration": {"tasks": network.calibration, "images": len(data.holdout), "before": before}}


def _logits(network: OsdtwNet, images: ImageSet) -> Tensor:
    own = images.subset(range(len(images))[distributed.share(len(images))])
    return distributed.gathered(predict_images(network.cpu(), own.images))


def figures_of(logits: Tensor, images: ImageSet, partition: ClassPartition, counts: list[int]) -> dict[str, Any]:
    """All figures of a set of images.

    Args:
        logits: Fused logits in class order, shape (N, C).
        images: The N images.
        partition: The tasks.
        counts: Training images per class, length C.

    Returns:
        Figures in percent (nats for ``nll``), None where there is nothing to count; JSON-ready.
    """
    labels = images.labels
    values: dict[str, Any] = {
        name: None if value != value else round(value, 4)
        for name, value in evaluate_logits(logits, labels, partition, counts)
    }
    each = class_accuracies(logits.argmax(-1), labels, len(counts)).tolist()
    values["per_class"] = [None if value != value else round(value, 2) for value in each]
    return {**values, "breakdown": breakdown(logits, labels, counts)}
