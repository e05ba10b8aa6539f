"""Run folder -> pictures: how good the network is, class by class, what it confuses, and what the proxy saw.

They are as wide as a phone, so that their text can be read there; on a larger screen two stand side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from osdtw_models.evaluation import FEW_BELOW, MANY_ABOVE
from osdtw_models.files import write_whole
from osdtw_training import store
from osdtw_training.mistakes import read_confusion
from osdtw_training.runs import Run
from osdtw_training.search import error_terms, weight_grid
from osdtw_training.terms import Terms

SIZE, DPI = (4.4, 3.2), 200  # inches, dots an inch: sharp on a phone and below 100 kB
NAMED = 20  # classes whose names fit beside a picture
CELLS = 200  # rows of a confusion matrix at most; of more classes neighbours in size share one
COLOURS = {"encoder variance": "#4477aa", "encoder bias": "#ee6677", "decoder variance": "#ccbb44"}


def draw(run: Run) -> list[Path]:
    """Draw every picture that the run folder has the data for.

    Args:
        run: Run folder.

    Returns:
        The files written.
    """
    with matplotlib.rc_context({"font.size": 9, "axes.titlesize": 10}):
        return _draw(run)


def _draw(run: Run) -> list[Path]:
    drawn = []
    if run.metrics():
        drawn.append(_save(learning_curves(run.metrics()), run, "learning_curves.png"))
    if (run.folder / "results.json").is_file():
        results = run.read_json("results.json")
        drawn += [_save(figure, run, name) for name, figure in of_results(results)]
        if (confusion := read_confusion(run.folder)) is not None:
            names = run.read_json("config.json")["label_names"]
            picture = class_confusion(confusion, results["class_counts"], names)
            drawn.append(_save(picture, run, "class_confusion.png"))
    if store.has(run):
        plan = run.read_json("plan.json")
        statistics, _ = store.load(run)
        weights = weight_grid(len(plan["task_weights"]), plan["grid"]["points"])
        terms = error_terms(statistics, weights, plan["grid"]["damping"], plan["grid"]["debias"])
        drawn.append(_save(depth_terms(terms, plan), run, "proxy_depth.png"))
        if len(plan["task_weights"]) == 2:
            drawn.append(_save(heat_map(terms, plan), run, "proxy_map.png"))
    return drawn


def of_results(results: dict[str, Any]) -> Iterator[tuple[str, Figure]]:
    """The pictures of a results file, with their file names."""
    split = "test" if "test" in results else "holdout"
    if split in results:
        yield "class_accuracy.png", class_accuracy(results, split)
    if "breakdown" in results.get(split, {}):
        yield "reliability.png", reliability(results, split)
        yield "group_confusion.png", group_confusion(results[split]["breakdown"])


def learning_curves(rows: list[dict[str, Any]]) -> Figure:
    """Training loss over the epochs of every stage, the stages one after another."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    start = 0
    for stage in dict.fromkeys(row["stage"] for row in rows):
        losses = [row["loss"] for row in rows if row["stage"] == stage]
        axes.plot(range(start + 1, start + 1 + len(losses)), losses, marker=".", label=stage)
        start += len(losses)
    axes.set(xlabel="passes over the data", ylabel="training loss (nats)", title="Learning curves")
    figure.legend(loc="outside lower center", ncols=3, fontsize="small")
    return figure


def class_accuracy(results: dict[str, Any], split: str = "test") -> Figure:
    """Class sizes with each class's accuracy over them, most frequent class first."""
    counts = np.array(results["class_counts"])
    accuracy = np.array([np.nan if a is None else a for a in results[split]["per_class"]], dtype=float)
    order = np.argsort(-counts, kind="stable")
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.fill_between(range(len(counts)), counts[order], step="mid", color="#bbbbbb")
    axes.set(xlabel="classes, most frequent first", ylabel="training images (grey)", yscale="log")
    over = axes.twinx()
    over.plot(range(len(counts)), accuracy[order], ".", color="#aa3377", markersize=5 if len(counts) < 200 else 2)
    over.set(ylabel=f"{split} accuracy (%, dots)", ylim=(-3, 103), title="Accuracy over class frequency")
    return figure


def reliability(results: dict[str, Any], split: str = "test") -> Figure:
    """Accuracy over confidence, and before calibration where there was one."""
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 100], [0, 100], color="#bbbbbb", label="as right as sure")
    shown = {"": results[split]}
    if "calibration" in results:
        shown = {"before calibration": results["calibration"]["before"][split], "calibrated": results[split]}
    for name, figures in shown.items():
        bins = figures["breakdown"]["reliability"]
        pairs = zip(bins["confidence"], bins["accuracy"], strict=True)
        known = [pair for pair in pairs if pair[0] is not None]
        error = f"calibration error {figures['ece']:.1f} %"
        axes.plot(*zip(*known, strict=True), ".-", label=f"{name}: {error}" if name else error)
    axes.set(xlabel="confidence (%)", ylabel="accuracy (%)", title="Reliability", xlim=(0, 100), ylim=(0, 100))
    axes.legend(fontsize="small")
    return figure


def group_confusion(breakdown: dict[str, Any]) -> Figure:
    """Where predictions for images of many, medium and few fall."""
    groups, shares = breakdown["groups"], np.array(breakdown["group_confusion"], dtype=float)
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=100)
    for (row, column), share in np.ndenumerate(shares):
        axes.text(column, row, f"{share:.0f} %", ha="center", va="center", color="w" if share > 60 else "k")
    places = range(len(groups))
    axes.set_xticks(places, groups)
    axes.set_yticks(places, groups)
    axes.set(xlabel="predicted group", ylabel="true group", title="Confusion between groups")
    return figure


def class_confusion(confusion: NDArray[np.int64], counts: Sequence[int], names: Sequence[str]) -> Figure:
    """What the images of each class are taken for, classes from the most to the least frequent.

    Args:
        confusion: Rows of (true class, predicted class, images), shape (R, 3).
        counts: Training images per class.
        names: Names of the classes.

    Returns:
        The picture: right on the diagonal; lines where many becomes medium and medium few.
    """
    sizes = np.array(counts)
    order = np.argsort(-sizes, kind="stable")
    cells = min(len(sizes), CELLS)
    cell = np.empty_like(order)
    cell[order] = np.arange(len(sizes)) * cells // len(sizes)
    images = np.zeros((cells, cells))
    np.add.at(images, (cell[confusion[:, 0]], cell[confusion[:, 1]]), confusion[:, 2])
    shares = 100 * images / np.maximum(images.sum(1, keepdims=True), 1)
    figure = Figure(figsize=(4.4, 4.0), layout="constrained")
    axes = figure.subplots()
    shown = axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 100))
    for border in ((sizes > MANY_ABOVE).sum(), (sizes >= FEW_BELOW).sum()):
        if 0 < border < len(sizes):
            axes.axhline(border * cells / len(sizes) - 0.5, color="#999999", linewidth=0.6)
            axes.axvline(border * cells / len(sizes) - 0.5, color="#999999", linewidth=0.6)
    if len(sizes) <= NAMED:
        labels = [_plain(names[c]) for c in order]
        axes.set_xticks(range(cells), labels, rotation=90)
        axes.set_yticks(range(cells), labels)
    axes.set(xlabel="predicted class", ylabel="true class, most frequent first", title="Confusion by class")
    figure.colorbar(shown, label="% of the true class (root scale)", shrink=0.8)
    return figure


def depth_terms(terms: Terms, plan: dict[str, Any]) -> Figure:
    """The three error terms stacked by shared depth, each depth at its best weights; the plan is marked."""
    best = terms.proxy.argmin(1)
    depths = np.arange(len(best))
    values = {
        "encoder variance": terms.encoder_variance[depths, best].numpy(),
        "encoder bias": terms.encoder_bias[depths, best].numpy(),
        "decoder variance": terms.decoder_variance.numpy(),
    }
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    up, down = np.zeros(len(depths)), np.zeros(len(depths))
    for name, value in values.items():  # a debiased bias can be negative: it hangs below zero
        axes.bar(depths, value, bottom=np.where(value >= 0, up, down), label=name, color=COLOURS[name])
        up, down = up + np.maximum(value, 0), down + np.minimum(value, 0)
    axes.plot(depths, terms.proxy[depths, best].numpy(), "k.-", label="proxy (sum)")
    axes.axvline(plan["shared_depth"], color="k", linestyle=":", label=f"plan: {plan['shared_depth']} shared")
    axes.set(xlabel="shared blocks", ylabel="expected error (nats)", title="Error terms by shared depth")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return figure


def heat_map(terms: Terms, plan: dict[str, Any]) -> Figure:
    """The proxy over shared depth and tail weight, above its minimum; the plan is marked."""
    excess = (terms.proxy - terms.proxy.min()).numpy()
    figure = Figure(figsize=SIZE, layout="constrained")
    axes = figure.subplots()
    logit = terms.weights[:, 1].logit().numpy()
    image = axes.pcolormesh(logit, np.arange(len(excess)), np.log10(excess + 1e-3 * excess.max()), cmap="viridis")
    ticks = np.array([0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95])
    axes.set_xticks(np.log(ticks / (1 - ticks)), [f"{tick:g}" for tick in ticks])
    head, tail = plan["task_weights"]
    axes.plot(np.log(tail / head), plan["shared_depth"], "r*", markersize=14, label="plan")
    axes.set(xlabel="tail weight", ylabel="shared blocks", title="Proxy by depth and weight (dark is good)")
    axes.legend(loc="upper right")
    figure.colorbar(image, label="log10 of nats above the least")
    return figure


def _plain(name: str) -> str:
    """A class name as a label: short, and no formula where it has dollars."""
    return (name if len(name) <= 14 else f"{name[:13]}…").replace("$", r"\$")


def _save(figure: Figure, run: Run, name: str) -> Path:
    return save(figure, run.folder / name)


def save(figure: Figure, path: Path) -> Path:
    """Write a picture as PNG; returns its path."""
    write_whole(path, lambda new: figure.savefig(new, format="png", dpi=DPI))
    return path
