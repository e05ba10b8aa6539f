"""How good a model is on a long-tailed problem: overall, by class frequency, and whether its confidence is right.

Evaluators yield ``(name, value)``; who prints or saves them is someone else's job. Accuracies and the
calibration error are in percent; groups average the accuracies of their classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from osdtw_models.image_set import normalise
from osdtw_models.lazy_images import LazyImages
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition

MANY_ABOVE = 100
FEW_BELOW = 20
CALIBRATION_BINS = 15


def evaluate_logits(
    logits: Tensor,
    labels: Tensor,
    partition: ClassPartition | None = None,
    class_counts: Sequence[int] | None = None,
) -> Iterator[tuple[str, float]]:
    """All figures of a set of predictions.

    Args:
        logits: Fused logits in class order, shape (N, C).
        labels: Class labels, shape (N,).
        partition: Tasks; adds the accuracy of each task's classes (head, tail for two) and how often the
            prediction falls into the right task.
        class_counts: Training images per class, length C; adds many / medium / few (protocol: > 100,
            20 to 100, < 20 images).

    Yields:
        ("overall", %), ("balanced", %), groups, ("macro_f1", %), ("nll", nats), ("ece", %).
    """
    logits, labels = logits.double(), labels.long()
    predicted = logits.argmax(-1)
    yield "overall", 100 * (predicted == labels).double().mean().item()
    accuracies = class_accuracies(predicted, labels, logits.shape[1])
    yield "balanced", mean_accuracy(accuracies, range(logits.shape[1]))
    if partition is not None and partition.has_none:
        for name, classes in zip(task_names(partition.num_tasks), partition.to_lists(), strict=True):
            yield name, mean_accuracy(accuracies, classes)
        task = partition.task_of_class
        yield "task_right", 100 * (task[predicted] == task[labels]).double().mean().item()
    if class_counts is not None:
        for name, classes in frequency_groups(class_counts).items():
            yield name, mean_accuracy(accuracies, classes)
    yield "macro_f1", macro_f1(predicted, labels, logits.shape[1])
    yield "nll", torch.nn.functional.cross_entropy(logits, labels).item()
    yield "ece", calibration_error(logits.softmax(-1), labels)


@torch.no_grad()
def predict_images(model: OsdtwNet, images: Tensor | LazyImages, batch_size: int = 100) -> Tensor:
    """Fused logits of raw images, normalised as the model's config says.

    Args:
        model: The network, in evaluation mode.
        images: Pixels, shape (N, channels, H, W), uint8, or what gives such pixels when it is indexed.
        batch_size: Images per pass.

    Returns:
        Logits, shape (N, C), float32.
    """
    if not len(images):  # a process's share of a few
        return torch.zeros(0, model.num_classes)
    mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
    model = model.to(memory_format=torch.channels_last)
    return torch.cat([model(normalise(batch, mean, std)) for batch in images.split(batch_size)])


def task_names(num_tasks: int) -> list[str]:
    """What the figures call the tasks: head and tail where there are two."""
    return ["head", "tail"] if num_tasks == 2 else [f"task{k}" for k in range(num_tasks)]


def frequency_groups(class_counts: Sequence[int]) -> dict[str, list[int]]:
    """Classes with many (> 100), medium (20 to 100) and few (< 20) training images."""
    groups: dict[str, list[int]] = {"many": [], "medium": [], "few": []}
    for c, count in enumerate(class_counts):
        groups["many" if count > MANY_ABOVE else "few" if count < FEW_BELOW else "medium"].append(c)
    return groups


def class_accuracies(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Accuracy of each class in percent, shape (C,); NaN for a class without images."""
    right = torch.bincount(labels[predicted == labels], minlength=num_classes).double()
    return 100 * right / torch.bincount(labels, minlength=num_classes)


def macro_f1(predicted: Tensor, labels: Tensor, num_classes: int) -> float:
    """Mean F1 in percent over the classes that have images: 2 right / (predicted + there) of each."""
    there = torch.bincount(labels, minlength=num_classes).double()
    right = torch.bincount(labels[predicted == labels], minlength=num_classes).double()
    each = 200 * right / (torch.bincount(predicted, minlength=num_classes) + there)
    return each[there > 0].mean().item()


def mean_accuracy(accuracies: Tensor, classes: Sequence[int]) -> float:
    """Mean accuracy over the given classes that have images, in percent; NaN if none has."""
    return accuracies[list(classes)].nanmean().item() if len(classes) else float("nan")


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = CALIBRATION_BINS) -> float:
    """Expected calibration error in percent: |confidence - accuracy| averaged over equal-width bins (Guo 2017).

    Args:
        probabilities: Class probabilities, shape (N, C).
        labels: Class labels, shape (N,).
        bins: Number of bins; each is open on the left and closed on the right, as in MiSLAS.

    Returns:
        The error in percent.
    """
    confidence, predicted = probabilities.max(-1)
    right = (predicted == labels).double()
    edges = torch.linspace(0, 1, bins + 1, dtype=confidence.dtype)
    place = torch.bucketize(confidence, edges[1:-1])
    gap = torch.zeros(bins, dtype=torch.float64)
    gap.index_add_(0, place, (confidence - right).double())
    return 100 * (gap.abs().sum() / len(labels)).item()
