"""How much each class's images count in training: what the sampler shows of it, times its class weight.

Weights multiply each image's loss; the mean over the batch is not divided by the batch's weights, so that an image's
gradient does not depend on its neighbours. They are scaled to a mean of 1 over what the sampler shows, so only their
ratios matter and learning rates keep their meaning. A method that corrects for class frequencies corrects for those of
the weighted images: nothing is corrected twice.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from osdtw_training.batches import Batches


def class_weights(batches: Batches) -> Tensor:
    """Weight of each class by the recipe's ``class_weights``.

    Args:
        batches: The training images, and how they are drawn.

    Returns:
        Shape (C,), float32, on the recipe's device, with mean 1 over what the sampler shows. For "auto" the inverse of
        how often it is shown: scikit-learn's "balanced", n / (C n_c), or 1 where the sampler is balanced already.

    Raises:
        ValueError: If a file of weights does not fit the classes.
        FileNotFoundError: If there is no such file.
    """
    recipe, shown = batches.recipe, batches.shown
    if recipe.class_weights == "none":
        weights = torch.ones_like(shown)
    elif recipe.class_weights == "auto":
        weights = 1 / shown.clamp(min=1e-12)  # a half of the images may lack a class
    else:
        weights = read_weights(Path(recipe.class_weights), batches.images.class_names)
    return (weights * shown.sum() / (weights * shown).sum()).float().to(recipe.device)


def counted(batches: Batches) -> list[float]:
    """Images of each class that an epoch shows, times its weight, length C: the prior that losses correct for."""
    return (batches.shown * class_weights(batches).cpu().double()).tolist()


def weighted_mean(losses: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    """Mean over the batch of each image's loss times its class's weight: a scalar.

    Args:
        losses: Shape (B,).
        labels: Classes, shape (B,).
        weights: Of each class, shape (C,).

    Returns:
        The mean, not divided by the weights of the batch.
    """
    return (weights[labels] * losses).mean()


def read_weights(file: Path, class_names: Sequence[str]) -> Tensor:
    """Class weights of a file: a JSON object of class name and weight, or CSV rows of the two.

    Args:
        file: The file; ``.json`` or anything else for CSV. A first CSV row whose second cell is no number is a title.
        class_names: All C classes; the file must name each once.

    Returns:
        Shape (C,), float64, as they stand in the file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a class is missing, unknown or named twice, or a weight is not positive and finite.
    """
    if not file.is_file():
        raise FileNotFoundError(f"No file {file}; class_weights is 'none', 'auto' or a CSV or JSON file of weights.")
    try:
        rows = _rows(file)
    except (ValueError, csv.Error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{file} holds no class weights ({error}); write class,weight rows or a JSON object."
        ) from error
    names = [name for name, _ in rows]
    for name in names:
        if name not in class_names or names.count(name) > 1:
            wrong = "is no class of the data" if name not in class_names else "has two weights"
            raise ValueError(f"{name!r} in {file} {wrong}; name every class once.")
    missing = [name for name in class_names if name not in names]
    if missing:
        raise ValueError(f"{file} has no weight for {missing[0]!r} ({len(missing)} missing); name every class once.")
    weights = dict(rows)
    for name, weight in weights.items():
        if not (weight > 0 and math.isfinite(weight)):
            raise ValueError(f"The weight of {name!r} in {file} is {weight}; weights must be positive and finite.")
    return torch.tensor([weights[name] for name in class_names], dtype=torch.float64)


def _rows(file: Path) -> list[tuple[str, float]]:
    """Pairs of class and weight in the order of the file."""
    text = file.read_text(encoding="utf-8-sig")
    if file.suffix.lower() == ".json":
        found = json.loads(text, object_pairs_hook=list)
        if not isinstance(found, list) or not all(
            isinstance(pair, tuple) and type(pair[1]) in (int, float) for pair in found
        ):
            raise ValueError("not one object of names and numbers")
        return [(str(name), float(weight)) for name, weight in found]
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if any(len(row) != 2 for row in rows):
        raise ValueError("a row has not two cells")
    return [(name.strip(), float(weight)) for name, weight in rows[_has_title(rows) :]]


def _has_title(rows: list[list[str]]) -> bool:
    try:
        float(rows[0][1])
    except (IndexError, ValueError):
        return bool(rows)
    return False
