"""Images -> top-k classes, with what each task said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from osdtw_models.network import OsdtwNet
from osdtw_models.pixels import IMAGE_SUFFIXES, read_pixels

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


class Classifier(Protocol):
    """Anything that turns normalised images (B, C, H, W) into logits: a network or an ONNX file."""

    @property
    def label_names(self) -> list[str] | None:
        """Name of each class, if known."""

    @property
    def task_classes(self) -> list[list[int]]:
        """Class indices of each task."""

    @property
    def mean(self) -> Sequence[float]:
        """Mean per channel, of pixels scaled to 0 .. 1."""

    @property
    def std(self) -> Sequence[float]:
        """Standard deviation per channel."""

    @property
    def input_size(self) -> Sequence[int]:
        """Channels, height and width of the images."""

    def outputs(self, images: Array) -> list[Array]:
        """Fused logits (B, classes), then the logits of every task, "none" last."""


class TorchClassifier:
    """A network as a `Classifier`.

    Args:
        model: The network, in evaluation mode.
    """

    def __init__(self, model: OsdtwNet) -> None:
        self.model = model
        config = model.pretrained_cfg
        self.label_names: list[str] | None = list(config["label_names"]) if config.get("label_names") else None
        self.task_classes = model.partition.to_lists()
        self.mean: Sequence[float] = config["mean"]
        self.std: Sequence[float] = config["std"]
        self.input_size: Sequence[int] = config["input_size"]

    @torch.inference_mode()
    def outputs(self, images: Array) -> list[Array]:
        """Fused logits (B, classes), then the logits of every task, "none" last, from images (B, C, H, W)."""
        tasks = self.model.forward_tasks(torch.from_numpy(images))
        return [logits.numpy() for logits in (self.model.fuse(tasks), *tasks)]


@dataclass(frozen=True)
class Prediction:
    """What was seen in one image.

    Args:
        file: The image.
        labels: The k most probable classes, by name.
        probabilities: Their fused probabilities.
        tasks: Index of the task that each of them belongs to.
        none: Probability of "none" by each task; empty for a network of one task.
    """

    file: Path
    labels: list[str]
    probabilities: list[float]
    tasks: list[int]
    none: list[float]


def predict_files(
    classifier: Classifier, files: Sequence[Path], topk: int = 5, batch_size: int = 64
) -> list[Prediction]:
    """Classify image files.

    Args:
        classifier: The network or ONNX file.
        files: Image files.
        topk: Classes to return per image.
        batch_size: Images per pass.

    Returns:
        One prediction per file, in order.

    Raises:
        ValueError: If a file is not a readable image.
    """
    names = classifier.label_names
    task_of = {c: k for k, classes in enumerate(classifier.task_classes) for c in classes}
    predictions = []
    for start in range(0, len(files), batch_size):
        chosen = files[start : start + batch_size]
        images = np.stack([preprocess(read_pixels(file, classifier.input_size[-1]), classifier) for file in chosen])
        fused, *tasks = classifier.outputs(images)
        probabilities = softmax(fused)
        none = [softmax(logits)[:, -1] for logits in tasks] if len(tasks) > 1 else []
        for i, (file, row) in enumerate(zip(chosen, probabilities, strict=True)):
            best = np.argsort(-row, kind="stable")[:topk].tolist()
            predictions.append(
                Prediction(
                    file,
                    [names[c] if names else str(c) for c in best],
                    [float(row[c]) for c in best],
                    [task_of[c] for c in best],
                    [float(task[i]) for task in none],
                )
            )
    return predictions


def preprocess(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], classifier: Classifier) -> Array:
    """Normalise one image.

    Args:
        pixels: RGB, shape (H, W, 3), uint8.
        classifier: Gives mean and std.

    Returns:
        Shape (3, H, W), float32.
    """
    mean = np.asarray(classifier.mean, dtype=np.float32)
    std = np.asarray(classifier.std, dtype=np.float32)
    floats = (pixels.astype(np.float32) / np.float32(255) - mean) / std
    return floats.transpose(2, 0, 1).astype(np.float32)


def softmax(logits: Array) -> Array:
    """Probabilities along the last axis."""
    shifted = np.exp(logits - logits.max(-1, keepdims=True))
    return (shifted / shifted.sum(-1, keepdims=True)).astype(np.float32)


def image_files(paths: Sequence[str | Path]) -> list[Path]:
    """The files named, and for folders all images below them, in alphabetical order.

    Returns:
        Image files.

    Raises:
        FileNotFoundError: If a path does not exist, or a folder holds no image.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
            if not found:
                raise FileNotFoundError(f"No image in {path}; images end in {', '.join(IMAGE_SUFFIXES)}.")
            files.extend(found)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"No file {path}; give image files or folders.")
    return files
