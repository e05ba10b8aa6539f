"""Is the proxy right? A real grid of shared depths and task weights, trained from the same stage-1 tasks.

    python benchmarks/proxy_grid.py train --data-dir CIFAR100 --runs FOLDER [--part 1/2]
    python benchmarks/proxy_grid.py report --data-dir CIFAR100 --runs FOLDER    -> benchmarks/studies/proxy_grid.json

``train`` does what is not done yet and can be stopped at any time; ``--part 1/2`` and ``--part 2/2`` share the
cells between two processes once stage 1 is there. Losses and accuracies are taken on the whole balanced test set:
for this study alone, and never to choose a plan.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor

from osdtw_models.evaluation import evaluate_logits
from osdtw_models.files import write_text
from osdtw_models.image_set import ImageSet, normalise
from osdtw_models.network import OsdtwNet
from osdtw_training import planning, responses, stages, store
from osdtw_training.data import LongTailedData, load_data
from osdtw_training.fisher import Statistics
from osdtw_training.networks import recalibrate_batch_norm
from osdtw_training.planning import Choice
from osdtw_training.preparation import preparation
from osdtw_training.provenance import processor
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_files import read_recipe
from osdtw_training.responses import Responses
from osdtw_training.runs import Run

HERE = Path(__file__).parent
RESULTS = HERE / "studies" / "proxy_grid.json"
GOALS = ("task_loss", "calibrated_loss", "balanced")
TEMPERATURES = [2 ** (step / 16) for step in range(-8, 33)]
DEPTHS = (7, 6, 5, 4, 2, 0)
SAMPLES = (256, 512, 1024)
TAIL_WEIGHTS = (0.5, 0.75, 0.25)
GRID_SEEDS = (0, 1)
# A third seed for the plans that the first two made interesting: best loss, best accuracy, the proxy's, sharing all.
THIRD_SEED = [(2, 6, 0.25), (2, 2, 0.25), (2, 2, 0.5), (2, 7, 0.5)]


def train(data_dir: str, runs: Path, part: int, parts: int) -> None:
    """Stage 1 with its replicates, then this part of the cells."""
    recipe = replace(read_recipe(HERE / "proxy_grid.toml"), data_dir=data_dir)
    torch.set_num_threads(recipe.threads)
    data = load_data(recipe)
    stage = stages.prepare(recipe, data, Run(runs / "stage1", resume=True))
    start = stages.warm_up(stage)
    tasks = stages.train_tasks(stage, start)
    cells = [(seed, depth, tail) for seed in GRID_SEEDS for tail in TAIL_WEIGHTS for depth in DEPTHS]
    # Weights act on shared blocks: where none is shared, they make no difference.
    cells = [cell for cell in cells if cell[1] > 0 or cell[2] == TAIL_WEIGHTS[0]] + THIRD_SEED
    for number, cell in enumerate(cells):
        if number % parts == part - 1:
            train_cell(stage, tasks, data, runs, *cell)
    if part == parts:
        stages.train_replicates(stage, start)


def train_cell(
    stage: stages.Context, tasks: OsdtwNet, data: LongTailedData, runs: Path, seed: int, depth: int, tail: float
) -> None:
    """Joint training and refit of one plan; another seed means another order and augmentation of the images."""
    run = Run(runs / f"seed{seed}_depth{depth}_tail{tail}", resume=True)
    if (run.folder / "cell.json").is_file() and "calibrated_loss" in run.read_json("cell.json"):
        return
    recipe = replace(stage.recipe, seed=stage.recipe.seed + seed)
    batches = data.train_batches(recipe)
    cell = replace(stage, recipe=recipe, run=run, batches=batches)
    joint = stages.train_jointly(cell, tasks, Choice(depth, (1 - tail, tail)))
    network = stages.assemble(cell, tasks, joint)
    assert data.test is not None
    values = {"seed": seed, "depth": depth, "tail_weight": tail, **figures(stage, network, data.test)}
    values["seconds"] = sum(row["seconds"] for row in run.metrics())
    run.write_json("cell.json", values)
    print(json.dumps(values), flush=True)


@torch.no_grad()
def figures(stage: stages.Context, network: OsdtwNet, test: ImageSet) -> dict[str, object]:
    """Task losses (nats, balanced target) and accuracies (%) on the whole test set."""
    logits: list[list[Tensor]] = []
    fused, known = [], preparation(stage.recipe)
    for images in test.images.split(500):
        pixels = normalise(images, known.mean, known.std)
        logits.append(network.forward_tasks(pixels))
        fused.append(network(pixels))
    losses, calibrated = [], []
    for k, objective in enumerate(stage.objectives):
        task, labels = torch.cat([batch[k] for batch in logits]).double(), objective.label_map[test.labels]
        losses.append(F.cross_entropy(task, labels).item())
        calibrated.append(min(F.cross_entropy(task / heat, labels).item() for heat in TEMPERATURES))
    accuracy = dict(evaluate_logits(torch.cat(fused), test.labels, stage.partition, stage.counts))
    sums = {"task_loss": sum(losses), "calibrated_loss": sum(calibrated)}
    return {"task_losses": losses, "calibrated_losses": calibrated, **sums, **accuracy}


def report(data_dir: str, runs: Path, output: Path) -> None:
    """Proxies of every structure for the grid's plans, and how they rank them: the results file."""
    cells = [json.loads(path.read_text()) for path in sorted(runs.glob("seed*/cell.json"))]
    first = [cell for cell in cells if cell["seed"] == GRID_SEEDS[0]]
    recipe = replace(read_recipe(HERE / "proxy_grid.toml"), data_dir=data_dir)
    torch.set_num_threads(recipe.threads)
    data = load_data(recipe)
    assert data.test is not None
    stage = stages.prepare(recipe, data, Run(runs / "stage1", resume=True))
    start = stages.warm_up(stage)
    tasks, replicates = stages.train_tasks(stage, start), stages.train_replicates(stage, start)
    rows: dict[str, Any] = {}
    for structure in ("refit", "diagonal", "ekfac"):
        for debias in (True, False):
            search = replace(recipe.search, structure=structure, debias=debias)
            wanted = replace(recipe, search=search)
            run = Run(runs / f"statistics_{structure}", resume=True)
            planning.measure(tasks, stage.objectives, stage.batches, wanted, run, replicates)
            name = structure if debias else f"{structure}, not debiased"
            rows[name] = judge(run, wanted, first)
    seconds = {key: sum(cell["seconds"] for cell in cells if cell["seed"] == GRID_SEEDS[0]) for key in ("grid",)}
    epoch = sum(row["seconds"] for row in stage.run.metrics() if row["stage"] == "warmup") / recipe.warmup.epochs
    results = {
        "command": "python benchmarks/proxy_grid.py report --data-dir CIFAR100 --runs FOLDER",
        "hardware": {"processor": processor(), "threads": recipe.threads, "amp": recipe.amp},
        "date": time.strftime("%Y-%m-%d"),
        "cells": cells,
        "ceiling": {goal: between_seeds(cells, goal) for goal in GOALS},
        "sampling": sampling(stage, tasks, replicates, first),
        "loss_and_accuracy": ranks(first, "task_loss", [-cell["balanced"] for cell in first]),
        "proxies": rows,
        "noise_cost": noise_cost(stage, tasks, replicates, data.test),
        "seconds": {**seconds, "training_epoch": epoch},
    }
    write_text(output, json.dumps(results, indent=2) + "\n")
    print(f"Wrote {output}")


def sampling(
    stage: stages.Context, tasks: OsdtwNet, replicates: list[OsdtwNet], cells: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The default search with other images and more of them: what its plan and its ranks owe to the sample."""
    rows = []
    for samples in SAMPLES:
        for seed in range(3):
            damping = planning.task_damping(stage.recipe, stage.batches)
            found = responses.measure(tasks, stage.objectives, stage.batches, samples, damping, replicates, seed)
            rows.append({"images": found.samples, "seed": seed, **judge_plan(found, stage.recipe, cells)})
    return rows


@torch.no_grad()
def noise_cost(
    stage: stages.Context, tasks: OsdtwNet, replicates: list[OsdtwNet], test: ImageSet
) -> dict[str, list[float]]:
    """KL divergence (nats) of each task when its network moves by its noise, batch norm held fixed or recalibrated."""
    shown = test.subset(list(range(0, len(test), 10)))
    known = preparation(stage.recipe)
    pixels = normalise(shown.images, known.mean, known.std)
    first, second = (replicate.state_dict() for replicate in replicates)
    state = {
        key: value + (first[key] - second[key]) / 2 if moves(key) else value
        for key, value in tasks.state_dict().items()
    }
    found: dict[str, list[float]] = {}
    for name, recalibrated in (("fixed", False), ("recalibrated", True)):
        networks = [copy.deepcopy(tasks), copy.deepcopy(tasks)]
        networks[1].load_state_dict(state)
        for network in networks:
            if recalibrated:
                recalibrate_batch_norm(network, stage.batches, 0)
        chances = [[network.forward_task(pixels, k).log_softmax(-1) for k in network.tasks] for network in networks]
        found[name] = [
            F.kl_div(moved, own, log_target=True, reduction="batchmean").item()
            for own, moved in zip(*chances, strict=True)
        ]
    return found


def moves(key: str) -> bool:
    """Whether an entry of a network's state is a parameter of a block."""
    return ".block" in key and "running" not in key and "num_batches" not in key


def judge(run: Run, recipe: Recipe, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlations and regret of one proxy on the grid, and what it cost."""
    statistics, seconds = store.load(run)
    started = time.perf_counter()
    planning.find(statistics, recipe)
    searched = time.perf_counter() - started
    return {
        **judge_plan(statistics, recipe, cells),
        "seconds": {"statistics": seconds, "search": searched},
        "images": statistics.samples,
        "trace_error": statistics.trace_error,
    }


def judge_plan(statistics: Statistics | Responses, recipe: Recipe, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlations of one proxy, its plan, and what the cell next to the plan lost."""
    plan = planning.find(statistics, recipe)
    tails = plan.terms.weights[:, 1]

    def proxy(cell: dict[str, Any]) -> float:
        return float(plan.terms.proxy[cell["depth"], int((tails - cell["tail_weight"]).abs().argmin())])

    def distance(cell: dict[str, Any]) -> tuple[int, float]:
        return abs(cell["depth"] - plan.shared_depth), abs(cell["tail_weight"] - plan.task_weights[1])

    values = [proxy(cell) for cell in cells]
    least = cells[min(range(len(cells)), key=values.__getitem__)]
    # Between two depths of the grid: both count, for the plan is as near to the one as to the other.
    nearest = min(map(distance, cells))
    chosen = [cell for cell in cells if distance(cell) == nearest]
    return {
        "spearman": {goal: ranks(cells, goal, values) for goal in GOALS},
        "least_cell": [least["depth"], least["tail_weight"]],
        "values": values,
        "plan": {"shared_depth": plan.shared_depth, "tail_weight": plan.task_weights[1], "edge": plan.edge},
        "as_good_depths": list(plan.alike),
        "nearest_cells": [[cell["depth"], cell["tail_weight"]] for cell in chosen],
        "regret_points": max(c["balanced"] for c in cells) - min(c["balanced"] for c in chosen),
        "regret_nats": max(c["task_loss"] for c in chosen) - min(c["task_loss"] for c in cells),
    }


def ranks(cells: list[dict[str, Any]], goal: str, values: list[float]) -> float:
    """Spearman's correlation of values with a goal over cells; accuracies count downwards."""
    sign = -1 if goal == "balanced" else 1
    return float(spearmanr([sign * cell[goal] for cell in cells], values).statistic)


def between_seeds(cells: list[dict[str, Any]], goal: str) -> float | None:
    """Spearman's correlation between the first two seeds over the cells that both have."""
    of_seed = [{(c["depth"], c["tail_weight"]): c for c in cells if c["seed"] == seed} for seed in GRID_SEEDS]
    both = sorted(of_seed[0].keys() & of_seed[1].keys())
    if len(both) < 3:
        return None
    sign = -1 if goal == "balanced" else 1
    return ranks([of_seed[0][key] for key in both], goal, [sign * of_seed[1][key][goal] for key in both])


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "report"])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--data-dir", help="CIFAR-100 in the Hub's parquet layout or torchvision's")
    parser.add_argument("--part", default="1/1", help="which part of the cells, as 1/2")
    parser.add_argument("--output", type=Path, default=RESULTS, help="results file of the report")
    options = parser.parse_args()
    if options.command == "report":
        report(options.data_dir, options.runs, options.output)
        return
    part, parts = map(int, options.part.split("/"))
    started = time.perf_counter()
    train(options.data_dir, options.runs, part, parts)
    print(f"Done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
