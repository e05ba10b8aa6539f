"""Images -> top-k classes, with what each task said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from timm.data import resolve_model_data_config

from osdtw_models.load import load_model
from osdtw_models.names import printable
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_models.pixels import IMAGE_SUFFIXES, Pixels, fit_image, open_image
from osdtw_models.prior import Array, resolve_prior, under_prior

Picture = str | Path | Image.Image | Pixels


class Classifier(Protocol):
    """Anything that turns pixels (B, H, W, C) into logits: a network or an ONNX file."""

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

    @property
    def crop_pct(self) -> float:
        """Part of the scaled image that the centre crop keeps."""

    @property
    def interpolation(self) -> str:
        """Interpolation of the scaling."""

    @property
    def class_counts(self) -> Sequence[int] | None:
        """Training images per class, if known."""

    def outputs(self, images: Pixels) -> list[Array]:
        """Fused logits (B, classes), then the logits of every task, "none" last."""


def preparation(model: OsdtwNet) -> dict[str, Any]:
    """What images must be like for a network.

    Args:
        model: The network.

    Returns:
        As timm's ``resolve_model_data_config`` tells it.

    Raises:
        ValueError: If it does not take square RGB images, or has no classes.
    """
    data: dict[str, Any] = resolve_model_data_config(model)
    channels, height, width = data["input_size"]
    if model.in_chans != 3 or channels != 3 or height != width or not model.num_classes:
        raise ValueError(
            f"This network takes {model.in_chans} x {height} x {width} and knows {model.num_classes} classes; "
            "images are classified by networks that take square RGB images and have classes."
        )
    return data


class TorchClassifier:
    """A network as a `Classifier`.

    Args:
        model: The network, in evaluation mode.

    Raises:
        ValueError: If it does not take square RGB images, or has no classes.
    """

    def __init__(self, model: OsdtwNet) -> None:
        self.model = model
        names, data = model.pretrained_cfg.get("label_names"), preparation(model)
        self.label_names: list[str] | None = list(names) if names else None
        self.task_classes = model.partition.to_lists()
        self.class_counts: Sequence[int] | None = model.class_counts
        self.mean: Sequence[float] = data["mean"]
        self.std: Sequence[float] = data["std"]
        self.input_size: Sequence[int] = data["input_size"]
        self.crop_pct: float = data["crop_pct"]
        self.interpolation: str = data["interpolation"]

    @torch.inference_mode()
    def outputs(self, images: Pixels) -> list[Array]:
        """Fused logits (B, classes), then the logits of every task, "none" last, from pixels (B, H, W, C)."""
        weight = next(self.model.parameters())
        floats = np.stack([preprocess(image, self) for image in images])
        tasks = self.model.forward_outputs(torch.from_numpy(floats).to(weight))
        return [logits.float().cpu().numpy() for logits in (self.model.fuse(tasks), *self.model.calibrated(tasks))]


@dataclass(frozen=True)
class Prediction:
    """What was seen in one image.

    Args:
        name: The image: its file, or its place in the batch.
        labels: The k most probable classes, by name.
        probabilities: Their fused probabilities under the prior.
        tasks: Index of the task that each of them belongs to; 0 for a network of one task, and for experts.
        none: Probability of "none" by each task; empty where tasks have none.
    """

    name: str
    labels: list[str]
    probabilities: list[float]
    tasks: list[int]
    none: list[float]

    def row(self) -> dict[str, Any]:
        """One row of a table: the image, label, probability and task of each of the k classes, each task's "none"."""
        row: dict[str, Any] = {"image": self.name}
        for i, best in enumerate(zip(self.labels, self.probabilities, self.tasks, strict=True), 1):
            row |= dict(zip((f"label{i}", f"probability{i}", f"task{i}"), best, strict=True))
        return row | {f"none{k}": value for k, value in enumerate(self.none)}


class Predictor:
    """Images in, most probable classes out.

    Args:
        source: A released name, a run folder, "hf-hub:org/name", or a `Classifier` such as
            `osdtw_export.runtime.OnnxClassifier`.
        prior: How frequent classes are where the network will be used: "balanced", "training", a file, or one weight
            per class; see `osdtw_models.prior`.
        topk: Classes to return per image.
        batch_size: Images per pass.

    Raises:
        ValueError: If an argument is out of range or the prior does not fit the network.
    """

    def __init__(
        self,
        source: str | Path | Classifier,
        prior: str | Sequence[float] = "balanced",
        topk: int = 5,
        batch_size: int = 64,
    ) -> None:
        for name, value in (("topk", topk), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1.")
        self.classifier = TorchClassifier(load_model(source)) if isinstance(source, str | Path) else source
        self.topk, self.batch_size = topk, batch_size
        self.label_names = self.classifier.label_names
        self.partition = ClassPartition(tuple(map(tuple, self.classifier.task_classes)))
        self.task_of = self.partition.task_of_class.tolist()
        self.prior = resolve_prior(prior, self.classifier.class_counts, self.label_names)
        under_prior(
            np.zeros((1, len(self.task_of)), dtype=np.float32), self.prior
        )  # refuse now, not at the first image

    def __call__(self, images: Picture | Sequence[Picture]) -> list[Prediction]:
        """Classify images.

        Args:
            images: Files, folders, PIL images, or arrays (H, W, 3) of uint8; one or many of them.

        Returns:
            One prediction per image, in order; a folder stands for all images in it.
        """
        given = [images] if isinstance(images, str | Path | Image.Image | np.ndarray) else list(images)
        flat: list[Picture] = []
        for each in given:
            flat.extend(image_files([each]) if isinstance(each, str | Path) else [each])
        return list(self.stream(flat))

    def stream(self, images: Sequence[Picture]) -> Iterator[Prediction]:
        """The same for files and images only, batch by batch: no more than a batch is in memory."""
        for start in range(0, len(images), self.batch_size):
            chosen = images[start : start + self.batch_size]
            names = [
                printable(str(image)) if isinstance(image, str | Path) else str(start + i)
                for i, image in enumerate(chosen)
            ]
            yield from self.from_pixels(np.stack([self._pixels(image) for image in chosen]), names)

    def from_pixels(self, pixels: Pixels, names: Sequence[str]) -> list[Prediction]:
        """Classify images that have the network's size already.

        Args:
            pixels: RGB, shape (B, H, W, 3), uint8.
            names: What each image is called.

        Returns:
            One prediction per image.
        """
        fused, *tasks = self.classifier.outputs(pixels)
        probabilities = softmax(under_prior(fused, self.prior))
        none = [softmax(logits)[:, -1] for logits in tasks] if self.partition.has_none else []
        found = []
        for i, (name, row) in enumerate(zip(names, probabilities, strict=True)):
            best = np.argsort(-row, kind="stable")[: self.topk].tolist()
            labels = [self.label_names[c] if self.label_names else str(c) for c in best]
            each = [float(task[i]) for task in none]
            found.append(Prediction(name, labels, [float(row[c]) for c in best], [self.task_of[c] for c in best], each))
        return found

    def _pixels(self, image: Picture) -> Pixels:
        known = self.classifier
        if not isinstance(image, str | Path):
            picture = (image if isinstance(image, Image.Image) else Image.fromarray(image)).convert("RGB")
        else:
            picture = open_image(Path(image))
        return fit_image(picture, known.input_size[-1], known.crop_pct, known.interpolation)


def preprocess(pixels: Pixels, classifier: Classifier) -> Array:
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
            found = sorted(f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES and f.is_file())
            if not found:
                raise FileNotFoundError(f"No image in {path}; images end in {', '.join(IMAGE_SUFFIXES)}.")
            files.extend(found)
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"No file {path}; give image files or folders.")
    return files
