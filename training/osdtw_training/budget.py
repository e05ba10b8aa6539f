"""What a run costs in training, in passes of the plain backbone over the training images.

A pass is multiply-adds: one forward and, at twice that, one backward through everything that is trained. What is frozen
is passed forward only; halves of the images make one pass together; the statistics of the search are counted, too.
The plain backbone is that of the recipe's model at the model's own widths, whatever widths were trained.
"""

from __future__ import annotations

from dataclasses import replace

from osdtw_models.complexity import cost
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_fields import TWO_STAGES

BACKWARD = 2  # multiply-adds of a backward pass, times those of the forward pass


def plain_multiply_adds(recipe: Recipe, num_classes: int) -> int:
    """Multiply-adds of one image through the plain network of a recipe's model: the unit of what others cost."""
    plain = new_network(replace(recipe, widths=None), ClassPartition.single(num_classes))
    return cost(plain)["multiply_adds"]["total"]


def training_passes(recipe: Recipe, network: OsdtwNet, images: int) -> dict[str, float]:
    """Cost of every stage.

    Args:
        recipe: The recipe.
        network: The assembled network; its shared depth is the plan's.
        images: Training images N.

    Returns:
        Passes of the plain backbone by stage; their sum is the cost of the run.
    """
    whole, both = cost(network)["multiply_adds"], 1 + BACKWARD
    plain = plain_multiply_adds(recipe, network.num_classes)
    single = round(whole["total"] / cost(network)["ratio"])  # the network's own blocks once
    if recipe.method != "osdtw":
        each = (whole["total"] if network.partition.experts else single) / plain
        if recipe.method == "mfm":  # a balanced batch, of the same size at most, is passed forward in every step
            each *= (both + 1) / both
        second = recipe.refit.epochs / both if recipe.method in TWO_STAGES else 0.0
        return {"train": recipe.train.epochs * each, "refit": second * each}
    alone = recipe.num_tasks * recipe.tasks.epochs * single / plain
    decoders, teachers = sum(whole["tasks"]), recipe.num_tasks * single if recipe.refit.distill else 0.0
    refit = recipe.refit.epochs * (whole["total"] + BACKWARD * decoders + teachers) / (both * plain)
    return {
        "warmup": recipe.warmup.epochs * single / plain,
        "tasks": alone,
        "replicates": alone if recipe.searched and recipe.search.replicates else 0.0,
        "statistics": _statistics(recipe, network, images) / (both * plain) if recipe.searched else 0.0,
        "joint": recipe.joint.epochs * whole["total"] / plain,
        "refit": refit if recipe.refit.decoders == "refit" else 0.0,
    }


def _statistics(recipe: Recipe, network: OsdtwNet, images: int) -> float:
    """Multiply-adds of the statistics, for each of the N training images: few are looked at, but often."""
    wanted, tasks = recipe.search, recipe.num_tasks
    to_depth = [cost(network, depth)["multiply_adds"]["shared"] for depth in range(network.num_blocks + 1)]
    whole = to_depth[-1]
    sets = {"refit": 1, "diagonal": 3, "ekfac": 3}[wanted.structure]
    each = tasks * whole * (1 + BACKWARD * sets) * (2 if wanted.structure == "ekfac" else 1)
    if wanted.structure == "refit":  # every block moved along every direction, and all that follows it run again
        each += tasks * (2 * tasks - 1) * sum(whole - reached for reached in to_depth[:-1])
    return each * min(wanted.samples, images) / images
