"""Results of a list of runs -> its table in Markdown; no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osdtw_training.benchmark_list import Entry

COLUMNS = ("overall", "many", "medium", "few", "macro_f1", "nll", "ece")
HEADS = {"macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}
BASE = "cross_entropy"


def table(title: str, entries: Sequence[Entry], results: Mapping[str, dict[str, Any]]) -> str:
    """The table of a list.

    Args:
        title: Its heading.
        entries: The runs; those without results are named below the table.
        results: Content of the results files by name.

    Returns:
        Markdown: percent but for NLL (nats); costs in passes and multiply-adds of the plain backbone.
    """
    heads = ["method", *(HEADS.get(name, name) for name in COLUMNS), "over cross-entropy", "published"]
    heads += ["training", "inference", "seed", "hours", "commit", "command"]
    lines = [f"# {title}", "", _row(heads), "|" + "---|" * len(heads)]
    base = [r["test"]["overall"] for r in results.values() if r["method"] == BASE]
    there = [(entry, results[entry.name]) for entry in entries if entry.name in results]
    for entry, found in sorted(there, key=lambda pair: -pair[1]["test"]["overall"]):
        test = found["test"]
        gain = f"{test['overall'] - base[0]:+.2f}" if base else "-"
        published = " to ".join(f"{value:g}" for value in entry.published) or "-"
        lines.append(
            _row(
                [
                    entry.title or found["method"],
                    *("-" if test[name] is None else f"{test[name]:.2f}" for name in COLUMNS),
                    *(gain, published),
                    f"{sum(found['training_passes'].values()):.1f}",
                    f"{found['inference_ratio']:.2f}",
                    str(found["seed"]),
                    f"{found['training_hours']:.2f}",
                    found.get("commit") or "-",
                    f"`{entry.command}`",
                ]
            )
        )
    hardware = sorted({_hardware(found) for _, found in there})
    missing = [entry.name for entry in entries if entry.name not in results]
    notes = [
        "Training: passes of the plain network over the training images in multiply-adds, statistics and replicates "
        "counted. Inference: multiply-adds, times those of the plain network. Published: overall accuracy of ResNet-32 "
        "after 200 epochs, from the sources in the list; the spread is between sources.",
        f"Hardware: {'; '.join(hardware)}." if hardware else "",
        f"Not run yet: {', '.join(missing)}." if missing else "",
    ]
    return "\n".join([*lines, "", *("\n\n".join(note for note in notes if note)).split("\n")]) + "\n"


def _hardware(found: dict[str, Any]) -> str:
    known = found["hardware"]
    return f"{known['processor']}, {known['threads']} thread, {known['amp']} forward pass, {found['date']}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
