"""Results of a list of runs -> its table in Markdown; no number in it is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from osdtw_training.benchmark_list import Entry

COLUMNS = ("overall", "many", "medium", "few", "macro_f1", "nll", "ece")
HEADS = {"macro_f1": "macro F1", "nll": "NLL", "ece": "ECE"}
BASE = "cross_entropy"
EXPLAIN_BELOW = 0.5  # of the gain that others report


def page(title: str, entries: Sequence[Entry], results: Mapping[str, dict[str, Any]], figures: Sequence[str]) -> str:
    """The page of a list: its figures, its table, what the columns mean, and what needs a word.

    Args:
        title: Its heading.
        entries: The runs; those without results are named below the table.
        results: Content of the results files by name.
        figures: Pictures beside the page.

    Returns:
        Markdown: percent but for NLL (nats); costs in passes and multiply-adds of the plain backbone.
    """
    heads = ["method", *(HEADS.get(name, name) for name in COLUMNS), "gain", "published gain"]
    heads += ["training", "inference", "seed", "hours", "commit", "command"]
    there = by_accuracy(entries, results)
    base = base_accuracy(results)
    rows = [_row(_cells(entry, found, base)) for entry, found in there]
    notes = [f"- {name_of(entry, found)}: {entry.note}" for entry, found in there if entry.note]
    hardware = sorted({_hardware(found) for _, found in there})
    sources = sorted({each.source for entry, _ in there for each in entry.published})
    missing = [entry.name for entry in entries if entry.name not in results]
    chosen = [name_of(entry, found) for entry, found in there if "epoch_taken" in found]
    but = f", but for {', '.join(chosen)}: there the best on held-out images" if chosen else ""
    parts = [
        f"# {title}",
        "\n".join(f"![{title}]({name})" for name in figures),
        "\n".join([_row(heads), "|" + "---|" * len(heads), *rows]),
        f"{_gains(base, sources)}Training: passes of the plain network over the training images in multiply-adds, "
        "statistics and replicates counted. Inference: multiply-adds, times those of the plain network. "
        f"The last epoch counts{but}; no test image was looked at before it.",
        f"Sources: {'; '.join(sources)}." if sources else "",
        "\n".join(notes),
        f"Hardware: {'; '.join(hardware)}." if hardware else "",
        f"Not run yet: {', '.join(missing)}." if missing else "",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _gains(base: float | None, sources: Sequence[str]) -> str:
    """What the two columns of gains mean, where they say something."""
    if base is None:
        return ""
    others = "; published gain: the same between two figures of one source, for ResNet-32 after 200 epochs"
    return f"Gain: points of overall accuracy over cross-entropy{others if sources else ''}. "


def by_accuracy(entries: Sequence[Entry], results: Mapping[str, dict[str, Any]]) -> list[tuple[Entry, dict[str, Any]]]:
    """The runs that have results, most accurate first."""
    there = [(entry, results[entry.name]) for entry in entries if entry.name in results]
    return sorted(there, key=lambda pair: -pair[1]["test"]["overall"])


def name_of(entry: Entry, found: Mapping[str, Any]) -> str:
    """What a table calls a run."""
    return entry.title or str(found["method"])


def base_accuracy(results: Mapping[str, dict[str, Any]]) -> float | None:
    """Overall accuracy of cross-entropy, if it is among the results."""
    return next((found["test"]["overall"] for found in results.values() if found["method"] == BASE), None)


def unexplained(entries: Sequence[Entry], results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Runs whose gain is under half of the least that others report, without a word on why."""
    base = base_accuracy(results)
    if base is None:
        return []
    return [
        entry.name
        for entry, found in by_accuracy(entries, results)
        if entry.published
        and not entry.note
        and found["test"]["overall"] - base < EXPLAIN_BELOW * min(each.gain for each in entry.published)
    ]


def _cells(entry: Entry, found: dict[str, Any], base: float | None) -> list[str]:
    test = found["test"]
    return [
        name_of(entry, found),
        *("-" if test[name] is None else f"{test[name]:.2f}" for name in COLUMNS),
        "-" if base is None else f"{test['overall'] - base:+.2f}",
        ", ".join(f"{each.gain:+.1f}" for each in entry.published) or "-",
        f"{sum(found['training_passes'].values()):.1f}",
        f"{found['inference_ratio']:.2f}",
        str(found["seed"]),
        f"{found['training_hours']:.2f}",
        found.get("commit") or "-",
        f"`{entry.command}`",
    ]


def _hardware(found: dict[str, Any]) -> str:
    known = found["hardware"]
    return f"{known['processor']}, {known['threads']} thread, {known['amp']} forward pass, {found['date']}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
