"""Studies of reliability -> tables of docs/reliability.md: every number in them comes from benchmarks/studies.

    python benchmarks/reliability_tables.py [--check]

``--check`` writes nothing and fails if the document would change. A study that has not been run has no table.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from study_tables import between, main, table

ROOT = Path(__file__).parents[1]
ORDER = ("kill", "publishing", "stop", "saves", "writers", "repeatability", "hostile", "load", "mutation")


def render(root: Path) -> dict[Path, str]:
    """The document with its tables made anew, by path."""
    folder, path = root / "benchmarks" / "studies" / "reliability", root / "docs" / "reliability.md"
    files = sorted(folder.glob("*.json"), key=lambda file: ORDER.index(file.stem))
    studies = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    text = between(path.read_text(encoding="utf-8"), "total", total(studies))
    return {path: between(text, "studies", "\n\n".join(map(section, studies)))}


def total(studies: list[dict[str, Any]]) -> str:
    """All tries in one sentence."""
    rows = [row for study in studies for row in study["rows"]]
    tries, lost = (sum(row[key] for row in rows) for key in ("tries", "lost"))
    return f"{tries:,} faults of {len(rows)} kinds, {lost:,} lost."


def section(study: dict[str, Any]) -> str:
    """One study: its heading, its table, and where and when it ran."""
    rows = [
        [row["fault"], row["where"], f"{row['tries']:,}", f"{row['survived']:,}", f"{row['lost']:,}", row["note"]]
        for row in study["rows"]
    ]
    heads = ["fault", "where", "tries", "survived", "lost", "survived means"]
    hardware = study["hardware"]
    note = (
        f"{hardware['processor']}, {hardware['cores']} cores shared with other programs, {study['date']}, "
        f"seed {study['seed']}, {study['seconds']:.0f} s: `{study['command']}`."
    )
    return f"## {study['title']}\n\n{table(heads, rows)}\n\n{note}"


if __name__ == "__main__":
    sys.exit(main(__doc__, lambda: render(ROOT)))
