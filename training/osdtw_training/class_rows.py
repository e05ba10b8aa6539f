"""Figures class by class, group by group and overall: the rows of ``results.csv``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from osdtw_models.evaluation import frequency_groups


class Row(TypedDict):
    """Figures of all images (``of`` is "all"), of a group of classes ("group") or of one class ("class").

    Accuracy, precision and F1 in percent: a group's accuracy and the overall F1 are means over classes; None where
    there is nothing to count.
    ``taken_for`` is the wrong class that most images of the class go to, with their share in percent.
    """

    of: str
    name: str
    group: str
    training_images: int
    images: int | None
    accuracy: float | None
    precision: float | None
    f1: float | None
    taken_for: str
    taken_share: float | None


def rows_of(
    names: Sequence[str], counts: Sequence[int], figures: Mapping[str, Any], confusion: NDArray[np.int64] | None
) -> list[Row]:
    """All rows: overall, then the groups that have classes, then the classes in class order.

    Args:
        names: Names of the C classes.
        counts: Training images per class, those held out of them counted.
        figures: Figures of a set of images, as ``results.json`` has them.
        confusion: See `osdtw_training.mistakes.read_confusion`.

    Returns:
        The rows.
    """
    classes = _class_rows(names, counts, figures, confusion)
    summary = [_summary("all", "all", classes, figures["overall"], figures["macro_f1"])]
    for group in frequency_groups(counts):
        own = [row for row in classes if row["group"] == group]
        if own:
            summary.append(_summary("group", group, own, figures[group]))
    return [*summary, *classes]


def _class_rows(
    names: Sequence[str], counts: Sequence[int], figures: Mapping[str, Any], confusion: NDArray[np.int64] | None
) -> list[Row]:
    unknown = [None] * len(names)
    split = figures.get("breakdown", {})
    group_of = {c: group for group, classes in frequency_groups(counts).items() for c in classes}
    rows = [
        Row(
            of="class",
            name=name,
            group=group_of[c],
            training_images=counts[c],
            images=None if confusion is None else 0,
            accuracy=figures["per_class"][c],
            precision=split.get("precision", unknown)[c],
            f1=split.get("f1", unknown)[c],
            taken_for="",
            taken_share=None,
        )
        for c, name in enumerate(names)
    ]
    if confusion is not None:
        _add_confusion(rows, confusion)
    return rows


def _add_confusion(rows: list[Row], confusion: NDArray[np.int64]) -> None:
    sizes = np.bincount(confusion[:, 0], weights=confusion[:, 2], minlength=len(rows)).astype(int).tolist()
    for row, size in zip(rows, sizes, strict=True):
        row["images"] = size
    wrong = confusion[confusion[:, 0] != confusion[:, 1]]
    for true, taken, images in wrong[wrong[:, 2].argsort(kind="stable")].tolist():  # the most frequent one stays
        rows[true]["taken_for"] = rows[taken]["name"]
        rows[true]["taken_share"] = round(100 * images / sizes[true], 2)


def _summary(of: str, name: str, rows: Sequence[Row], accuracy: float | None, f1: float | None = None) -> Row:
    sizes = [row["images"] for row in rows if row["images"] is not None]
    return Row(
        of=of,
        name=name,
        group="",
        training_images=sum(row["training_images"] for row in rows),
        images=sum(sizes) if sizes else None,
        accuracy=accuracy,
        precision=None,
        f1=f1,
        taken_for="",
        taken_share=None,
    )
