"""Rows of values -> a file that other programs read: CSV, JSON, JSON lines or parquet, by the file's name."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osdtw_models.doors import need
from osdtw_models.files import write_text, write_whole

SUFFIXES = (".csv", ".json", ".jsonl", ".parquet")


def check_table(path: Path) -> None:
    """Refuse a file whose kind cannot be written, before there is anything to write.

    Args:
        path: The file.

    Raises:
        ValueError: If its suffix is none of `SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} ends in none of {', '.join(SUFFIXES)}; the ending decides what is written.")
    if path.suffix == ".parquet":
        need("training", "pyarrow")


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows, whole or not at all.

    Args:
        path: The file; its suffix decides the form, see `SUFFIXES`.
        rows: Values by column; all rows have the same columns.
    """
    check_table(path)
    if path.suffix == ".parquet":
        from pyarrow import Table, parquet

        table = Table.from_pylist(list(rows))
        write_whole(path, lambda draft: parquet.write_table(table, draft))
    elif path.suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_text(path, text.getvalue())
    elif path.suffix == ".json":
        write_text(path, json.dumps(list(rows), indent=2) + "\n")
    else:
        write_text(path, "".join(f"{json.dumps(row)}\n" for row in rows))
