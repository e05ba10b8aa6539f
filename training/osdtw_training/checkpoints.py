"""One checkpoint file: tensors and a JSON state, in a safetensors file that carries its own SHA-256.

safetensors has no checksum, and a sum in a second file could be the one of an older checkpoint after a crash. So the
digest stands in the file's header, whatever the format. It covers format, state, and every tensor's name, type, shape
and bytes; the rest of the header is layout, in which no change goes unnoticed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from osdtw_models.files import write_whole

FORMAT = "1"
"""Checkpoints before format 1 had only a state: no format, no digest. They are read unchecked."""


class DamagedCheckpoint(ValueError):
    """A file that is not what was saved."""


def save(path: Path, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        path: The file.
        tensors: Tensors by name, on any device.
        state: Values that JSON can hold.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    text = json.dumps(state)
    metadata = {"format": FORMAT, "sha256": _digest(FORMAT, text, tensors), "state": text}
    write_whole(path, lambda draft: save_file(tensors, draft, metadata=metadata))


def load(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint.

    Args:
        path: The file.

    Returns:
        Tensors on the CPU, and the state.

    Raises:
        DamagedCheckpoint: If it is not what was saved.
        ValueError: If a newer version wrote it.
        OSError: If it cannot be opened.
    """
    with path.open("rb"):
        pass  # safetensors would call a file damaged that may not be read
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise DamagedCheckpoint(str(error)) from error
    checked = {"format", "sha256"} & metadata.keys()  # both or none: one flipped bit does not make it an old file
    text = metadata.get("state", "")
    if checked and metadata.get("sha256") != _digest(metadata.get("format", ""), text, tensors):
        raise DamagedCheckpoint("its content is not what its SHA-256 says")
    if checked and metadata["format"] != FORMAT:
        raise ValueError(
            f"{path} has format {metadata['format']}, this version reads {FORMAT}; update osdtw-models, or train "
            "in another folder."
        )
    try:
        state: dict[str, Any] = json.loads(text)
    except json.JSONDecodeError as error:
        raise DamagedCheckpoint(f"its state is not JSON: {error}") from error
    return tensors, state


def _digest(version: str, state: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps([version, state]).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
