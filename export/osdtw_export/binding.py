"""A batch of one size, always at the same addresses: nothing is allocated per run, and CUDA can replay its graph."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from osdtw_export.providers import CUDA, TENSORRT


class BoundSession:
    """A session whose inputs and outputs stay where they are.

    Args:
        session: The session.
        name: Name of the input.
        image: One batch of its shape and type.
        outputs: Name and width of every output, float32.
    """

    def __init__(
        self, session: ort.InferenceSession, name: str, image: NDArray[Any], outputs: Mapping[str, int]
    ) -> None:
        device = "cuda" if session.get_providers()[0] in (CUDA, TENSORRT) else "cpu"
        self._session = session
        self._lock = threading.Lock()  # one set of addresses: one run at a time
        self._input = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(image), device, 0)
        shape = image.shape[0]
        self._outputs = {
            output: ort.OrtValue.ortvalue_from_shape_and_type([shape, width], np.float32, device, 0)
            for output, width in outputs.items()
        }
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(name, self._input)
        for output, value in self._outputs.items():
            self._binding.bind_ortvalue_output(output, value)

    def run(self, images: NDArray[Any], names: Sequence[str]) -> list[NDArray[np.float32]]:
        """One batch.

        Args:
            images: As many images as the batch has, of the type that was bound.
            names: Outputs to return.

        Returns:
            One array per name, a copy of its own each.
        """
        with self._lock:
            self._input.update_inplace(np.ascontiguousarray(images))
            self._session.run_with_iobinding(self._binding)
            return [np.array(self._outputs[name].numpy()) for name in names]
