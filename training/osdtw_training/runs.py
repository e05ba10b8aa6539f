"""A run folder: recipe, metrics, checkpoints, results. Files are written whole or not at all.

Of several processes only the first writes, and all read what it sees: the folder need not be shared, but they must
all ask for the same.

Layout::

    recipe.json        the recipe as it ran            images.json     chosen and held-out images, with SHA-256
    metrics.jsonl      one line per epoch              plan.json       the chosen plan and why
    checkpoints/       the last two of each stage      *.png           figures
    broken_images.csv  what could not be read, if any  confusion.csv   what was taken for what
    config.json, model.safetensors, SHA256SUMS         the assembled network, as timm reads it
    results.json       every number, with seed, hardware and time
    results.csv        accuracy and F1 by class        mistakes/       pictures of the surest mistakes
    report.html        all of it on one page
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from osdtw_models.files import append_line, remove_drafts, write_text
from osdtw_training import checkpoints, distributed
from osdtw_training.locks import locked


class Run:
    """A run folder.

    Args:
        folder: Where the run lives; made if missing.
        resume: Whether to go on with a run that is there already.

    Raises:
        FileExistsError: If the folder holds a run and ``resume`` is False.
    """

    def __init__(self, folder: str | Path, resume: bool = False) -> None:
        self.folder = Path(folder)
        if not distributed.first():
            return
        if (self.folder / "recipe.json").exists() and not resume:
            raise FileExistsError(f"{self.folder} holds a run; pass --resume to go on or choose another --output.")
        (self.folder / "checkpoints").mkdir(parents=True, exist_ok=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Train here, alone: what killed runs left half-written is removed.

        Yields:
            Nothing.
        """
        with locked(self.folder):
            if distributed.first():
                remove_drafts(self.folder)
                remove_drafts(self.folder / "checkpoints")
            yield

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file of the run folder."""
        if distributed.first():
            write_text(self.folder / name, json.dumps(value, indent=2) + "\n")

    def has(self, name: str) -> bool:
        """Whether the run folder has a file."""
        return bool(distributed.of_first((self.folder / name).is_file()))

    def read_json(self, name: str) -> Any:
        """Read a JSON file of the run folder.

        Returns:
            Its content.

        Raises:
            FileNotFoundError: If the run has no such file.
            ValueError: If it is damaged.
        """
        with distributed.file_of_first(self.folder / name) as path:
            if not path.is_file():
                raise FileNotFoundError(f"{self.folder} has no {name}; is it a run folder whose stages got that far?")
            try:
                return json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ValueError(f"{path} is damaged ({error}); restore it, or train in another folder.") from error

    def log(self, stage: str, epoch: int, **values: float) -> None:
        """Append one line to ``metrics.jsonl``."""
        if distributed.first():
            append_line(self.folder / "metrics.jsonl", json.dumps({"stage": stage, "epoch": epoch, **values}))

    def forget(self, stage: str, epoch: int) -> None:
        """Drop the metrics of a stage from an epoch on: a resumed run writes them again."""
        path = self.folder / "metrics.jsonl"
        if distributed.first() and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if not _is_from(line, stage, epoch)]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of ``metrics.jsonl`` but one that a crash cut short."""
        with distributed.file_of_first(self.folder / "metrics.jsonl") as path:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines if not _is_cut(line)]

    def save_checkpoint(self, stage: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Save tensors and a JSON state as ``checkpoints/<stage>.safetensors``; the one before is kept beside it."""
        if not distributed.first():
            return
        last, previous = self._checkpoints(stage)
        if last.is_file():
            last.replace(previous)
        checkpoints.save(last, tensors, state)

    def has_checkpoint(self, stage: str) -> bool:
        """Whether a stage has begun."""
        return any(self.has(f"checkpoints/{path.name}") for path in self._checkpoints(stage))

    def load_checkpoint(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state of a stage's last good checkpoint, or None if it has none yet.

        A damaged one is set aside, and said so; the one before it then counts.

        Returns:
            The pair, or None.

        Raises:
            ValueError: If the only one is damaged, or a newer version wrote it.
        """
        damaged: dict[Path, checkpoints.DamagedCheckpoint] = {}
        for path in self._checkpoints(stage):
            with distributed.file_of_first(path) as file:
                if not file.is_file():
                    continue
                try:
                    saved = checkpoints.load(file)
                except checkpoints.DamagedCheckpoint as error:
                    damaged[path] = error
                    continue
            for bad, reason in damaged.items():
                print(f"{bad} is damaged ({reason}); going on from {path.name}, the checkpoint before it.")
                if distributed.first():
                    bad.replace(bad.with_suffix(".damaged"))
            return saved
        for bad, reason in damaged.items():
            raise ValueError(
                f"{bad} is damaged ({reason}), and no good one is left; delete it to train that stage again."
            ) from reason
        return None

    def _checkpoints(self, stage: str) -> tuple[Path, Path]:
        """Where a stage's last checkpoint lies, and the one before it."""
        folder = self.folder / "checkpoints"
        return folder / f"{stage}.safetensors", folder / f"{stage}.previous.safetensors"


def pack_state(module_state: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Module and optimiser tensors in one flat dictionary (the optimiser's under ``optimizer.<param>.<name>``)."""
    tensors = {f"model.{key}": value for key, value in module_state.items()}
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
    return tensors


def unpack_state(tensors: dict[str, Tensor], optimizer: torch.optim.Optimizer | None) -> dict[str, Tensor]:
    """The module's tensors; those of the optimiser are loaded into it."""
    if optimizer is not None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return {key.removeprefix("model."): value for key, value in tensors.items() if key.startswith("model.")}


def _is_from(line: str, stage: str, epoch: int) -> bool:
    if _is_cut(line):
        return True
    values = json.loads(line)
    return bool(values["stage"] == stage and values["epoch"] >= epoch)


def _is_cut(line: str) -> bool:
    return not line.endswith("}")  # by a crash: every line is one JSON object, and a shorter one never ends so
