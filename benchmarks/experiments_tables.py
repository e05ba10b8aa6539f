"""The study of left-out images -> its tables in docs/experiments.md.

    python benchmarks/experiments_tables.py [--check]

``--check`` writes nothing and fails if the document would change.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from study_tables import between, main, table

ROOT = Path(__file__).parents[1]
COLUMNS = {"overall": "overall", "many": "many", "medium": "medium", "few": "few", "ece": "ECE", "nll": "NLL"}


def render(root: Path) -> dict[Path, str]:
    """The document with its tables made anew, by path."""
    path = root / "docs" / "experiments.md"
    study = json.loads((root / "benchmarks" / "studies" / "left_out_images.json").read_text(encoding="utf-8"))
    text = between(path.read_text(encoding="utf-8"), "calibration", calibration(study))
    return {path: between(text, "alone", alone(study))}


def calibration(study: dict[str, Any]) -> str:
    """What calibration does."""
    runs = [run["calibration"] for run in study["runs"]]
    rows = [[way, *means([run[way] for run in runs])] for way in runs[0]]
    return table(["fitted", *COLUMNS.values()], rows) + "\n\n" + note(study)


def alone(study: dict[str, Any]) -> str:
    """Each decoder by itself, and the answer of all."""
    runs = study["runs"]
    each = list(zip(*(run["alone"] for run in runs), strict=True))
    rows = [[f"decoder {k} alone", *means(found)] for k, found in enumerate(each)]
    rows.append(["fused", *means([run["calibration"]["nothing"] for run in runs])])
    return table(["uncalibrated", *COLUMNS.values()], rows) + "\n\n" + note(study)


def means(found: Sequence[Mapping[str, float]]) -> list[str]:
    """Means over the runs."""
    return [f"{statistics.mean(each[name] for each in found):.2f}" for name in COLUMNS]


def note(study: dict[str, Any]) -> str:
    """Where the numbers come from."""
    runs = study["runs"]
    names = ", ".join(sorted({run["recipe"].partition("_seed")[0] for run in runs}))
    seeds = ", ".join(str(run["seed"]) for run in runs)
    return (
        f"Means of {len(runs)} runs ({names}; seeds {seeds}) on {runs[0]['images']:,} images each. "
        f"{study['hardware']['processor']}, {study['date']}: `{study['command']}`."
    )


if __name__ == "__main__":
    sys.exit(main(__doc__, lambda: render(ROOT)))
