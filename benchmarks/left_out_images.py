"""Runs with an open "none" on images that nothing was fitted on: what calibration does, and each decoder alone.

    python benchmarks/left_out_images.py RUN [RUN ...]    -> benchmarks/studies/left_out_images.json

Each run is one of CIFAR-100-LT with held-out images, on which temperatures and biases are fitted. Looked at are
training images of CIFAR-100 that the long-tailed set leaves out, classes weighed alike; no test image is.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from osdtw_models.datasets import read_images
from osdtw_models.evaluation import frequency_groups
from osdtw_models.files import write_text
from osdtw_models.image_set import ImageSet, normalise
from osdtw_models.load import load_model
from osdtw_models.network import OsdtwNet
from osdtw_training.calibration import fit_logits
from osdtw_training.data import load_data
from osdtw_training.provenance import processor
from osdtw_training.recipe import Recipe
from osdtw_training.values import from_values

STUDY = Path(__file__).parent / "studies" / "left_out_images.json"
MOST = 60  # images of a class that are looked at
BINS = 15


def study(run: Path) -> dict[str, Any]:
    """One run: figures before calibration, with temperatures, with biases, too; those of each decoder by itself."""
    recipe = from_values(Recipe, json.loads((run / "recipe.json").read_text(encoding="utf-8")))
    data, network = load_data(recipe), load_model(str(run)).eval()
    left = left_out(recipe)
    held, seen = outputs(network, data.holdout), outputs(network, left)
    none = [[1.0, 0.0]] * network.partition.num_tasks
    fitted = {biased: fit_logits(network, held, data.holdout.labels, biased) for biased in (False, True)}
    ways = {"nothing": none, "temperatures": fitted[False], "temperatures and biases": fitted[True]}
    groups = frequency_groups(data.group_counts)
    rows = {
        name: {"tasks": tasks, **figures(network.fuse_with(seen, *torch.tensor(tasks).double().T), left.labels, groups)}
        for name, tasks in ways.items()
    }
    decoders = zip(seen, network.partition.output_maps, strict=True)
    alone = [figures(each[:, places], left.labels, groups) for each, places in decoders]
    return {"recipe": recipe.name, "seed": recipe.seed, "images": len(left), "calibration": rows, "alone": alone}


def left_out(recipe: Recipe) -> ImageSet:
    """Training images of CIFAR-100 that the recipe neither trains on nor holds out, at most some of each class."""
    data = load_data(replace(recipe, holdout=0.0, calibrate=False))
    images = read_images("cifar100", "train", 32, recipe.data_dir)
    free = torch.ones(len(images), dtype=torch.bool)
    free[data.train_indices] = False
    stream = torch.Generator().manual_seed(recipe.seed)
    each = [torch.nonzero(free & (images.labels == c))[:, 0] for c in range(100)]
    chosen = torch.cat([places[torch.randperm(len(places), generator=stream)[:MOST]] for places in each])
    return images.subset(chosen.tolist())


@torch.no_grad()
def outputs(network: OsdtwNet, images: ImageSet) -> list[Tensor]:
    """Outputs of each task, float64."""
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    parts = [network.forward_outputs(normalise(batch, mean, std)) for batch in images.images.split(200)]
    return [torch.cat(each).double() for each in zip(*parts, strict=True)]


def figures(scores: Tensor, labels: Tensor, groups: dict[str, Tensor]) -> dict[str, float]:
    """Accuracies and calibration error in percent, log-likelihood in nats; each class that has images counts alike."""
    number = torch.bincount(labels, minlength=scores.shape[1])
    weights = 1 / number[labels].double() / int((number > 0).sum())
    right, confidence = scores.argmax(1) == labels, scores.softmax(1).max(1).values
    classes = torch.zeros(len(number), dtype=torch.float64).index_add_(0, labels, right.double()) / number
    there = {"overall": classes[number > 0].mean()}
    there |= {name: classes[members][number[members] > 0].mean() for name, members in groups.items()}
    place = torch.bucketize(confidence, torch.linspace(0, 1, BINS + 1, dtype=torch.float64)[1:-1])
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, place, weights * (confidence - right.double()))
    there["ece"] = gaps.abs().sum()
    percent = {name: round(100 * float(value), 2) for name, value in there.items()}
    return {**percent, "nll": round(float((weights * cross_entropy(scores, labels, reduction="none")).sum()), 3)}


def main() -> int:
    """Look at every run named, write the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folder")
    runs = parser.parse_args().runs
    torch.set_num_threads(1)
    values = {
        "command": "python benchmarks/left_out_images.py RUN ...",
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "date": time.strftime("%Y-%m-%d"),
        "runs": [study(run) for run in runs],
    }
    write_text(STUDY, json.dumps(values, indent=2) + "\n")
    print(f"Wrote {STUDY}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
