"""A run through all stages that takes two seconds of one processor, and what has to hold of its folder."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import torch

from osdtw_models.files import write_text
from osdtw_training import cli, report
from osdtw_training.checkpoints import load
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Search, Warmup
from osdtw_training.values import to_values

RECIPE = Recipe(
    model="osdtw_resnet14",
    widths=(8, 8, 8),
    imbalance_factor=100,
    holdout=0.1,
    img_size=8,
    crop_pad=1,
    flip=False,
    batch_size=64,
    warmup=Warmup(epochs=2, lr=0.05, rise_epochs=1),
    tasks=Schedule(epochs=2, lr=0.02),
    search=Search(samples=12, weights=3),
    joint=Joint(epochs=2, lr=0.02),
    refit=Refit(epochs=2, lr=0.01),
)
EPOCH = re.compile(r"^ *(\w+) +(\d+)/\d+  loss", re.MULTILINE)


def go_on(folder: Path, recipe: Recipe = RECIPE) -> None:
    """Begin the run, or go on with it; without figures and report, which would take as long as all the rest."""
    report.write = lambda run: []
    torch.set_num_threads(1)
    run_recipe(recipe, folder, resume=True)


def command(folder: Path) -> int:
    """The same by the door: ``osdtw-train --output FOLDER --resume``; returns the exit code."""
    report.write = lambda run: []
    if not (folder / "recipe.json").is_file():
        write_text(folder / "recipe.json", json.dumps(to_values(RECIPE)))
    return cli.train(["--output", str(folder), "--resume"])


def ends(folder: Path) -> tuple[bytes, bytes, list[tuple[str, int, float]]]:
    """What must be the same however often a run was disturbed: weights, config, the loss of every epoch."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = sorted((row["stage"], row["epoch"], row["loss"]) for row in map(json.loads, lines))
    return (folder / "model.safetensors").read_bytes(), (folder / "config.json").read_bytes(), losses


def whole(folder: Path) -> bool:
    """Whether every file under a final name is whole."""
    try:
        for path in folder.rglob("[!.]*.json"):
            json.loads(path.read_text(encoding="utf-8"))
        for path in (folder / "checkpoints").glob("[!.]*.safetensors"):
            load(path)
    except ValueError as error:
        print(f"lost: {error}")
        return False
    return True


def epochs(said: Path) -> Counter[tuple[str, str]]:
    """Epochs that a run told finished, by stage and number."""
    return Counter(EPOCH.findall(said.read_text(encoding="utf-8")))
