"""What a network takes for what: ``confusion.csv``, and pictures of its surest mistakes in its worst classes."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from osdtw_models.files import write_whole
from osdtw_models.image_set import ImageSet
from osdtw_models.tables import write_table
from osdtw_training import distributed
from osdtw_training.runs import Run

CONFUSION = "confusion.csv"
WORST_CLASSES = 8
EACH = 4  # mistakes shown of each
SIDE = 96  # of their pictures, in pixels, at most


class Mistake(TypedDict):
    """An image whose class was missed: its class, the one it was taken for, how surely (%), and its name.

    Its picture is ``mistakes/<place>.png``, see `picture`; the place is that in the list, from 0.
    """

    label: int
    predicted: int
    confidence: float
    image: str


def keep(run: Run, logits: Tensor, images: ImageSet, accuracies: Sequence[float | None]) -> list[Mistake]:
    """Write ``confusion.csv`` and the pictures of the surest mistakes in the worst classes.

    The file has one row for each pair of classes that occurs, so it never has more rows than there are images.

    Args:
        run: Run folder.
        logits: Fused logits in class order, shape (N, C).
        images: The N images.
        accuracies: Accuracy of each class in percent, None for a class without images.

    Returns:
        The mistakes shown, worst class first, the surest first within a class.
    """
    places, found = surest_mistakes(logits, images, worst_classes(accuracies, images.counts()))
    if distributed.first():
        write_table(run.folder / CONFUSION, _confusion_rows(logits.argmax(-1), images))
        for number, place in enumerate(places):
            pixels = images.images[place : place + 1][0].permute(1, 2, 0).numpy()
            shown = Image.fromarray(pixels)
            shown.thumbnail((SIDE, SIDE))
            write_whole(picture(run.folder, number), partial(shown.save, format="PNG"))
    return found


def worst_classes(accuracies: Sequence[float | None], sizes: Sequence[int]) -> list[int]:
    """The classes of least accuracy; of those that are alike the larger ones first, whose figures are surer.

    Args:
        accuracies: Accuracy of each class in percent, None for a class without images.
        sizes: Images of each class.

    Returns:
        At most `WORST_CLASSES` classes, worst first; none that is always right.
    """
    known = [(accuracy, -sizes[c], c) for c, accuracy in enumerate(accuracies) if accuracy is not None]
    return [c for accuracy, _, c in sorted(known)[:WORST_CLASSES] if accuracy < 100]


def surest_mistakes(logits: Tensor, images: ImageSet, classes: Sequence[int]) -> tuple[list[int], list[Mistake]]:
    """The mistakes of most confidence, class by class.

    Args:
        logits: Fused logits in class order, shape (N, C).
        images: The N images.
        classes: Classes to look at.

    Returns:
        Places of the images, and the mistakes: at most `EACH` of each class.
    """
    confidence, predicted = logits.double().softmax(-1).max(-1)
    places = []
    for label in classes:
        wrong = ((images.labels == label) & (predicted != label)).nonzero().flatten()
        places += wrong[confidence[wrong].argsort(descending=True, stable=True)][:EACH].tolist()
    return places, [
        Mistake(
            label=int(images.labels[place]),
            predicted=int(predicted[place]),
            confidence=round(100 * float(confidence[place]), 2),
            image=images.names[place],
        )
        for place in places
    ]


def picture(folder: Path, number: int) -> Path:
    """Where the picture of a mistake lies: a name made of its number alone, whatever a file says."""
    return folder / "mistakes" / f"{number:02d}.png"


def read_confusion(folder: Path) -> NDArray[np.int64] | None:
    """``confusion.csv`` of a run folder, if it has one.

    Args:
        folder: Run folder.

    Returns:
        Rows of (true class, predicted class, images), shape (R, 3), or None.
    """
    path = folder / CONFUSION
    if not path.is_file():
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = [[int(row[key]) for key in ("true", "predicted", "images")] for row in csv.DictReader(file)]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _confusion_rows(predicted: Tensor, images: ImageSet) -> list[dict[str, int | str]]:
    pairs, numbers = np.unique(np.stack([images.labels.numpy(), predicted.numpy()], 1), axis=0, return_counts=True)
    names = images.class_names
    return [
        {"true": true, "predicted": taken, "images": number, "true_name": names[true], "predicted_name": names[taken]}
        for (true, taken), number in zip(pairs.tolist(), numbers.tolist(), strict=True)
    ]
