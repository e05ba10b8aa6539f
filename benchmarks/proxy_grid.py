"""Is the proxy right? A real grid of shared depths and task weights, trained from the same stage-1 tasks.

    python benchmarks/proxy_grid.py train --data-dir CIFAR100 --runs FOLDER [--part 1/2]
    python benchmarks/proxy_grid.py report --runs FOLDER        -> benchmarks/results/proxy_grid.json

``train`` does what is not done yet and can be stopped at any time; ``--part 1/2`` and ``--part 2/2`` share the
cells between two processes once stage 1 is there. Losses and accuracies are taken on the whole balanced test set:
for this study alone, and never to choose a plan.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from osdtw_models.datasets import ImageSet, normalise
from osdtw_models.evaluation import evaluate_logits
from osdtw_models.network import OsdtwNet
from osdtw_training import stages
from osdtw_training.data import Batches, LongTailedData, load_data
from osdtw_training.planning import Choice
from osdtw_training.recipe import read_recipe
from osdtw_training.runs import Run

HERE = Path(__file__).parent
DEPTHS = (7, 6, 5, 4, 2, 0)
TAIL_WEIGHTS = (0.5, 0.75, 0.25)
GRID_SEEDS = (0, 1)


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
    cells = [cell for cell in cells if cell[1] > 0 or cell[2] == TAIL_WEIGHTS[0]]
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
    if (run.folder / "cell.json").is_file():
        return
    recipe = replace(stage.recipe, seed=stage.recipe.seed + seed)
    batches = Batches(data.train, data.train_indices, recipe)
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
    fused = []
    for images in test.images.split(500):
        pixels = normalise(images, stage.recipe.mean, stage.recipe.std)
        logits.append(network.forward_tasks(pixels))
        fused.append(network(pixels))
    losses = []
    for k, objective in enumerate(stage.objectives):
        task = torch.cat([batch[k] for batch in logits]).double()
        losses.append(torch.nn.functional.cross_entropy(task, objective.label_map[test.labels]).item())
    counts = stage.counts
    accuracy = dict(evaluate_logits(torch.cat(fused), test.labels, stage.partition, counts))
    return {"task_losses": losses, "task_loss": sum(losses), **accuracy}


def main() -> None:
    """The two commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "report"])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the study's runs")
    parser.add_argument("--data-dir", help="CIFAR-100 in the Hub's parquet layout or torchvision's")
    parser.add_argument("--part", default="1/1", help="which part of the cells, as 1/2")
    options = parser.parse_args()
    part, parts = map(int, options.part.split("/"))
    started = time.perf_counter()
    train(options.data_dir, options.runs, part, parts)
    print(f"Done in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
