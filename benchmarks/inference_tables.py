"""benchmarks/studies/inference.json -> the tables of docs/inference.md.

    python benchmarks/inference_tables.py [--check]

``--check`` writes nothing and fails if the document would change.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from study_tables import between, main, table

ROOT = Path(__file__).parents[1]
WORDS = {
    "plain": "plain backbone",
    "unpacked": "one decoder after the other",
    "packed": "packed (grouped)",
    "dense": "packed (dense)",
    "int8": "int8, unpacked",
    "eager": "PyTorch eager",
    "compiled": "torch.compile",
    "plain int8": "plain backbone, int8",
    "plain eager": "plain backbone, PyTorch eager",
    "plain compiled": "plain backbone, torch.compile",
    "two networks": "two plain networks",
    "experts unpacked": "RIDE's three narrow experts, one after the other",
    "experts packed": "RIDE's three narrow experts, packed (grouped)",
    "experts dense": "RIDE's three narrow experts, packed (dense)",
}


class Study:
    """A study, looked up by name, depth, threads and batch.

    Args:
        values: Content of ``inference.json``.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.times = {
            (row["name"], row["depth"], row["threads"], row["batch"]): row["milliseconds"] for row in values["times"]
        }
        self.nodes = {(row["name"], row["depth"]): row["nodes"] for row in values["nodes"]}
        self.multiply_adds = {(row["name"], row["depth"]): row["ratio"] for row in values["multiply_adds"]}
        self.threads = sorted({key[2] for key in self.times})
        self.batches = sorted({key[3] for key in self.times})
        self.depths = sorted({depth for name, depth in self.multiply_adds if not name})

    def ratio(self, name: str, depth: int | None, threads: int, batch: int) -> float:
        """Time as a multiple of the plain backbone's in the same run."""
        return self.times[name, depth, threads, batch] / self.times["plain", None, threads, batch]

    def cost(self, name: str, depth: int | None) -> float | None:
        """Multiply-adds as a multiple of the plain backbone's."""
        if depth is None:
            return 2.0 if name == "two networks" else 1.0
        return self.multiply_adds.get(("experts" if name.startswith("experts") else "", depth))


def render(root: Path) -> dict[Path, str]:
    """The document with its tables made anew, by path."""
    study = Study(json.loads((root / "benchmarks" / "studies" / "inference.json").read_text(encoding="utf-8")))
    path = root / "docs" / "inference.md"
    text = path.read_text(encoding="utf-8")
    for mark, part in {"times": times(study), "goals": goals(study), "accuracy": accuracy(study)}.items():
        text = between(text, mark, part)
    return {path: text}


def times(study: Study) -> str:
    """Every contender's time as a ratio to the plain backbone's, and the milliseconds of that."""
    values = study.values
    cells = [(threads, batch) for threads in study.threads for batch in study.batches]
    heads = [f"{_threads(threads)}, batch {batch}" for threads, batch in cells]
    rows = []
    for name, depth in dict.fromkeys((row["name"], row["depth"]) for row in sorted(values["times"], key=_order)):
        expected, nodes = study.cost(name, depth), study.nodes.get((name, depth))
        front = ["" if depth is None else str(depth), WORDS.get(name, name)]
        front += ["-" if expected is None else f"{expected:.2f}", "-" if nodes is None else str(nodes)]
        rows.append([*front, *(f"{study.ratio(name, depth, *cell):.2f}" for cell in cells)])
    alone = ", ".join(f"{study.times['plain', None, *cell]:.2f} ms" for cell in cells)
    busy = f"; other work was going on (load {values['load']:g} before it began)" if values["load"] > 1 else ""
    versions = f"ONNX Runtime {values['versions']['onnxruntime']}, PyTorch {values['versions']['torch']}"
    note = (
        f"The plain backbone takes {alone}. {values['network']}, {values['hardware']}, medians of {values['rounds']} "
        f"rounds, {values['date']}{busy}; {versions}: `{values['command']}`. One thread: processor time; more: the "
        "clock on the wall."
    )
    return table(["shared", "what runs", "multiply-adds", "nodes", *heads], rows) + "\n\n" + note


def _order(row: dict[str, Any]) -> tuple[bool, int, int]:
    """By depth, whatever has none first; inside a depth as in the list of names."""
    names = list(WORDS)
    return row["depth"] is not None, row["depth"] or 0, names.index(row["name"]) if row["name"] in names else 99


def goals(study: Study) -> str:
    """What was aimed at, and by how much it was met or missed."""
    return table(["goal", "worst case", "met"], [[*row[:2], "yes" if row[2] else "**no**"] for row in _goals(study)])


def _threads(number: int) -> str:
    return f"{number} thread{'s' * (number > 1)}"


def _goals(study: Study) -> Iterator[tuple[str, str, bool]]:
    one = min(study.threads)
    excess = {
        (depth, batch): study.ratio("packed", depth, one, batch) / study.multiply_adds["", depth]
        for depth in study.depths
        for batch in study.batches
    }
    depth, batch = max(excess, key=lambda key: excess[key])
    worst = excess[depth, batch]
    yield (
        f"packed takes at most 1.05 times its multiply-adds, in units of the plain backbone, on {_threads(one)}",
        f"{worst:.2f} ({depth} shared, batch {batch})",
        worst <= 1.05,
    )
    least = min(study.batches)
    gain = {d: study.times["eager", d, one, least] / study.times["packed", d, one, least] for d in study.depths}
    depth = min(gain, key=lambda key: gain[key])
    yield (
        f"packed is at least 2.5 times as fast as PyTorch eager at batch {least}, on {_threads(one)}",
        f"{gain[depth]:.2f} ({depth} shared)",
        gain[depth] >= 2.5,
    )
    plain = study.nodes["plain", None]
    more = {d: study.nodes["packed", d] / plain - 1 for d in study.depths}
    depth = max(more, key=lambda key: more[key])
    yield (
        "the packed graph has at most 5 % more nodes than the plain backbone's",
        f"{100 * more[depth]:+.1f} % ({study.nodes['packed', depth]} and {plain}; {depth} shared)",
        more[depth] <= 0.05,
    )
    faster = {
        (d, b): study.times["packed", d, one, b] / study.times["int8", d, one, b]
        for d in study.depths
        for b in study.batches
    }
    depth, batch = min(faster, key=lambda key: faster[key])
    found = study.values["accuracy"]
    lost = found["fp32"]["overall"] - found["int8"]["overall"] if found else None
    points = "accuracy not measured" if lost is None else f"{lost:+.2f} points lost"
    yield (
        f"int8 is at least 1.3 times as fast as fp32 for at most 0.5 points of accuracy, on {_threads(one)}",
        f"{faster[depth, batch]:.2f} ({depth} shared, batch {batch}), {points}",
        faster[depth, batch] >= 1.3 and lost is not None and lost <= 0.5,
    )


def accuracy(study: Study) -> str:
    """The released network's accuracies in fewer bits."""
    found = study.values["accuracy"]
    if not found:
        return "Not measured in this run; give `--data-dir`."
    figures = list(found["fp32"])
    return table(["bits", *figures], [[bits, *(f"{row[key]:.2f}" for key in figures)] for bits, row in found.items()])


if __name__ == "__main__":
    sys.exit(main(__doc__, lambda: render(ROOT)))
