"""What a run costs in training, in passes of the plain backbone over the training images.

A pass is multiply-adds: one forward and, at twice that, one backward through everything that is trained. What is frozen
is passed forward only; halves of the images make one pass together; the statistics of the search are counted, too.
"""

from __future__ import annotations

from osdtw_models.complexity import cost
from osdtw_models.network import OsdtwNet
from osdtw_training.recipe import TWO_STAGES, Recipe

BACKWARD = 2  # multiply-adds of a backward pass, times those of the forward pass


def training_passes(recipe: Recipe, network: OsdtwNet, images: int) -> dict[str, float]:
    """Cost of every stage.

    Args:
        recipe: The recipe.
        network: The assembled network; its shared depth is the plan's.
        images: Training images N.

    Returns:
        Passes of the plain backbone by stage; their sum is the cost of the run.
    """
    whole = cost(network)["multiply_adds"]
    plain, both = whole["total"] / cost(network)["ratio"], 1 + BACKWARD
    if recipe.method != "osdtw":
        second = recipe.refit.epochs / both if recipe.method in TWO_STAGES else 0.0
        return {"train": float(recipe.train.epochs), "refit": second}
    searched = recipe.shared_depth is None or recipe.task_weights is None
    alone = float(recipe.num_tasks * recipe.tasks.epochs)
    decoders, teachers = sum(whole["tasks"]), recipe.num_tasks * plain if recipe.refit.distill else 0.0
    refit = recipe.refit.epochs * (whole["total"] + BACKWARD * decoders + teachers) / (both * plain)
    return {
        "warmup": float(recipe.warmup.epochs),
        "tasks": alone,
        "replicates": alone if searched and recipe.search.replicates else 0.0,
        "statistics": _statistics(recipe, network, images) / (both * plain) if searched else 0.0,
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
