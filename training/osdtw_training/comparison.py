"""A run beside others on the same images: those whose folders lie next to its own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SAME = ("data", "imbalance_factor", "seed", "class_counts", "test_images")


@dataclass(frozen=True)
class Compared:
    """A run in a comparison.

    Args:
        folder: Name of its folder.
        own: Whether it is the run that the others are compared with.
        results: Content of its ``results.json``.
    """

    folder: str
    own: bool
    results: dict[str, Any]


def beside(folder: Path, results: dict[str, Any], split: str) -> list[Compared]:
    """A run and the finished runs beside it: the same data, seed, class sizes and number of test images.

    Args:
        folder: Its folder; folders beside it are looked at, none below them.
        results: Content of its ``results.json``.
        split: Whose figures are compared.

    Returns:
        The runs, most accurate first; one without others is alone in the list.
    """
    here = folder.resolve()
    runs = [Compared(here.name, True, results)]
    for other in sorted(here.parent.iterdir()):
        found = _read(other / "results.json", split) if other != here else None
        if found is not None and all(found.get(key) == results.get(key) for key in SAME):
            runs.append(Compared(other.name, False, found))
    return sorted(runs, key=lambda run: -run.results[split]["overall"])


def _read(file: Path, split: str) -> dict[str, Any] | None:
    """A results file; None where there is none or it lacks what is compared: its trouble is not this run's."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        float(found[split]["overall"])
        return dict(found) if {"method", "model"} <= found.keys() else None
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None
