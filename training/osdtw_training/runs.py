"""A run folder: recipe, metrics, checkpoints, results. Files are written whole or not at all.

Of several processes only the first writes, and all read what it sees: the folder need not be shared, but they must
all ask for the same.

Layout::

    recipe.json        the recipe as it ran            images.json     chosen and held-out images, with SHA-256
    metrics.jsonl      one line per epoch              plan.json       the chosen plan and why
    checkpoints/       one file per stage              *.png           figures
    broken_images.csv  what could not be read, if any  confusion.csv   what was taken for what
    config.json, model.safetensors                     the assembled network, as timm reads it
    results.json       every number, with seed, hardware and time
    results.csv        accuracy and F1 by class        mistakes/       pictures of the surest mistakes
    report.html        all of it on one page
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import save_file
from torch import Tensor

from osdtw_models.files import write_text, write_whole
from osdtw_training import distributed


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
        if not distributed.first():
            return
        with (self.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": stage, "epoch": epoch, **values}) + "\n")

    def forget(self, stage: str, epoch: int) -> None:
        """Drop the metrics of a stage from an epoch on: a resumed run writes them again."""
        path = self.folder / "metrics.jsonl"
        if distributed.first() and path.is_file():
            lines = path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if not _is_from(line, stage, epoch)]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of ``metrics.jsonl``."""
        with distributed.file_of_first(self.folder / "metrics.jsonl") as path:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return [json.loads(line) for line in lines]

    def save_checkpoint(self, stage: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Save tensors and a JSON state as ``checkpoints/<stage>.safetensors``."""
        if not distributed.first():
            return
        metadata = {"state": json.dumps(state)}
        tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        write_whole(self._checkpoint(stage), lambda path: save_file(tensors, path, metadata=metadata))

    def has_checkpoint(self, stage: str) -> bool:
        """Whether a stage has begun."""
        return self.has(f"checkpoints/{stage}.safetensors")

    def load_checkpoint(self, stage: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state of a stage's checkpoint, or None if it has none yet.

        Returns:
            The pair, or None.

        Raises:
            ValueError: If the file is damaged.
        """
        with distributed.file_of_first(self._checkpoint(stage)) as path:
            if not path.is_file():
                return None
            try:
                with safetensors.safe_open(path, framework="pt") as file:
                    state = json.loads(file.metadata()["state"])
                    tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
                raise ValueError(f"{path} is damaged ({error}); delete it to train that stage again.") from error
            return tensors, state

    def _checkpoint(self, stage: str) -> Path:
        return self.folder / "checkpoints" / f"{stage}.safetensors"


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
    try:
        values = json.loads(line)
    except json.JSONDecodeError:
        return True  # a line cut short by a crash
    return bool(values["stage"] == stage and values["epoch"] >= epoch)
