"""Studies of scale -> tables of docs/scale.md: every number in them comes from benchmarks/studies.

    python benchmarks/scale_tables.py [--check]

``--check`` writes nothing and fails if the document would change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from study_tables import between, main, table

ROOT = Path(__file__).parents[1]


def render(root: Path) -> dict[Path, str]:
    """The document with its tables made anew, by path."""
    studies, path = root / "benchmarks" / "studies", root / "docs" / "scale.md"
    text = path.read_text(encoding="utf-8")
    for mark, make in (("two_processes", two_processes), ("throughput", throughput)):
        study = json.loads((studies / f"{mark}.json").read_text(encoding="utf-8"))
        text = between(text, mark, make(study))
    return {path: text}


def two_processes(study: dict[str, Any]) -> str:
    """How far runs end from that of one process, and how long they took."""
    rows = []
    for name, row in study["rows"].items():
        apart = [f"{row[key]:.1e}" if row[key] else "0" for key in ("weights", "loss_difference")]
        rows.append([name, *apart, f"{row['epoch_seconds']:.1f} s", f"{row['processor_seconds']:.0f} s"])
    heads = ["run", "weights apart", "losses apart", "epoch, clock", "whole command, processors"]
    hardware = study["hardware"]
    note = (
        f"`{study['run']}`. Weights: the largest difference, relative to the largest value of its tensor. "
        f"{hardware['processor']}, {hardware['cores']} cores with a load of {study['load']:.0f}, {study['date']}: "
        f"`{study['command']}`."
    )
    return table(heads, rows) + "\n\n" + note


def throughput(study: dict[str, Any]) -> str:
    """Images a second, ours and the bare loop's."""
    rows = []
    for row in study["rows"]:
        low, high = row["ratio_range"]
        rates = row["images_per_second"]
        what = f"{row['name']}: {row['model']}, {row['img_size']} pixels, batches of {row['batch_size']}"
        rows.append(
            [
                what,
                f"{rates['ours']:.1f}",
                f"{rates['bare']:.1f}",
                f"{row['ratio']:.2f} ({low:.2f} to {high:.2f})",
                f"{row['loading_ratio']:.2f}",
            ]
        )
    heads = ["images", "osdtw-train", "bare timm", "ratio (range)", "ratio, loading alone"]
    note = (
        f"Images a processor second of one thread, medians of {study['repeats']} epochs each, interleaved. "
        f"{study['hardware']['processor']}, {study['date']}: `{study['command']}`."
    )
    return table(heads, rows) + "\n\n" + note


if __name__ == "__main__":
    sys.exit(main(__doc__, lambda: render(ROOT)))
