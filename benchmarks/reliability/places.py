"""What the packages write, as places where a study can look: how version n gets there, and which version is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from pyarrow import parquet

from osdtw_models import create_model
from osdtw_models.files import write_whole
from osdtw_models.load import load_model
from osdtw_models.network import OsdtwNet
from osdtw_models.tables import write_table
from osdtw_training.pipeline import save_network
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


def _log(folder: Path, n: int) -> None:
    Run(folder, resume=True).log("joint", n, loss=0.5)


def _logged(folder: Path) -> int:
    return int(Run(folder, resume=True).metrics()[-1]["epoch"])


@cache
def _network() -> OsdtwNet:
    network = create_model("osdtw_resnet14", num_classes=2, task_classes=[[0, 1]])
    assert isinstance(network, OsdtwNet)
    return network


@torch.no_grad()
def _save_network(folder: Path, n: int) -> None:
    for parameter in _network().parameters():
        parameter.fill_(n)
    save_network(_network(), Run(folder, resume=True), ("a", "b"))


def _load_network(folder: Path) -> int:
    return int(_only(torch.cat([value.flatten() for value in load_model(folder).parameters()]).tolist(), None))


def _draw(folder: Path, n: int) -> None:
    figure = Figure((1, 1), facecolor=(n % 256 / 255, 0, 0))
    write_whole(folder / "plan.png", lambda draft: figure.savefig(draft, format="png"))


def _drawn(folder: Path) -> int:
    with Image.open(folder / "plan.png") as image:
        return int(image.convert("RGB").getpixel((0, 0))[0])


def _only(values: list[int], number: int | None = NUMBERS) -> int:
    """What all of the right number of values are."""
    if len(values) != (number or len(values)) or len(set(values)) != 1:
        raise ValueError("The file is cut or a mixture.")
    return values[0]


CHECKPOINT = Place("checkpoint", "checkpoints/joint.safetensors", _save, _saved)
NETWORK = Place("network with its config and checksums", "model.safetensors", _save_network, _load_network)
PLACES = (
    CHECKPOINT,
    NETWORK,
    Place("JSON file of a run folder", "plan.json", _write_json, _read_json),
    Place("line of metrics.jsonl", "metrics.jsonl", _log, _logged),
    Place("table as CSV", "seen.csv", _write_csv, _read_csv),
    Place("table as parquet", "seen.parquet", _write_parquet, _read_parquet),
    Place("figure", "plan.png", _draw, _drawn),
)


def drafts(folder: Path) -> list[str]:
    """Half-written files in a folder: there are some only while somebody writes, or after a kill."""
    return [path.name for path in folder.rglob(".*")]
