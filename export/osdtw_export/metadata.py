"""What an ONNX file says about itself: tasks, labels, preprocessing, origin.

ONNX keeps pairs of strings. Each field is one pair: text as it is, everything else as JSON. The pair
``osdtw_format`` marks the file as ours and names this layout.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from osdtw_export.variant import PRECISIONS

FORMAT_KEY, FORMAT = "osdtw_format", "2"
INTERPOLATIONS = ("bilinear", "bicubic")
MAX_SIDE, LEAST_CROP = 8192, 0.1  # pixels; a smaller part of an image means a larger image
MOST_NUMBERS = 1 << 28  # in one batch of images


@dataclass(frozen=True)
class Metadata:
    """Everything a program needs to use the file.

    Args:
        architecture: timm name of the network.
        source: Where its weights come from, in the words of whoever exported it.
        task_classes: Class indices of each task, in the order of the task's logits.
        label_names: Name of each class, or None.
        shared_depth: Number of blocks that all tasks share.
        fusion: Rule that fused the task logits.
        input_size: Channels, height, width.
        mean: Mean per channel, of images scaled to 0 .. 1.
        std: Standard deviation per channel.
        crop_pct: Share of the resized image that the centre crop keeps.
        interpolation: Interpolation of the resize.
        weights_sha256: Hash of the weights as safetensors: that of timm's ``model.safetensors``.
        versions: Version of each package that made the file.
        class_counts: Training images per class, or None.
        packing: How its decoders run: "none", "grouped" or "dense", see `osdtw_export.pack`.
        precision: "fp32", "fp16" or "int8".
        batch: Images per run, or None for any number.
        uint8: Whether it takes pixels (batch, H, W, channels), uint8, instead of normalised floats.
        softmax: Whether it has the output "probabilities".
        threads: Threads that were fastest where it was tuned, or None.
        tuning: What was timed there, one row per candidate, or None.

    Raises:
        ValueError: If the fields contradict each other.
    """

    architecture: str
    source: str
    task_classes: list[list[int]]
    label_names: list[str] | None
    shared_depth: int
    fusion: str
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str
    weights_sha256: str
    versions: dict[str, str]
    class_counts: list[int] | None = None
    packing: str = "none"
    precision: str = "fp32"
    batch: int | None = None
    uint8: bool = False
    softmax: bool = False
    threads: int | None = None
    tuning: list[dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        tasks = self.task_classes[:1] if self.experts else self.task_classes
        if sorted(c for task in tasks for c in task) != list(range(self.num_classes)):
            raise ValueError("task_classes must list every class exactly once, or all of them in every task.")
        names = self.label_names
        if names is not None and (len(names) != self.num_classes or not all(map(_is_name, names))):
            raise ValueError(f"label_names must be {self.num_classes} names, one per class, but has {len(names)}.")
        counts = self.class_counts
        if counts is not None and (len(counts) != self.num_classes or not all(isinstance(n, int) for n in counts)):
            raise ValueError(f"class_counts must be {self.num_classes} numbers, one per class.")
        if len(self.input_size) != 3 or not all(isinstance(n, int) and 0 < n <= MAX_SIDE for n in self.input_size):
            raise ValueError(f"input_size must be channels, height and width, each at most {MAX_SIDE}.")
        for values in (self.mean, self.std):
            if len(values) != self.input_size[0] or not all(math.isfinite(value) for value in values):
                raise ValueError(f"mean and std must have one number per channel, {self.input_size[0]} each.")
        if min(self.std) <= 0:
            raise ValueError("std must be positive.")
        if not isinstance(self.crop_pct, int | float) or not LEAST_CROP <= self.crop_pct <= 1:
            raise ValueError(f"crop_pct must be a part of the image, {LEAST_CROP} to 1.")
        if self.interpolation not in INTERPOLATIONS or self.precision not in PRECISIONS:
            raise ValueError(f"interpolation and precision must be of {', '.join((*INTERPOLATIONS, *PRECISIONS))}.")
        for name in ("batch", "threads"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a positive number or null.")
        if (self.batch or 1) * math.prod(self.input_size) > MOST_NUMBERS:
            raise ValueError(f"batch and input_size must be at most {MOST_NUMBERS} numbers.")
        if not (isinstance(self.uint8, bool) and isinstance(self.softmax, bool)):
            raise ValueError("uint8 and softmax must be true or false.")

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(set().union(*self.task_classes))

    @property
    def experts(self) -> bool:
        """Whether every task has every class: then there is no "none"."""
        return len(self.task_classes) > 1 and all(task == self.task_classes[0] for task in self.task_classes)

    @property
    def open_none(self) -> bool:
        """Whether each task tells the classes behind its "none" apart: of such tasks the file has the mean."""
        return len(self.task_classes) > 1 and self.fusion == "mean" and not self.experts

    @property
    def output_sizes(self) -> dict[str, int]:
        """Name and width of every output in order: fused logits, each task's with "none", probabilities if any."""
        none = len(self.task_classes) > 1 and not self.experts
        tasks = {f"logits_task{k}": len(task) + none for k, task in enumerate(self.task_classes)}
        probabilities = {"probabilities": self.num_classes} if self.softmax else {}
        return {"logits": self.num_classes, **tasks, **probabilities}

    def to_props(self) -> dict[str, str]:
        """The fields as ONNX ``metadata_props``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        text = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
        return {FORMAT_KEY: FORMAT, **text}

    @classmethod
    def from_props(cls, props: Mapping[str, str]) -> Metadata:
        """Read the fields back.

        Args:
            props: ONNX ``metadata_props``.

        Returns:
            The metadata, equal to what was written.

        Raises:
            ValueError: If the pairs are not ours, or were changed into something that makes no sense.
        """
        if props.get(FORMAT_KEY) != FORMAT:
            raise ValueError(f"has no OSDTW metadata (key {FORMAT_KEY!r} with value {FORMAT!r})")
        try:
            values: dict[str, Any] = {
                f.name: props[f.name] if f.type == "str" else json.loads(props[f.name])
                for f in fields(cls)
                if f.name in props or f.name != "class_counts"  # files of before it have none
            }
            for name in ("input_size", "mean", "std"):
                values[name] = tuple(values[name])
            return cls(**values)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError) as error:
            raise ValueError(f"has damaged OSDTW metadata ({type(error).__name__}: {error})") from error


def _is_name(name: object) -> bool:
    """Whether a label can be written on one line: no control characters, and all of it Unicode."""
    return isinstance(name, str) and not any(unicodedata.category(c) in ("Cc", "Cs") for c in name)
