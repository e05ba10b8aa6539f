"""An OSDTW ONNX file on ONNX Runtime: images in, logits out, no PyTorch."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from osdtw_export.metadata import Metadata

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT = "pixel_values"
CPU = "CPUExecutionProvider"


class OnnxClassifier:
    """A classifier read from an ONNX file that `osdtw_export.graph` wrote.

    Args:
        path: The ONNX file.
        providers: ONNX Runtime execution providers in order of preference; the CPU by default. All of them
            must really run: there is no silent fall back.
        threads: Threads of one operator; ONNX Runtime's own choice by default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is not an OSDTW ONNX file, or a provider is not available.
    """

    def __init__(
        self, path: str | os.PathLike[str], providers: Sequence[str] | None = None, threads: int | None = None
    ) -> None:
        self.path = os.fspath(path)
        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"There is no file {self.path}; write one with osdtw-export --onnx.")
        self._session = _session(self.path, list(providers or [CPU]), threads)
        try:
            self.metadata = Metadata.from_props(self._session.get_modelmeta().custom_metadata_map)
            _check_interface(self._session, self.metadata)
        except ValueError as error:
            raise ValueError(f"{self.path} is no OSDTW file, {error}; write it with osdtw-export --onnx.") from error

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fused class logits.

        Args:
            images: Normalised images, shape (B, C, H, W), float32.

        Returns:
            Logits in the original class order, shape (B, classes).

        Raises:
            ValueError: If the images have another shape or type.
        """
        return self.outputs(images, ["logits"])[0]

    def task_logits(self, images: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Logits of every task.

        Args:
            images: Normalised images, shape (B, C, H, W), float32.

        Returns:
            K arrays of shape (B, n_k + 1), "none" last; for one task, and for experts, of shape (B, classes).

        Raises:
            ValueError: If the images have another shape or type.
        """
        return self.outputs(images, self.output_names[1:])

    def outputs(self, images: NDArray[np.float32], names: Sequence[str] | None = None) -> list[NDArray[np.float32]]:
        """Any outputs of the file from one run.

        Args:
            images: Normalised images, shape (B, C, H, W), float32.
            names: Names of the outputs; all of `output_names` by default.

        Returns:
            One array per name, shape (B, outputs).

        Raises:
            ValueError: If the images have another shape or type.
        """
        size = self.input_size
        if not isinstance(images, np.ndarray) or images.dtype != np.float32:
            kind = images.dtype if isinstance(images, np.ndarray) else type(images).__name__
            raise ValueError(f"The images must be a numpy array of float32, not {kind}; use astype(np.float32).")
        if images.ndim != 4 or images.shape[1:] != size:
            wanted = ", ".join(map(str, size))
            raise ValueError(f"The images have shape {images.shape}, but this network takes (batch, {wanted}).")
        result: list[NDArray[np.float32]] = self._session.run(names or self.output_names, {INPUT: images})
        return result

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


def _session(path: str, providers: list[str], threads: int | None) -> ort.InferenceSession:
    """Open the file, or say in one sentence why not."""
    available = ort.get_available_providers()
    for name in providers:
        if name not in available:
            raise ValueError(
                f"This onnxruntime has no {name}, only {', '.join(available)}; choose one of these, or for CUDA "
                "install 'osdtw-models[export-gpu]'."
            )
    options = ort.SessionOptions()
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = ort.InferenceSession(path, options, providers=providers)
    except Exception as error:  # each of ONNX Runtime's errors is its own child of Exception
        raise ValueError(
            f"ONNX Runtime cannot read {path} ({str(error).splitlines()[0]}); write it again with osdtw-export --onnx."
        ) from error
    lost = [name for name in providers if name not in session.get_providers()]
    if lost:
        raise ValueError(f"{lost[0]} is installed but did not start; check its driver and libraries, or use {CPU}.")
    session.disable_fallback()
    return session


def _check_interface(session: ort.InferenceSession, metadata: Metadata) -> None:
    """Refuse a graph whose inputs and outputs are not those that its metadata tell, or whose batch is fixed."""
    inputs = {value.name: value.shape[1:] for value in session.get_inputs()}
    outputs = {value.name: value.shape[1:] for value in session.get_outputs()}
    if inputs != {INPUT: list(metadata.input_size)}:
        raise ValueError(f"its inputs are {inputs} instead of one {INPUT!r} of size {list(metadata.input_size)}")
    if isinstance(session.get_inputs()[0].shape[0], int):
        raise ValueError("its batch size is fixed")
    wanted = {name: [width] for name, width in metadata.output_sizes.items()}
    if list(outputs.items()) != list(wanted.items()):
        raise ValueError(f"its outputs are {outputs} instead of {wanted}")
