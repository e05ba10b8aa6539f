"""Results of a list of runs -> its table in Markdown; no number in it is typed by hand."""

from __future__ import annotations

import math
import statistics
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
    there, base = by_accuracy(entries, results), base_accuracy(entries, results)
    gains = [] if base is None else ["gain", "published gain"]
    heads = ["method", *(HEADS.get(name, name) for name in COLUMNS), *gains]
    heads += ["training", "inference", "seed", "hours", "commit", "command"]
    rows = [_row(_cells(entry, found, base)) for entry, found in there]
    notes = [f"- {name_of(entry, found)}: {entry.note}" for entry, found in there if entry.note]
    hardware = sorted({_hardware(each) for _, found in there for each in found})
    sources = sorted({each.source for entry, _ in there for each in entry.published})
    missing = [run.name for entry in entries for run in entry.runs() if run.name not in results]
    chosen = [name_of(entry, found) for entry, found in there if "epoch_taken" in found[0]]
    but = f", but for {', '.join(chosen)}: there the best on held-out images" if chosen else ""
    several = "Of several seeds: mean ± standard deviation. " if any(len(found) > 1 for _, found in there) else ""
    parts = [
        f"# {title}",
        "\n".join(f"![{title}]({name})" for name in figures),
        "\n".join([_row(heads), "|" + "---|" * len(heads), *rows]),
        f"{several}{_gains(base, sources)}Training: passes of the plain network over the training images in "
        "multiply-adds, statistics and replicates counted. Inference: multiply-adds, times those of the plain network. "
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


def by_accuracy(
    entries: Sequence[Entry], results: Mapping[str, dict[str, Any]]
) -> list[tuple[Entry, list[dict[str, Any]]]]:
    """The entries that have results, with those of each seed, most accurate first."""
    there = [(entry, [results[run.name] for run in entry.runs() if run.name in results]) for entry in entries]
    return sorted(((entry, found) for entry, found in there if found), key=lambda pair: -mean(pair[1], "overall"))


def name_of(entry: Entry, found: Sequence[Mapping[str, Any]]) -> str:
    """What a table calls an entry."""
    return entry.title or str(found[0]["method"])


def mean(found: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a figure of the test set over seeds, NaN where a seed has none."""
    values = [each["test"][name] for each in found]
    return math.nan if None in values else statistics.mean(values)


def deviation(found: Sequence[Mapping[str, Any]], name: str) -> float:
    """Standard deviation of a figure of the test set over seeds, NaN where there are not several."""
    values = [each["test"][name] for each in found]
    return math.nan if None in values or len(values) == 1 else statistics.stdev(values)


def base_accuracy(entries: Sequence[Entry], results: Mapping[str, dict[str, Any]]) -> float | None:
    """Overall accuracy of cross-entropy, if it is among the results."""
    there = by_accuracy(entries, results)
    return next((mean(found, "overall") for _, found in there if found[0]["method"] == BASE), None)


def unexplained(entries: Sequence[Entry], results: Mapping[str, dict[str, Any]]) -> list[str]:
    """Runs whose gain is under half of the least that others report, without a word on why."""
    base = base_accuracy(entries, results)
    if base is None:
        return []
    return [
        entry.name
        for entry, found in by_accuracy(entries, results)
        if entry.published
        and not entry.note
        and mean(found, "overall") - base < EXPLAIN_BELOW * min(each.gain for each in entry.published)
    ]


def _cells(entry: Entry, found: list[dict[str, Any]], base: float | None) -> list[str]:
    commits = dict.fromkeys(each.get("commit") or "-" for each in found)
    seeds = ", ".join(str(each["seed"]) for each in found)
    published = ", ".join(f"{each.gain:+.1f}" for each in entry.published) or "-"
    return [
        name_of(entry, found),
        *(_figure(found, name) for name in COLUMNS),
        *([] if base is None else [f"{mean(found, 'overall') - base:+.2f}", published]),
        f"{statistics.mean(sum(each['training_passes'].values()) for each in found):.1f}",
        f"{statistics.mean(each['inference_ratio'] for each in found):.2f}",
        seeds,
        f"{statistics.mean(each['training_hours'] for each in found):.2f}",
        ", ".join(commits),
        f"`{entry.command}`" if len(found) == 1 else f"`{entry.command} --seed N`",
    ]


def _figure(found: Sequence[Mapping[str, Any]], name: str) -> str:
    """A figure's mean, and its standard deviation over seeds where there are several."""
    value, spread = mean(found, name), deviation(found, name)
    if math.isnan(value):
        return "-"
    return f"{value:.2f}" if math.isnan(spread) else f"{value:.2f} ± {spread:.2f}"


def _hardware(found: dict[str, Any]) -> str:
    known = found["hardware"]
    precision = "float32" if known["amp"] == "none" else known["amp"]
    return f"{known['processor']}, {known['threads']} thread, {precision} forward pass, {found['date']}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
