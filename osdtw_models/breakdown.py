"""Where a model is right and wrong: class by class, between groups of frequency, and by how sure it was."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

from osdtw_models.evaluation import CALIBRATION_BINS, frequency_groups

Column = list[float | None]


class Reliability(TypedDict):
    """Predictions by confidence, in bins of equal width: their number, mean confidence and accuracy (%)."""

    images: list[int]
    confidence: Column
    accuracy: Column


class Breakdown(TypedDict):
    """Everything about a set of predictions that one number hides; percent, None where there is nothing to count.

    ``precision``, ``recall`` and ``f1`` are by class; ``groups`` names the groups of frequency that have classes, and
    row g of ``group_confusion`` says where the predictions for images of group g fall.
    """

    precision: Column
    recall: Column
    f1: Column
    groups: list[str]
    group_confusion: list[Column]
    reliability: Reliability


def breakdown(logits: Tensor, labels: Tensor, class_counts: Sequence[int]) -> Breakdown:
    """Break predictions down.

    Args:
        logits: Fused logits in class order, shape (N, C).
        labels: Class labels, shape (N,).
        class_counts: Training images per class, length C; decides the groups.

    Returns:
        The breakdown, JSON-ready.
    """
    num_classes = logits.shape[1]
    predicted = logits.argmax(-1)
    confusion = torch.zeros(num_classes, num_classes, dtype=torch.float64)
    confusion.index_put_((labels, predicted), torch.ones(len(labels), dtype=torch.float64), accumulate=True)
    groups = {name: classes for name, classes in frequency_groups(class_counts).items() if classes}
    rows = torch.stack([confusion[classes].sum(0) for classes in groups.values()])
    between = torch.stack([rows[:, classes].sum(1) for classes in groups.values()], 1)
    right = confusion.diagonal()
    return {
        "precision": _percent(right, confusion.sum(0)),
        "recall": _percent(right, confusion.sum(1)),
        "f1": _percent(2 * right, confusion.sum(0) + confusion.sum(1)),
        "groups": list(groups),
        "group_confusion": [_percent(row, row.sum().expand(len(row))) for row in between],
        "reliability": reliability(logits.double().softmax(-1), labels),
    }


def reliability(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> Reliability:
    """What a reliability diagram shows (Guo et al. 2017); its gaps, weighed by images, are the calibration error.

    Args:
        probabilities: Class probabilities, shape (N, C).
        labels: Class labels, shape (N,).
        bins: Number of bins of equal width; each is open on the left and closed on the right.

    Returns:
        One entry per bin.
    """
    confidence, predicted = probabilities.max(-1)
    place = torch.bucketize(confidence, torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)[1:-1])
    images = torch.bincount(place, minlength=bins).double()
    sure = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, confidence.double())
    right = torch.zeros(bins, dtype=torch.float64).index_add_(0, place, (predicted == labels).double())
    return {
        "images": [int(number) for number in images],
        "confidence": _percent(sure, images),
        "accuracy": _percent(right, images),
    }


def _percent(part: Tensor, whole: Tensor) -> Column:
    pairs = zip(part.tolist(), whole.tolist(), strict=True)
    return [round(100 * each / all_, 2) if all_ else None for each, all_ in pairs]
