"""An OSDTW ONNX file on ONNX Runtime: images in, classes out, no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from osdtw_export.binding import BoundSession
from osdtw_export.guard import check_content
from osdtw_export.interface import INPUT, check_interface, image_shape, prepared
from osdtw_export.metadata import Metadata
from osdtw_export.providers import open_session, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray


class OnnxClassifier:
    """A classifier read from an ONNX file that `osdtw_export.export` wrote. Threads may share one.

    Images are pixels as decoders give them, RGB, (B, H, W, C), uint8; or normalised floats (B, C, H, W), which a file
    that normalises by itself (``--uint8``) does not take.

    Args:
        path: The ONNX file.
        providers: "tensorrt", "cuda", "cpu" or ONNX Runtime's own names, best first. All of them must really run:
            there is no silent fall back. By default CUDA where it is installed, else the CPU.
        threads: Threads of one operator; by default what the file was tuned for, else ONNX Runtime's own choice.
        batch_size: Images per run; more are split. A file of one batch size runs that size, filled up with zeros.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not an OSDTW ONNX file, a provider is not available, or a number is below 1.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: str | Sequence[str] | None = None,
        threads: int | None = None,
        batch_size: int = 64,
    ) -> None:
        if batch_size < 1 or (threads is not None and threads < 1):
            raise ValueError(f"batch_size is {batch_size} and threads {threads}; both must be at least 1.")
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"There is no file {self.path}; write one with osdtw-export --onnx.")
        content = Path(self.path).read_bytes()
        try:
            self.metadata = Metadata.from_props(check_content(content))
        except ValueError as error:
            raise ValueError(f"{self.path} is no OSDTW file, it {error}; write it with osdtw-export --onnx.") from error
        known = self.metadata
        tuned = min(known.threads, os.cpu_count() or 1) if known.threads else None
        self._session = open_session(
            content, self.path, providers, threads or tuned, known.batch is not None, known.precision == "fp16"
        )
        self.batch_size = known.batch or batch_size
        try:
            check_interface(self._session, known)
        except ValueError as error:
            raise ValueError(f"{self.path} is no OSDTW file, it {error}; write it again.") from error
        self._bound = None
        if known.batch:
            blank = np.zeros((known.batch, *image_shape(known)), np.uint8 if known.uint8 else np.float32)
            self._bound = BoundSession(self._session, INPUT, blank, known.output_sizes)

    def classify(self, images: NDArray[Any], topk: int = 5) -> list[list[tuple[str, float]]]:
        """The most probable classes of every image.

        Args:
            images: Images, see the class.
            topk: Classes per image.

        Returns:
            Per image names (or numbers, if the file has no names) and fused probabilities, best first.
        """
        names = self.label_names or [str(c) for c in range(self.num_classes)]
        return [
            [(names[c], float(row[c])) for c in np.argsort(-row, kind="stable")[:topk]]
            for row in self.probabilities(images)
        ]

    def probabilities(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Fused probabilities.

        Args:
            images: Images, see the class.

        Returns:
            Shape (B, classes); every row sums to 1.
        """
        logits = self.logits(images)
        shifted = np.exp(logits - logits.max(-1, keepdims=True))
        fused: NDArray[np.float32] = shifted / shifted.sum(-1, keepdims=True)
        return fused

    def logits(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Fused class logits.

        Args:
            images: Images, see the class.

        Returns:
            Logits in the original class order, shape (B, classes).
        """
        return self.outputs(images, ["logits"])[0]

    def task_logits(self, images: NDArray[Any]) -> list[NDArray[np.float32]]:
        """Logits of every task.

        Args:
            images: Images, see the class.

        Returns:
            K arrays of shape (B, n_k + 1), "none" last; for one task, and for experts, of shape (B, classes).
        """
        return self.outputs(images, self.output_names[1 : 1 + len(self.task_classes)])

    def outputs(self, images: NDArray[Any], names: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
        """Any outputs of the file.

        Args:
            images: Images, see the class.
            names: Names of the outputs; by default "logits" and those of every task.

        Returns:
            One array per name, shape (B, outputs).

        Raises:
            ValueError: If the images have another shape or type, or hold what is not a finite number; see
                `osdtw_export.interface.prepared`; or ONNX Runtime cannot run the file on them.
        """
        names = list(names or self.output_names[: 1 + len(self.task_classes)])
        images = prepared(images, self.metadata)
        chunks = [self._run(images[i : i + self.batch_size], names) for i in range(0, len(images), self.batch_size)]
        if len(chunks) == 1:
            return chunks[0]
        sizes = self.metadata.output_sizes
        blank = [np.zeros((0, sizes[name]), np.float32) for name in names]
        return [np.concatenate(parts) for parts in zip(blank, *chunks, strict=True)]

    def _run(self, images: NDArray[Any], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """One run of at most `batch_size` images."""
        missing = self.batch_size - len(images) if self._bound else 0
        filled = np.pad(images, [(0, missing), *[(0, 0)] * 3]) if missing else images
        try:
            found = self._bound.run(filled, names) if self._bound else self._session.run(names, {INPUT: images})
        except Exception as error:  # each of ONNX Runtime's errors is its own child of Exception
            raise ValueError(f"ONNX Runtime cannot run {self.path} ({reason(error)}).") from error
        return [output[: len(images)] for output in found]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs: "logits", then "logits_task0" and so on."""
        return list(self.metadata.output_sizes)

    @property
    def providers(self) -> list[str]:
        """Execution providers that run the file."""
        names: list[str] = self._session.get_providers()
        return names

    @property
    def architecture(self) -> str:
        """timm name of the network."""
        return self.metadata.architecture

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.metadata.num_classes

    @property
    def label_names(self) -> list[str] | None:
        """Name of each class, or None if the file carries no names."""
        return self.metadata.label_names

    @property
    def task_classes(self) -> list[list[int]]:
        """Class indices of each task, in the order of the task's logits."""
        return self.metadata.task_classes

    @property
    def input_size(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return self.metadata.input_size

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel to subtract, of images scaled to 0 .. 1."""
        return self.metadata.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel to divide by."""
        return self.metadata.std

    @property
    def crop_pct(self) -> float:
        """Share of the resized image that the centre crop keeps."""
        return self.metadata.crop_pct

    @property
    def interpolation(self) -> str:
        """Interpolation of the resize."""
        return self.metadata.interpolation

    @property
    def class_counts(self) -> list[int] | None:
        """Training images per class, or None if the file does not say."""
        return self.metadata.class_counts
