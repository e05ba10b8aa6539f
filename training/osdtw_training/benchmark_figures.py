"""Results of a list of runs -> its pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from osdtw_models.files import write_whole
from osdtw_training.benchmark_list import Entry
from osdtw_training.benchmark_table import by_accuracy, deviation, mean, name_of

GROUPS = {"many": "#4477aa", "medium": "#ccbb44", "few": "#ee6677"}
OURS, THEIRS = "#aa3377", "#999999"


def draw(title: str, entries: Sequence[Entry], results: Mapping[str, dict[str, Any]], file: Path) -> None:
    """Draw every run's accuracy by group of frequency, and its calibration error beside it, most accurate first.

    Where there are several seeds, bars are means, and lines reach a standard deviation to either side.

    Args:
        title: What the runs have in common.
        entries: The runs.
        results: Content of the results files by name.
        file: PNG file to write.
    """
    shown = by_accuracy(entries, results)
    figure = Figure(figsize=(10, 1.4 + 0.36 * len(shown)), layout="constrained")
    accuracy, calibration = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    places = range(len(shown))
    for offset, (group, colour) in zip((-0.27, 0, 0.27), GROUPS.items(), strict=True):
        values = [mean(found, group) for _, found in shown]
        accuracy.barh([place + offset for place in places], values, 0.25, color=colour, label=group)
    overall = [mean(found, "overall") for _, found in shown]
    accuracy.plot(overall, places, "k|", markersize=17, markeredgewidth=2, label="overall")
    for axes, name in ((accuracy, "overall"), (calibration, "ece")):
        spreads = [deviation(found, name) for _, found in shown]
        axes.errorbar(
            [mean(found, name) for _, found in shown], places, xerr=spreads, fmt="none", ecolor="k", capsize=2
        )
    colours = [OURS if found[0]["method"] == "osdtw" else THEIRS for _, found in shown]
    calibration.barh(places, [mean(found, "ece") for _, found in shown], 0.6, color=colours)
    accuracy.set_yticks(places, [name_of(entry, found).partition(" (=")[0] for entry, found in shown])
    accuracy.invert_yaxis()
    accuracy.set(xlabel="accuracy (%), more is better")
    calibration.set(xlabel="calibration error (%), less is better")
    figure.legend(*accuracy.get_legend_handles_labels(), loc="outside upper right", ncols=4, fontsize="small")
    figure.suptitle(title, x=0.01, ha="left", fontsize="medium")
    write_whole(file, partial(figure.savefig, format="png", dpi=110, metadata={"Software": None}))
