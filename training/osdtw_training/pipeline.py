"""One run from recipe to results: data, method, saved network, figures, ``results.json``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf

from osdtw_models.breakdown import breakdown
from osdtw_models.complexity import cost
from osdtw_models.evaluation import class_accuracies, evaluate_logits, predict_images
from osdtw_models.files import write_whole
from osdtw_models.image_set import ImageSet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_models.soundness import named
from osdtw_models.tables import write_table
from osdtw_training import distributed, figures, planning, stages
from osdtw_training.budget import plain_multiply_adds, training_passes
from osdtw_training.calibration import fit_calibration
from osdtw_training.class_weights import class_weights
from osdtw_training.data import Batches, LongTailedData, load_data
from osdtw_training.methods import PEERS, Method
from osdtw_training.networks import new_network
from osdtw_training.provenance import provenance
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import epoch_taken
from osdtw_training.values import to_values

BROKEN_FILE = "broken_images.csv"
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
        ValueError: If the data do not fit the recipe, or the recipe is not the one that the run began with.
    """
    with distributed.joined(recipe.device):
        torch.set_num_threads(recipe.threads or (os.cpu_count() or 1) // distributed.processes_here() or 1)
        origin = provenance(recipe)  # before training: the checkout may be another one afterwards
        data = load_data(recipe)
        partition = check(recipe, data, start=not resume)
        run = Run(folder, resume)
        _same_recipe(run, recipe)
        announce(recipe, data, partition)
        if distributed.first():
            _write_images(recipe, run, data)
            _write_broken(run, data)
        network = METHODS[recipe.method](recipe, data, run)
        network.class_counts = data.group_counts
        calibration = calibrate(recipe, data, network, partition)
        if distributed.first():
            save_network(network, run, data.train.class_names)
        results = {**evaluate(recipe, data, network, partition, run, origin), **calibration}
        run.write_json("results.json", results)
    if distributed.first():
        figures.draw(run)
    return Result(run.folder, network, results)


def check(recipe: Recipe, data: LongTailedData, start: bool = False) -> ClassPartition:
    """The partition of a run's classes, after everything that can be wrong before training was looked at.

    Args:
        recipe: The recipe.
        data: The images.
        start: Whether the run will start from the recipe's weights of the backbone.

    Returns:
        The partition.

    Raises:
        ValueError: If there are fewer classes than tasks, the head threshold leaves a task empty, there is nothing
            to train or to choose the epoch on, class weights do not fit the classes, a batch is too small for the
            processes, they see different images, a fixed plan does not fit the network, or the statistics would not
            fit into memory.
        FileNotFoundError: If the weights of the backbone cannot be had.
    """
    if not recipe.passes():
        table = "[train]" if recipe.method != "osdtw" else "[warmup]"
        raise ValueError(f"The recipe trains for 0 epochs; set epochs in {table}.")
    if recipe.eval_metric != "last" and not len(data.holdout):
        raise ValueError("eval_metric found no held-out image to choose the epoch on; set holdout_least to 1.")
    _class_weights(recipe, data)
    _check_processes(recipe, data)
    partition = ClassPartition.from_counts(data.counts, recipe.num_tasks, recipe.head_threshold)
    try:
        network = new_network(recipe, partition, start=start)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} On the command line: --backbone-weights FILE, or none.") from error
    planning.check_memory(recipe, network)
    planning.check_fixed(recipe, network.num_blocks, partition.num_tasks)
    return partition


def _check_processes(recipe: Recipe, data: LongTailedData) -> None:
    """Every process must get images of every micro-batch, of the same data, and a device of its own."""
    if distributed.processes() > 1 and ":" in recipe.device:
        raise ValueError(f'device is {recipe.device}, one for all processes; give "cuda": each takes its own.')
    if distributed.processes() > 1 and recipe.method == "mfm":
        raise ValueError("mfm takes its virtual step on whole batches; train it in one process, without torchrun.")
    halved = recipe.method == "osdtw" and recipe.search.replicates
    images = min(recipe.batch_size, len(data.train)) // (2 if halved else 1)
    parts = distributed.processes() * recipe.accumulate
    if images < parts and parts > 1:
        raise ValueError(
            f"A batch of {images} images{' (of half of the data)' if halved else ''} cannot be split over "
            f"{distributed.processes()} processes and {recipe.accumulate} micro-batches; raise batch_size."
        )
    listed = repr((data.train.names, data.train.labels.tolist())).encode()
    seen = int.from_bytes(hashlib.sha256(listed).digest()[:7], "big")
    if distributed.of_first(seen) != seen:
        raise ValueError(
            f"Process {distributed.number()} sees other images in {recipe.data} than the first process; give every "
            "machine the same files."
        )


def announce(recipe: Recipe, data: LongTailedData, partition: ClassPartition) -> None:
    """Print what will be trained on what, before the first epoch."""
    counts = data.counts
    shown = ", ".join(map(str, counts if len(counts) <= 12 else [*counts[:5], "...", *counts[-5:]]))
    print(f"Data: {recipe.data}, {len(data.train)} training images in {len(counts)} classes ({shown})")
    held = "validation images" if data.validation else "images held out"
    print(f"  imbalance factor {max(counts) / min(counts):.4g}, {len(data.holdout)} {held}", end="")
    print(f", {len(data.test)} test images" if data.test else ", no test images: results are on the held-out part")
    for split, broken in data.left_out.items():
        if broken:
            lost = ", ".join(f"{name} {n}" for name, n in Counter(each.class_name for each in broken).items())
            print(f"  {len(broken)} broken {split} images are left out of these counts, by class: {lost}")
            print(f"    {named(broken)}; {BROKEN_FILE} lists them")
    if recipe.eval_metric != "last":
        seen = sum(count > 0 for count in data.holdout.counts())
        kept = f"the epoch of [{recipe.result_stage()}] that is best by {recipe.eval_metric} on the held-out images"
        print(f"Kept: {kept} of {seen} classes, whose figures are too good by that choice")
    if recipe.class_weights != "none":
        weights = _class_weights(recipe, data)
        print(f"Class weights: {recipe.class_weights}, {min(weights):.3g} to {max(weights):.3g}, 1 on average")
    if recipe.method == "osdtw":
        for k, classes in enumerate(partition.tasks):
            own = [counts[c] for c in classes]
            none = ", and 'none'" if partition.has_none else ""
            print(f"Task {k}: {len(own)} classes with {max(own)} to {min(own)} images{none}")
        print(
            f"Stages: warm-up {recipe.warmup.epochs}, {partition.num_tasks} tasks x {recipe.tasks.epochs}, "
            f"joint {recipe.joint.epochs}, refit {recipe.refit.epochs} epochs: {recipe.passes()} passes in all"
        )
    else:
        print(f"Method: {recipe.method}, {recipe.passes()} passes")


def save_network(network: OsdtwNet, run: Run, class_names: tuple[str, ...]) -> None:
    """Write ``config.json`` (timm's form) and ``model.safetensors`` of the assembled network."""
    network = network.to(memory_format=torch.contiguous_format)  # the layout that safetensors takes
    with tempfile.TemporaryDirectory() as folder:
        save_for_hf(
            network,
            folder,
            model_config={"label_names": list(class_names)},
            model_args=network.model_args(),
            safe_serialization=True,
        )
        for name in ("model.safetensors", "config.json"):
            write_whole(run.folder / name, partial(shutil.copyfile, Path(folder) / name))


def evaluate(
    recipe: Recipe,
    data: LongTailedData,
    network: OsdtwNet,
    partition: ClassPartition,
    run: Run,
    origin: dict[str, Any],
) -> dict[str, Any]:
    """All numbers of a run, with what they depend on.

    Args:
        recipe: The recipe.
        data: The images.
        network: The trained network.
        partition: The tasks.
        run: Run folder.
        origin: See `osdtw_training.provenance`.

    Returns:
        The content of ``results.json``.
    """
    seconds = sum(row["seconds"] for row in run.metrics())
    plain = plain_multiply_adds(recipe, network.num_classes)
    results: dict[str, Any] = {
        "recipe": recipe.name,
        "method": recipe.method,
        "model": recipe.model,
        "data": recipe.data,
        "imbalance_factor": recipe.imbalance_factor,
        "seed": recipe.seed,
        "passes": recipe.passes(),
        "training_passes": {k: round(v, 3) for k, v in training_passes(recipe, network, len(data.train)).items()},
        "inference_ratio": round(cost(network)["multiply_adds"]["total"] / plain, 4),
        "training_hours": round(seconds / 3600, 3),
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        **origin,
        "class_counts": data.group_counts,
        "training_counts": data.counts,
        "class_weights": _class_weights(recipe, data),
        "test_images": len(data.test) if data.test is not None else 0,
        "broken_images_left_out": {split: len(broken) for split, broken in data.left_out.items()},
    }
    if recipe.method == "osdtw":
        plan = run.read_json("plan.json")
        results["plan"] = {key: plan[key] for key in ("source", "shared_depth", "task_weights")}
    results.update(epoch_taken(recipe, run))
    for split, images in (("test", data.test), ("holdout", data.holdout)):
        if images is not None and len(images):
            results[split] = _figures_of(network, images, partition, data.group_counts)
    return results


def calibrate(
    recipe: Recipe, data: LongTailedData, network: OsdtwNet, partition: ClassPartition
) -> dict[str, dict[str, Any]]:
    """Calibrate a network on the held-out images, if the recipe wants it and there are any.

    Returns:
        For ``results.json``: what was fitted, on how many images, and the figures before it.
    """
    if not recipe.calibrate or not len(data.holdout):
        return {}
    sets = {"test": data.test, "holdout": data.holdout}
    before = {
        split: _figures_of(network, images, partition, data.group_counts)
        for split, images in sets.items()
        if images is not None
    }
    network.set_calibration(fit_calibration(network, data.holdout))
    for split in before.values():
        del split["per_class"]
        split["breakdown"] = {"reliability": split["breakdown"]["reliability"]}
    return {"calibration": {"tasks": network.calibration, "images": len(data.holdout), "before": before}}


def _figures_of(network: OsdtwNet, images: ImageSet, partition: ClassPartition, counts: list[int]) -> dict[str, Any]:
    own = images.subset(range(len(images))[distributed.share(len(images))])
    logits, labels = distributed.gathered(predict_images(network.cpu(), own.images)), images.labels
    values: dict[str, Any] = {
        name: None if value != value else round(value, 4)
        for name, value in evaluate_logits(logits, labels, partition, counts)
    }
    each = class_accuracies(logits.argmax(-1), labels, len(counts)).tolist()
    values["per_class"] = [None if value != value else round(value, 2) for value in each]
    return {**values, "breakdown": breakdown(logits, labels, counts)}


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


def _write_images(recipe: Recipe, run: Run, data: LongTailedData) -> None:
    def listed(images: ImageSet, indices: list[int]) -> list[dict[str, Any]]:
        rows = [
            {"index": i, "label": y, "name": name}
            for i, y, name in zip(indices, images.labels.tolist(), images.names, strict=True)
        ]
        if images.list_sha256 is not None:  # the list says which images these are; reading them all takes hours
            return rows
        return [{**row, "sha256": digest} for row, digest in zip(rows, images.digests(), strict=True)]

    values = {
        "counts": data.group_counts,
        "training_counts": data.counts,
        "class_names": list(data.train.class_names),
        "list_sha256": {"train": data.train.list_sha256, "holdout": data.holdout.list_sha256},
        "class_weights": _class_weights(recipe, data),
        "train": listed(data.train, data.train_indices),
        "holdout": listed(data.holdout, data.holdout_indices),
    }
    if (run.folder / "images.json").is_file() and run.read_json("images.json") != values:
        raise ValueError(
            f"The images or their classes are no longer those that {run.folder} was begun with (images.json); bring "
            "them back, or choose another --output."
        )
    run.write_json("images.json", values)


def _class_weights(recipe: Recipe, data: LongTailedData) -> list[float]:
    weights = class_weights(Batches(data.train, data.train_indices, recipe)).tolist()
    return [round(weight, 6) for weight in weights]


def _write_broken(run: Run, data: LongTailedData) -> None:
    """List the images that were left out, if there are any."""
    rows = [
        {"split": split, "class": each.class_name, "name": each.name, "reason": each.reason}
        for split, broken in data.left_out.items()
        for each in broken
    ]
    if rows:
        write_table(run.folder / BROKEN_FILE, rows)
