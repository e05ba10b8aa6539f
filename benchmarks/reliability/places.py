"""What the packages write, as places where a study can look: how version n gets there, and which version is there."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from pyarrow import parquet

from osdtw_models.tables import write_table
from osdtw_training.runs import Run

NUMBERS = 50_000


@dataclass(frozen=True)
class Place:
    """A file that the packages write.

    Args:
        name: What it is.
        file: Its name in the folder.
        write: Writes version n, from the folder and n.
        read: Version that the folder holds; raises if it is none.
    """

    name: str
    file: str
    write: Callable[[Path, int], object]
    read: Callable[[Path], int]


def _save(folder: Path, n: int) -> None:
    tensors = {"model.weight": torch.full((NUMBERS,), n), "optimizer.0.momentum": torch.full((NUMBERS,), float(n))}
    Run(folder, resume=True).save_checkpoint("joint", tensors, {"epoch": n})


def _saved(folder: Path) -> int:
    saved = Run(folder, resume=True).load_checkpoint("joint")
    if saved is None:
        raise ValueError("There is no checkpoint.")
    tensors, state = saved
    if not all(bool((tensor == state["epoch"]).all()) for tensor in tensors.values()):
        raise ValueError("The checkpoint is a mixture.")
    return int(state["epoch"])


def _write_json(folder: Path, n: int) -> None:
    Run(folder, resume=True).write_json("plan.json", [n] * NUMBERS)


def _read_json(folder: Path) -> int:
    return _only(Run(folder, resume=True).read_json("plan.json"))


def _write_csv(folder: Path, n: int) -> None:
    write_table(folder / "seen.csv", [{"n": n}] * NUMBERS)


def _read_csv(folder: Path) -> int:
    return _only([int(line) for line in (folder / "seen.csv").read_text(encoding="utf-8").splitlines()[1:]])


def _write_parquet(folder: Path, n: int) -> None:
    write_table(folder / "seen.parquet", [{"n": n}] * NUMBERS)


def _read_parquet(folder: Path) -> int:
    return _only(parquet.read_table(folder / "seen.parquet")["n"].to_pylist())


def _only(values: list[int]) -> int:
    """What all of the right number of values are."""
    if len(values) != NUMBERS or len(set(values)) != 1:
        raise ValueError("The file is cut or a mixture.")
    return values[0]


CHECKPOINT = Place("checkpoint", "checkpoints/joint.safetensors", _save, _saved)
JSON = Place("JSON of a run folder", "plan.json", _write_json, _read_json)
CSV = Place("table as CSV", "seen.csv", _write_csv, _read_csv)
PARQUET = Place("table as parquet", "seen.parquet", _write_parquet, _read_parquet)
PLACES = (CHECKPOINT, JSON, CSV, PARQUET)


def describe(folder: Path) -> str:
    """What lies in a folder, for a study that lost something."""
    files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    return json.dumps(files)
