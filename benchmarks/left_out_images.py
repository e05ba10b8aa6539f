"""Runs with an open "none" on images that nothing was fitted on: what calibration does, and each decoder alone.

    osdtw-benchmark benchmarks/cifar100_lt.toml --only osdtw_open --data-dir CIFAR100 --runs runs/r20
    python benchmarks/left_out_images.py runs/r20/osdtw_open*    -> benchmarks/studies/left_out_images.json

Temperatures and biases are fitted on a run's held-out images. Looked at are training images of CIFAR-100 that the
long-tailed set leaves out, as many of each class; the few largest classes have none to spare. No test image is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osdtw_models.datasets import read_images
from osdtw_models.evaluation import evaluate_logits
from osdtw_models.files import write_text
from osdtw_models.image_set import ImageSet
from osdtw_models.load import load_model
from osdtw_training.calibration import fit_logits, task_logits
from osdtw_training.data import load_data
from osdtw_training.provenance import processor
from osdtw_training.recipe import Recipe
from osdtw_training.values import from_values

STUDY = Path(__file__).parent / "studies" / "left_out_images.json"
EACH = 60  # images of a class


def study(run: Path) -> dict[str, Any]:
    """One run: figures before calibration and after several kinds of it; those of each decoder by itself."""
    recipe = from_values(Recipe, json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    data, network = load_data(recipe), load_model(str(run)).eval()
    images = left_out(recipe)

    def figures(scores: Tensor) -> dict[str, float]:
        found = evaluate_logits(scores, images.labels, class_counts=data.group_counts)
        return {name: round(value, 4) for name, value in found}

    held, seen = task_logits(network, data.holdout), task_logits(network, images)
    fit = partial(fit_logits, network, held, data.holdout.labels)
    ways = {
        "nothing": [[1.0, 0.0]] * network.partition.num_tasks,
        "one temperature": fit(biased=False, shared=True),
        "a temperature each": fit(biased=False, shared=False),
        "one temperature, a bias each": fit(biased=True, shared=True),
    }
    calibrated = {name: figures(network.fuse_with(seen, *torch.tensor(tasks).T)) for name, tasks in ways.items()}
    decoders = zip(seen, network.partition.output_maps, strict=True)
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "images": len(images),
        "fitted": ways,
        "calibration": calibrated,
        "alone": [figures(logits[:, places]) for logits, places in decoders],
    }


def left_out(recipe: Recipe) -> ImageSet:
    """Training images of CIFAR-100 that the recipe neither trains on nor holds out, of each class that has so many."""
    used = load_data(replace(recipe, holdout=0.0, calibrate=False)).train_indices
    images = read_images("cifar100", "train", 32, recipe.data_dir)
    free = torch.ones(len(images), dtype=torch.bool)
    free[used] = False
    stream = torch.Generator().manual_seed(recipe.seed)
    each = [torch.nonzero(free & (images.labels == c))[:, 0] for c in images.labels.unique()]
    chosen = [places[torch.randperm(len(places), generator=stream)[:EACH]] for places in each if len(places) >= EACH]
    return images.subset(torch.cat(chosen).tolist())


def main() -> int:
    """Look at every run named, write the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folder")
    runs = parser.parse_args().runs
    for run in runs:
        if not (run / "recipe.json").is_file():
            parser.error(f"{run} is no run folder; give folders that osdtw-benchmark or osdtw-train wrote.")
    torch.set_num_threads(1)
    values = {
        "command": " ".join(["python benchmarks/left_out_images.py", *(f"RUNS/{run.name}" for run in runs)]),
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "date": time.strftime("%Y-%m-%d"),
        "runs": [study(run) for run in runs],
    }
    write_text(STUDY, json.dumps(values, indent=2) + "\n")
    print(f"Wrote {STUDY}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
