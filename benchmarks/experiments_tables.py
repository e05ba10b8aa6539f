"""The study of the group bias -> its table in docs/experiments.md.

    python benchmarks/experiments_tables.py [--check]

``--check`` writes nothing and fails if the document would change.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from study_tables import between, main, table

ROOT = Path(__file__).parents[1]
COLUMNS = {"overall": "overall", "many": "many", "medium": "medium", "few": "few", "ece": "ECE", "nll": "NLL"}


def render(root: Path) -> dict[Path, str]:
    """The document with its table made anew, by path."""
    path = root / "docs" / "experiments.md"
    study = json.loads((root / "benchmarks" / "studies" / "group_bias.json").read_text(encoding="utf-8"))
    return {path: between(path.read_text(encoding="utf-8"), "group_bias", group_bias(study))}


def group_bias(study: dict[str, Any]) -> str:
    """Means over the runs of what was fitted."""
    runs = study["runs"]
    rows = []
    for way in runs[0]["rows"]:
        means = {name: statistics.mean(run["rows"][way][name] for run in runs) for name in COLUMNS}
        rows.append([way, *(f"{value:.2f}" for value in means.values())])
    names = ", ".join(sorted({run["recipe"].partition("_seed")[0] for run in runs}))
    seeds = ", ".join(str(run["seed"]) for run in runs)
    note = (
        f"Means of {len(runs)} runs ({names}; seeds {seeds}) on {runs[0]['images']:,} images each, "
        f"classes weighed alike. {study['hardware']['processor']}, {study['date']}: `{study['command']}`."
    )
    return table(["fitted", *COLUMNS.values()], rows) + "\n\n" + note


if __name__ == "__main__":
    sys.exit(main(__doc__, lambda: render(ROOT)))
