"""From trained tasks to ``plan.json``: measure the statistics once, search, write down what was chosen and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from osdtw_models.network import OsdtwNet
from osdtw_training import fisher, proxy
from osdtw_training.data import Batches
from osdtw_training.objectives import TaskObjective
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run

STATISTICS = "statistics"
NORMALISATION = (
    "Task weights sum to 1 and multiply each task's loss averaged over all N training images, 'none' images included."
)
NOT_CALIBRATED = (
    "The level of the terms is not calibrated yet: in deep networks the variance terms come out too large, "
    "which favours sharing. Compare with a fixed --shared-depth before relying on the choice."
)


@dataclass(frozen=True)
class Choice:
    """The plan that the later stages follow.

    Args:
        shared_depth: Number of shared blocks.
        task_weights: Weight of each task in joint training.
    """

    shared_depth: int
    task_weights: tuple[float, ...]


def choose(
    network: OsdtwNet, objectives: Sequence[TaskObjective], batches: Batches, recipe: Recipe, run: Run
) -> Choice:
    """Stage 1's end: the plan of the recipe, or statistics and search for what the recipe leaves open.

    Args:
        network: Task networks (depth 0).
        objectives: Loss of each task.
        batches: Training images.
        recipe: May fix the shared depth, the task weights, or both.
        run: Run folder; gets ``checkpoints/statistics.safetensors`` and ``plan.json``.

    Returns:
        The choice.

    Raises:
        ValueError: If the fixed depth or weights do not fit the network.
    """
    check_fixed(recipe, network.backbone.num_blocks, network.partition.num_tasks)
    if recipe.shared_depth is not None and recipe.task_weights is not None:
        choice = Choice(recipe.shared_depth, recipe.task_weights)
        run.write_json("plan.json", {"source": "recipe", **_choice_values(choice), "notes": [NORMALISATION]})
        print(f"Plan given by the recipe: {_choice_text(choice)}.")
        return choice
    if run.load_checkpoint(STATISTICS) is None:
        started = time.perf_counter()
        statistics = fisher.measure(
            network, objectives, batches, recipe.search.samples, task_damping(recipe, batches), recipe.seed
        )
        save_statistics(run, statistics, time.perf_counter() - started)
    return plan_from_statistics(run, recipe)


def plan_from_statistics(run: Run, recipe: Recipe) -> Choice:
    """Search with the statistics of a run folder and write ``plan.json``; touches no data.

    Args:
        run: Run folder that holds statistics.
        recipe: Grid, damping, and what is fixed.

    Returns:
        The choice.

    Raises:
        FileNotFoundError: If the run has no statistics yet.
        ValueError: If a fixed depth or fixed weights do not fit the statistics.
    """
    statistics, seconds = load_statistics(run)
    check_fixed(recipe, len(statistics.blocks), len(statistics.blocks[0].curvature))
    started = time.perf_counter()
    plans = {
        factor: proxy.search(
            statistics,
            recipe.search.weights,
            recipe.search.damping * factor,
            shared_depth=recipe.shared_depth,
            task_weights=recipe.task_weights,
        )
        for factor in (1.0, 0.1, 10.0)
    }
    plan = plans[1.0]
    choice = _choice(plan)
    values = {
        "source": _source(recipe),
        **_choice_values(choice),
        "level_calibrated": False,
        "weights_at_grid_edge": plan.edge,
        "notes": [NORMALISATION, NOT_CALIBRATED],
        "why": reason(plan),
        "terms_nats": _term_values(plan),
        "noise_scale": plan.terms.noise_scale,
        "grid": {"points": recipe.search.weights, "damping": recipe.search.damping},
        "damping": recipe.search.damping * statistics.damping,
        "damping_sensitivity": {str(factor): _choice_values(_choice(found)) for factor, found in plans.items()},
        "seconds": {"statistics": round(seconds, 2), "search": round(time.perf_counter() - started, 3)},
    }
    run.write_json("plan.json", values)
    print(f"Plan found by the search: {_choice_text(choice)}.\n  {values['why']}\n  {NOT_CALIBRATED}")
    return choice


def check_fixed(recipe: Recipe, num_blocks: int, num_tasks: int) -> None:
    """Refuse a fixed plan that does not fit.

    Raises:
        ValueError: If the depth is out of range or there are not as many weights as tasks.
    """
    if recipe.shared_depth is not None and not 0 <= recipe.shared_depth <= num_blocks:
        raise ValueError(
            f"shared_depth is {recipe.shared_depth}, but {recipe.model} has {num_blocks} blocks; "
            f"choose 0 (nothing shared) to {num_blocks} (only the classifiers differ)."
        )
    if recipe.task_weights is not None and len(recipe.task_weights) != num_tasks:
        raise ValueError(f"{len(recipe.task_weights)} task_weights for {num_tasks} tasks; give one weight per task.")


def task_damping(recipe: Recipe, batches: Batches) -> float:
    """Curvature that stopping early and weight decay add: 1 / sum of effective rates + decay (section 5)."""
    stage = recipe.tasks
    total = stage.epochs * batches.steps * (stage.lr + stage.final_lr) / 2 / (1 - recipe.momentum)
    return recipe.weight_decay + 1 / max(total, 1e-3)


def reason(plan: proxy.Plan) -> str:
    """Why this depth, in one sentence: what the next block would cost and save."""
    terms, depth = plan.terms, plan.shared_depth
    column = int((terms.weights - torch.tensor(plan.task_weights, dtype=torch.float64)).abs().sum(1).argmin())
    blocks = len(terms.decoder_variance) - 1
    # Entry b of both: what block b + 1 costs when shared, and what it would cost in every decoder.
    shared = (terms.encoder_variance + terms.encoder_bias)[:, column].diff()
    private = -terms.decoder_variance.diff()
    text = f"Sharing {depth} of {blocks} blocks costs {terms.proxy[depth, column]:.4g} nats by the proxy"
    if depth < blocks:
        text += f"; the next block would add {shared[depth]:.3g} and save {private[depth]:.3g} of decoder variance"
    if depth > 0:
        text += f"; the last shared one adds {shared[depth - 1]:.3g} and saves {private[depth - 1]:.3g}"
    if plan.edge:
        text += "; the least proxy lay at the edge of the weight grid, so the weights are equal instead"
    return text + "."


def table(run: Run) -> str:
    """The plan of a run folder as text: the terms of every depth at its best weights, the plan marked."""
    plan = run.read_json("plan.json")
    terms = plan["terms_nats"]
    lines = ["shared  task weights    encoder variance  encoder bias  decoder variance     proxy"]
    for depth, weights in enumerate(terms["task_weights"]):
        values = (terms[key][depth] for key in ("encoder_variance", "encoder_bias", "decoder_variance", "proxy"))
        row = "  ".join(f"{value:{width}.3e}" for value, width in zip(values, (16, 12, 16, 8), strict=True))
        chosen = " ".join(f"{weight:.3f}" for weight in plan["task_weights"])
        mark = f" <- plan, at weights {chosen}" if depth == plan["shared_depth"] else ""
        lines.append(f"{depth:6d}  {' '.join(f'{w:.3f}' for w in weights):14s}  {row}{mark}")
    return "\n".join(lines)


def save_statistics(run: Run, statistics: fisher.Statistics, seconds: float) -> None:
    """Keep statistics in the run folder as ``checkpoints/statistics.safetensors``."""
    tensors = {
        f"block{i}.{name}": getattr(block, name)
        for i, block in enumerate(statistics.blocks, 1)
        for name in ("curvature", "scores", "target", "optimum")
    }
    state = {
        "blocks": len(statistics.blocks),
        "num_images": statistics.num_images,
        "damping": statistics.damping,
        "seconds": seconds,
    }
    run.save_checkpoint(STATISTICS, tensors, state)


def load_statistics(run: Run) -> tuple[fisher.Statistics, float]:
    """Statistics of a run folder, and the seconds they took.

    Returns:
        The statistics and the seconds.

    Raises:
        FileNotFoundError: If the run has none yet.
    """
    saved = run.load_checkpoint(STATISTICS)
    if saved is None:
        raise FileNotFoundError(
            f"{run.folder} has no statistics yet; osdtw-train writes them after stage 1 unless both --shared-depth "
            "and --task-weights are given."
        )
    tensors, state = saved
    blocks = tuple(
        fisher.BlockStatistics(*(tensors[f"block{i}.{name}"] for name in ("curvature", "scores", "target", "optimum")))
        for i in range(1, state["blocks"] + 1)
    )
    return fisher.Statistics(blocks, state["num_images"], state["damping"]), state["seconds"]


def _source(recipe: Recipe) -> str:
    """What was searched, for readers of the plan."""
    if recipe.shared_depth is not None:
        return "search, depth given"
    return "search" if recipe.task_weights is None else "search, weights given"


def _choice(plan: proxy.Plan) -> Choice:
    return Choice(plan.shared_depth, plan.task_weights)


def _choice_values(choice: Choice) -> dict[str, Any]:
    return {"shared_depth": choice.shared_depth, "task_weights": list(choice.task_weights)}


def _choice_text(choice: Choice) -> str:
    weights = ", ".join(f"{w:.3f}" for w in choice.task_weights)
    return f"share {choice.shared_depth} blocks, task weights {weights}"


def _term_values(plan: proxy.Plan) -> dict[str, Any]:
    """Terms of every depth 0 .. L, each at the weights that are best for it."""
    terms = plan.terms
    best = terms.proxy.argmin(1)
    rows = torch.arange(len(best))
    return {
        "task_weights": terms.weights[best].tolist(),
        "encoder_variance": terms.encoder_variance[rows, best].tolist(),
        "encoder_bias": terms.encoder_bias[rows, best].tolist(),
        "decoder_variance": terms.decoder_variance.tolist(),
        "proxy": terms.proxy[rows, best].tolist(),
    }
