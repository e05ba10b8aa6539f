"""What a run trains on: said before the first epoch, and listed in the run folder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from osdtw_models.image_set import ImageSet
from osdtw_models.partition import ClassPartition
from osdtw_models.soundness import named
from osdtw_models.tables import write_table
from osdtw_training import distributed
from osdtw_training.class_weights import class_weights
from osdtw_training.data import LongTailedData
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.steps import has_bfloat16

BROKEN_FILE = "broken_images.csv"


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
        weights = rounded_weights(recipe, data)
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
    if recipe.amp == "bfloat16" and recipe.device == "cpu" and not has_bfloat16():
        print("This processor has no bfloat16 instructions and emulates them slowly: --amp none is faster here")


def list_images(recipe: Recipe, run: Run, data: LongTailedData) -> None:
    """Write ``images.json``, and ``broken_images.csv`` if images were left out.

    Args:
        recipe: The recipe.
        run: Run folder.
        data: The images.

    Raises:
        ValueError: If the folder's run was begun with other images.
    """
    begun = run.read_json("images.json") if run.has("images.json") else None
    if not distributed.first():  # one process reads and hashes the files
        return

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
        "class_weights": rounded_weights(recipe, data),
        "train": listed(data.train, data.train_indices),
        "holdout": listed(data.holdout, data.holdout_indices),
    }
    if begun not in (None, values):
        raise ValueError(
            f"The images or their classes are no longer those that {run.folder} was begun with (images.json); bring "
            "them back, or choose another --output."
        )
    run.write_json("images.json", values)
    broken = list(_broken_rows(data))
    if broken:
        write_table(run.folder / BROKEN_FILE, broken)


def rounded_weights(recipe: Recipe, data: LongTailedData) -> list[float]:
    """Weight of each class, as files state it."""
    weights = class_weights(data.train_batches(recipe)).tolist()
    return [round(weight, 6) for weight in weights]


def _broken_rows(data: LongTailedData) -> Iterator[dict[str, str]]:
    for split, broken in data.left_out.items():
        for each in broken:
            yield {"split": split, "class": each.class_name, "name": each.name, "reason": each.reason}
