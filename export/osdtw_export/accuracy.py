"""What a smaller precision costs in accuracy, on a whole test set: overall, and where images are many, medium, few."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from osdtw_export.metadata import Metadata
from osdtw_export.runtime import OnnxClassifier
from osdtw_models.datasets import has_split, read_images
from osdtw_models.evaluation import evaluate_logits
from osdtw_models.image_set import ImageSet

FIGURES = ("overall", "many", "medium", "few")


@dataclass(frozen=True)
class Data:
    """Images to calibrate on, and to measure on.

    Args:
        train: Labelled images that set the ranges of int8.
        test: Labelled images that tell accuracy, or None if nobody wants to know.
        apart: Whether no image is in both.
    """

    train: ImageSet
    test: ImageSet | None
    apart: bool


def read_data(metadata: Metadata, data: str, data_dir: str | None = None) -> Data:
    """Read the images, fitted as the network wants them.

    Args:
        metadata: What the file will say about itself.
        data: See `osdtw_models.datasets.read_images`.
        data_dir: Likewise.

    Returns:
        Both sets; the same one twice where the folder has no test images of its own.

    Raises:
        ValueError: If the classes are not those of the network.
    """
    fitting = (metadata.input_size[-1], data_dir, metadata.crop_pct, metadata.interpolation)
    names = metadata.label_names
    apart = has_split(data, "test", data_dir)
    test = read_images(data, "test", *fitting, lazy=True, class_names=names)
    if len(test.class_names) != metadata.num_classes or (names and tuple(names) != test.class_names):
        raise ValueError(
            f"The {len(test.class_names)} classes of {data} are not the {metadata.num_classes} of this network; give "
            "images of the classes that it was trained on."
        )
    return Data(read_images(data, "train", *fitting, lazy=True, class_names=names) if apart else test, test, apart)


def batches(images: ImageSet, indices: Sequence[int], size: int) -> Iterator[NDArray[np.uint8]]:
    """Pixels of some images, batch by batch.

    Args:
        images: The images.
        indices: Which of them.
        size: Images per batch.

    Yields:
        Shape (B, H, W, C), uint8.
    """
    for batch in images.subset(indices).images.split(size):
        yield batch.permute(0, 2, 3, 1).contiguous().numpy()


def accuracies(path: str | os.PathLike[str], test: ImageSet, threads: int | None = None) -> dict[str, float]:
    """Accuracies of a file on a test set, in percent.

    Args:
        path: The file.
        test: The images.
        threads: See `OnnxClassifier`.

    Returns:
        Overall; many, medium and few where the file tells how often each class was in training.
    """
    classifier = OnnxClassifier(path, "cpu", threads)
    logits = [classifier.logits(pixels) for pixels in batches(test, range(len(test)), 100)]
    found = dict(
        evaluate_logits(torch.from_numpy(np.concatenate(logits)), test.labels, class_counts=classifier.class_counts)
    )
    return {name: found[name] for name in FIGURES if name in found}


def accuracy_cost(
    before: str | os.PathLike[str], after: str | os.PathLike[str], test: ImageSet
) -> dict[str, tuple[float, float]]:
    """Accuracies of two files on a test set.

    Args:
        before: The float32 file.
        after: The same in fewer bits.
        test: The images.

    Returns:
        By figure, in percent: of the one and of the other.
    """
    ours, theirs = accuracies(before, test), accuracies(after, test)
    return {name: (value, theirs[name]) for name, value in ours.items()}
