"""What every study of reliability writes: one row per fault, how often it was tried and how often it was survived.

A study is a script of this folder. It ends with `write_study`, and `benchmarks/reliability_tables.py` makes
docs/reliability.md of all files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from osdtw_models.files import write_text
from osdtw_training.provenance import processor

STUDIES = Path(__file__).parents[1] / "studies" / "reliability"


@dataclass(frozen=True)
class Row:
    """One fault at one place.

    Args:
        fault: What was done to the program.
        where: To which part of it, and at which moment.
        tries: How often.
        survived: How often all that had to hold afterwards did hold.
        note: What had to hold, and what a reader must know of the numbers.
    """

    fault: str
    where: str
    tries: int
    survived: int
    note: str = ""

    @property
    def lost(self) -> int:
        """How often something did not hold."""
        return self.tries - self.survived


def tried(fault: str, where: str, checks: Sequence[bool], note: str = "") -> Row:
    """The row of a list of tries, each True if it was survived."""
    return Row(fault, where, len(checks), sum(checks), note)


def rows_before(name: str) -> list[Row]:
    """The rows that the results file of a study has, none if there is no file."""
    rows = _before(name).get("rows", [])
    return [Row(**{key: value for key, value in row.items() if key != "lost"}) for row in rows]


def _before(name: str) -> dict[str, Any]:
    file = STUDIES / f"{name}.json"
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return values


def write_study(name: str, title: str, seed: int, study: Callable[[int], Sequence[Row]], partial: bool = False) -> int:
    """Run a study and write ``benchmarks/studies/reliability/<name>.json``.

    Args:
        name: Name of the script, without its suffix.
        title: Heading of its table.
        seed: All that is random follows from it.
        study: From the seed to the rows.
        partial: Whether it runs some of its parts and keeps the other rows; seconds are then added to those before.

    Returns:
        Exit code: 1 if anything was lost.
    """
    started = time.perf_counter() - (_before(name).get("seconds", 0) if partial else 0)
    rows = study(seed)
    values = {
        "command": f"python benchmarks/reliability/{name}.py",
        "title": title,
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "seed": seed,
        "date": time.strftime("%Y-%m-%d"),
        "seconds": round(time.perf_counter() - started, 1),
        "rows": [{**asdict(row), "lost": row.lost} for row in rows],
    }
    path = STUDIES / f"{name}.json"
    write_text(path, json.dumps(values, indent=2) + "\n")
    for row in rows:
        print(f"{row.survived:6d} of {row.tries:6d}  {row.fault}, {row.where}")
    print(f"Wrote {path}")
    return int(any(row.lost for row in rows))
