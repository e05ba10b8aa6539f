"""From trained tasks to ``plan.json``: measure the statistics once, search, write down what was chosen and why."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from osdtw_models.network import OsdtwNet
from osdtw_training import fisher, responses, store
from osdtw_training.batches import Batches
from osdtw_training.fisher import Statistics
from osdtw_training.objectives import TaskObjective
from osdtw_training.observer import FisherKind
from osdtw_training.recipe import Recipe
from osdtw_training.responses import Responses
from osdtw_training.runs import Run
from osdtw_training.search import Plan, search
from osdtw_training.structures import Structure

NORMALISATION = (
    "Task weights sum to 1 and multiply each task's loss averaged over all N training images, 'none' images included."
)
NOT_CALIBRATED = (
    "Without replicates the level of the terms is not calibrated: in deep networks the variance terms come out too "
    "large, which favours sharing. Compare with a fixed --shared-depth before relying on the choice."
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


def given(recipe: Recipe, run: Run) -> Choice | None:
    """The plan of a recipe that leaves nothing to search; written to ``plan.json``.

    Returns:
        The choice, or None.
    """
    if recipe.shared_depth is None or recipe.task_weights is None:
        return None
    choice = Choice(recipe.shared_depth, recipe.task_weights)
    run.write_json("plan.json", {"source": "recipe", **_choice_values(choice), "notes": [NORMALISATION]})
    print(f"Plan given by the recipe: {_choice_text(choice)}.")
    return choice


def measure(
    network: OsdtwNet,
    objectives: Sequence[TaskObjective],
    batches: Batches,
    recipe: Recipe,
    run: Run,
    replicates: Sequence[OsdtwNet] = (),
) -> None:
    """Stage 1's end: measure the statistics that the recipe asks for, once, and keep them in the run folder.

    Args:
        network: Task networks (depth 0).
        objectives: Loss of each task.
        batches: Training images.
        recipe: Says which statistics, of how many images.
        run: Run folder; gets ``checkpoints/statistics.safetensors``.
        replicates: Task networks of two halves of the images, if there are any.
    """
    if store.has(run):
        return
    started = time.perf_counter()
    wanted, damping = recipe.search, task_damping(recipe, batches)
    found: Statistics | Responses
    if wanted.structure == "refit":
        found = responses.measure(network, objectives, batches, wanted.samples, damping, replicates, recipe.seed)
    else:
        kind, structure = FisherKind(wanted.labels), Structure(wanted.structure)
        found = fisher.measure(
            network, objectives, batches, wanted.samples, damping, recipe.seed, kind, structure, replicates
        )
    seconds = time.perf_counter() - started
    store.save(run, found, seconds)
    print(
        f"Statistics of {found.samples} images in {seconds:.0f} s; the traces of the target's Fisher information "
        f"are known to {found.trace_error:.0%}."
    )


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
    statistics, seconds = store.load(run)
    check_fixed(recipe, statistics.num_blocks, statistics.num_tasks)
    started = time.perf_counter()
    plan = find(statistics, recipe)
    search_seconds = time.perf_counter() - started
    others = {factor: plan if factor == 1 else find(statistics, recipe, factor) for factor in (0.1, 1.0, 10.0)}
    choice = _choice(plan)
    calibrated = isinstance(statistics, Responses) or statistics.blocks[0].replicates is not None
    values = {
        "source": _source(recipe),
        **_choice_values(choice),
        "structure": recipe.search.structure,
        "level_calibrated": calibrated,
        "weights_at_grid_edge": plan.edge,
        "notes": [NORMALISATION] if calibrated else [NORMALISATION, NOT_CALIBRATED],
        "why": plan.reason(),
        "within_one_standard_error": _near_values(plan),
        "ends": _end_values(plan),
        "terms_nats": _term_values(plan),
        "noise_scale": plan.terms.noise_scale,
        "grid": {"points": recipe.search.weights, "damping": recipe.search.damping, "debias": recipe.search.debias},
        "damping": recipe.search.damping * statistics.damping,
        "damping_sensitivity": {str(factor): _choice_values(_choice(other)) for factor, other in others.items()},
        "images": {"samples": statistics.samples, "trace_error": round(statistics.trace_error, 4)},
        "seconds": {"statistics": round(seconds, 2), "search": round(search_seconds, 3)},
    }
    run.write_json("plan.json", values)
    print(f"Plan found by the search: {_choice_text(choice)}.\n  {values['why']}")
    if not calibrated:
        print(f"  {NOT_CALIBRATED}")
    return choice


def find(statistics: Statistics | Responses, recipe: Recipe, factor: float = 1.0) -> Plan:
    """The plan by the recipe's grid, with its damping times a factor."""
    wanted = recipe.search
    depth, weights = recipe.shared_depth, recipe.task_weights
    return search(statistics, wanted.weights, wanted.damping * factor, depth, weights, wanted.debias)


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


def check_memory(recipe: Recipe, network: OsdtwNet) -> None:
    """Refuse, before anything is trained, statistics that would not fit into memory.

    Args:
        recipe: Says which statistics, of how many images.
        network: A network of the recipe that shares every block.
    """
    fixed = recipe.shared_depth is not None and recipe.task_weights is not None
    if recipe.method == "osdtw" and recipe.search.structure == "refit" and not fixed:
        parameters = recipe.num_tasks * sum(p.numel() for p in network.parameters())
        responses.check_memory(parameters, recipe.search.samples)


def task_damping(recipe: Recipe, batches: Batches) -> float:
    """Curvature that stopping early and weight decay add: 1 / sum of effective rates + decay (section 5)."""
    stage = recipe.tasks
    total = stage.epochs * batches.steps * (stage.lr + stage.final_lr) / 2 / (1 - recipe.momentum)
    return recipe.weight_decay + 1 / max(total, 1e-3)


def table(run: Run) -> str:
    """The plan of a run folder as text: the terms of every depth at its best weights, the plan marked."""
    plan = run.read_json("plan.json")
    terms = plan["terms_nats"]
    titles = ("encoder variance", "encoder bias", "decoder variance", "proxy", "+- to the plan")
    keys = ("encoder_variance", "encoder_bias", "decoder_variance", "proxy", "standard_error")
    lines = ["  ".join(["shared", "task weights  ", *titles])]
    for depth, weights in enumerate(terms["task_weights"]):
        row = "  ".join(f"{terms[key][depth]:{len(title)}.4g}" for key, title in zip(keys, titles, strict=True))
        chosen = " ".join(f"{weight:.3f}" for weight in plan["task_weights"])
        mark = f" <- plan, at weights {chosen}" if depth == plan["shared_depth"] else ""
        lines.append(f"{depth:6d}  {' '.join(f'{w:.3f}' for w in weights):14s}  {row}{mark}")
    return "\n".join(lines)


def _source(recipe: Recipe) -> str:
    """What was searched, for readers of the plan."""
    if recipe.shared_depth is not None:
        return "search, depth given"
    return "search" if recipe.task_weights is None else "search, weights given"


def _choice(plan: Plan) -> Choice:
    return Choice(plan.shared_depth, plan.task_weights)


def _choice_values(choice: Choice) -> dict[str, Any]:
    return {"shared_depth": choice.shared_depth, "task_weights": list(choice.task_weights)}


def _choice_text(choice: Choice) -> str:
    weights = ", ".join(f"{w:.3f}" for w in choice.task_weights)
    return f"share {choice.shared_depth} blocks, task weights {weights}"


def _near_values(plan: Plan) -> list[dict[str, Any]]:
    """Plans that are as good as the chosen one within one standard error: per depth the range of weights."""
    rows = []
    for depth, near in enumerate(plan.near):
        weights = plan.terms.weights[near]
        if len(weights):
            ends = {"least": weights.min(0).values.tolist(), "most": weights.max(0).values.tolist()}
            rows.append({"shared_depth": depth, "task_weights": ends})
    return rows


def _end_values(plan: Plan) -> dict[str, Any]:
    """At the plan's depth: the weights that bias alone and variance alone would choose; and each block's own."""
    terms, depth = plan.terms, plan.shared_depth
    each = (terms.encoder_variance + terms.encoder_bias).diff(dim=0)
    return {
        "bias_optimal": plan.least(terms.encoder_bias[depth]),
        "variance_optimal": plan.least(terms.encoder_variance[depth]),
        "of_each_block": [plan.least(block) for block in each],
    }


def _term_values(plan: Plan) -> dict[str, Any]:
    """Terms of every depth 0 .. L, each at the weights that are best for it, and its distance to the plan."""
    terms = plan.terms
    best = terms.proxy.argmin(1)
    rows = torch.arange(len(best))
    return {
        "task_weights": terms.weights[best].tolist(),
        "encoder_variance": terms.encoder_variance[rows, best].tolist(),
        "encoder_bias": terms.encoder_bias[rows, best].tolist(),
        "decoder_variance": terms.decoder_variance.tolist(),
        "proxy": terms.proxy[rows, best].tolist(),
        "standard_error": terms.standard_error(plan.shared_depth, plan.column)[rows, best].tolist(),
    }
