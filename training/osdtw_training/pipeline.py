"""One run from recipe to results: data, method, saved network, ``results.json``, report."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf

from osdtw_models.checksums import SUMS, write_sums
from osdtw_models.files import errors_about, write_whole
from osdtw_models.network import OsdtwNet
from osdtw_models.releases import CONFIG, WEIGHTS
from osdtw_training import distributed, report, stages
from osdtw_training.checks import check
from osdtw_training.data import load_data
from osdtw_training.inventory import announce, list_images
from osdtw_training.methods import PEERS, Method
from osdtw_training.provenance import provenance
from osdtw_training.recipe import Recipe
from osdtw_training.results import calibrate, evaluate
from osdtw_training.runs import Run
from osdtw_training.values import to_values

METHODS: dict[str, Method] = {"osdtw": stages.train, **PEERS}


@dataclass(frozen=True)
class Result:
    """What a run left.

    Args:
        folder: The run folder.
        network: The trained network, in evaluation mode.
        results: The content of ``results.json``.
    """

    folder: Path
    network: OsdtwNet
    results: dict[str, Any]


def run_recipe(recipe: Recipe, folder: str | Path, resume: bool = False) -> Result:
    """Train by a recipe; the run folder holds everything afterwards.

    Args:
        recipe: The recipe.
        folder: Run folder.
        resume: Go on with the run that is in the folder.

    Returns:
        The network and its results.

    Raises:
        FileExistsError: If the folder holds a run and ``resume`` is False.
        BlockingIOError: If another process trains there.
        ValueError: If the data do not fit the recipe, or the recipe is not the one that the run began with.
    """
    with distributed.joined(recipe.device):
        torch.set_num_threads(recipe.threads or (os.cpu_count() or 1) // distributed.processes_here() or 1)
        origin = provenance(recipe)  # before training: the checkout may be another one afterwards
        data = load_data(recipe)
        partition = check(recipe, data, start=not resume)
        run = Run(folder, resume)
        with run.held():
            _same_recipe(run, recipe)
            announce(recipe, data, partition)
            list_images(recipe, run, data)
            network = METHODS[recipe.method](recipe, data, run)
            network.class_counts = data.group_counts
            calibration = calibrate(recipe, data, network, partition)
            if distributed.first():
                save_network(network, run, data.train.class_names)
            results = {**evaluate(recipe, data, network, partition, run, origin), **calibration}
            run.write_json("results.json", results)
    if distributed.first():
        report.write(run)
    return Result(run.folder, network, results)


def save_network(network: OsdtwNet, run: Run, class_names: tuple[str, ...]) -> None:
    """Write ``config.json`` (timm's form) and ``model.safetensors`` of the assembled network, and their checksums."""
    network = network.to(memory_format=torch.contiguous_format)  # the layout that safetensors takes
    (run.folder / SUMS).unlink(missing_ok=True)  # sums of an older network would call the new one damaged
    with tempfile.TemporaryDirectory() as folder:
        with errors_about(weights := Path(folder) / WEIGHTS, weights):
            save_for_hf(
                network,
                folder,
                model_config={"label_names": list(class_names)},
                model_args=network.model_args(),
                safe_serialization=True,
            )
        for name in (WEIGHTS, CONFIG):
            write_whole(run.folder / name, partial(shutil.copyfile, Path(folder) / name))
    write_sums(run.folder, (WEIGHTS, CONFIG))


def _same_recipe(run: Run, recipe: Recipe) -> None:
    """Keep the recipe in the run folder; a resumed run must be the same one."""
    values = json.loads(json.dumps(to_values(recipe)))
    if not run.has("recipe.json"):
        run.write_json("recipe.json", values)
        return
    begun = run.read_json("recipe.json")
    changed = sorted(key for key in {*begun, *values} if begun.get(key) != values.get(key))
    if changed:
        raise ValueError(
            f"{run.folder} was begun with another {', '.join(changed)}; resume it unchanged or choose another --output."
        )
