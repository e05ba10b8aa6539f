"""Studies -> tables of docs/theory.md and docs/proxy.md: every number in them comes from benchmarks/studies.

    python benchmarks/proxy_tables.py [--check]

``--check`` writes nothing and fails if a document would change.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from study_tables import between, main, table

ROOT = Path(__file__).parents[1]
NAMES = {
    "training_fisher": "training Fisher for target Fisher, tasks independent",
    "own_n": "the same, each task's own number of images",
    "target_fisher": "target Fisher, tasks independent, blocks diagonal",
    "sandwich": "+ sandwich and cross term",
    "full": "+ whole matrices (Schur complement)",
    "no_cross": "the same without the cross term",
}
DEBIASING = {"none": "none", "block": "by each layer's own Fisher", "full": "by marginal variances"}


def render(root: Path) -> dict[Path, str]:
    """Both documents with their tables made anew, by path."""
    studies = root / "benchmarks" / "studies"
    simulation = json.loads((studies / "proxy_simulation.json").read_text(encoding="utf-8"))
    grid = json.loads((studies / "proxy_grid.json").read_text(encoding="utf-8"))
    costs = json.loads((studies / "proxy_cost.json").read_text(encoding="utf-8"))
    tables = {
        "docs/theory.md": {"single-sample": single_sample(simulation), "two-samples": two_samples(simulation)},
        "docs/proxy.md": {
            "grid": cells(grid),
            "ranks": ranks(grid),
            "sampling": sampling(grid),
            "cost": cost(grid, costs),
            "noise": noise(grid),
        },
    }
    documents = {}
    for name, parts in tables.items():
        text = (root / name).read_text(encoding="utf-8")
        for mark, part in parts.items():
            text = between(text, mark, part)
        documents[root / name] = text
    return documents


def single_sample(study: dict[str, Any]) -> str:
    """Ratio of simulated to predicted risk, and the weights each prediction would choose."""
    cases = [case for case in study["single_sample"] if case["images"] in (1_000, 64_000)]
    titles = [f"d = {case['delta']:g}, N = {case['images'] // 1000}k" for case in cases]
    rows = []
    for name, words in NAMES.items():
        row = [words]
        for case in cases:
            found = case["predictions"][name]
            low, high = found["ratio"]
            row.append(f"{low:.2f}-{high:.2f}; {found['best_tail_weight']:.2f} ({found['regret_percent']:.1f} %)")
        rows.append(row)
    simulated = ["*simulation*", *(f"1; {case['best_tail_weight']:.2f}" for case in cases)]
    worst = max(case["standard_error"] for case in study["single_sample"])
    notes = (
        f"Simulated over predicted risk, range over tail weights 0.1 to 0.9; the best tail weight (its regret). "
        f"{study['repetitions']} repetitions, seed {study['seed']}, standard error at most {100 * worst:.1f} %, "
        f"{study['seconds']:.0f} s on {study['hardware']['processor']}, one thread, {study['date']}: "
        f"`{study['command']}`."
    )
    return table(["prediction", *titles], [*rows, simulated]) + "\n\n" + notes


def two_samples(study: dict[str, Any]) -> str:
    """Depths chosen from estimates, with and without debiasing."""
    rows = []
    for case in study["two_samples"]:
        for name, found in case["choices"].items():
            rows.append(
                [
                    str(case["tail_images"]),
                    DEBIASING[name],
                    f"{found['mean_depth']:.2f}",
                    str(case["best_depth"]),
                    f"{found['regret_percent']:.1f} %",
                ]
            )
    return table(["tail images", "debiasing", "mean depth chosen", "best depth", "mean regret"], rows)


def cells(study: dict[str, Any]) -> str:
    """Task loss and balanced accuracy of the grid, one seed after the other."""
    rows = []
    for cell in sorted(study["cells"], key=lambda c: (c["seed"], c["depth"], c["tail_weight"])):
        weight = f"{cell['tail_weight']:g}" if cell["depth"] else "any"
        head, tail = cell["task_losses"]
        losses = [f"{head:.3f}", f"{tail:.3f}", f"{cell['task_loss']:.3f}", f"{cell['calibrated_loss']:.3f}"]
        groups = [f"{cell[key]:.2f}" for key in ("balanced", "many", "medium", "few")]
        rows.append([str(cell["seed"]), str(cell["depth"]), weight, *losses, *groups])
    heads = ["seed", "shared", "tail weight", "head loss", "tail loss", "sum", "sum, calibrated"]
    return table([*heads, "accuracy", "many", "medium", "few"], rows)


def ranks(study: dict[str, Any]) -> str:
    """Spearman's correlations of every proxy with the grid, the plan, and its regret."""
    goals = ("task_loss", "calibrated_loss", "balanced")

    def shown(values: dict[str, Any]) -> list[str]:
        return ["-" if values[goal] is None else f"{values[goal]:.2f}" for goal in goals]

    rows = []
    for name, row in study["proxies"].items():
        depth, tail_weight = row["least_cell"]
        rows.append([name, *shown(row["spearman"]), f"{depth}, {tail_weight:g}", *plan_of(row)])
    rows.append(["*another seed of the grid (ceiling)*", *shown(study["ceiling"]), *[""] * 4])
    rows.append(["*the loss itself*", "1", "-", f"{study['loss_and_accuracy']:.2f}", *[""] * 4])
    heads = ["proxy", "task loss", "calibrated loss", "accuracy", "its least cell", "plan: shared, tail weight"]
    return table([*heads, "regret, points", "regret, nats"], rows)


def plan_of(row: dict[str, Any]) -> list[str]:
    """A plan and its regrets as three cells of a table."""
    plan = row["plan"]
    text = f"{plan['shared_depth']}, {plan['tail_weight']:.2f}" + (" (edge)" if plan["edge"] else "")
    return [text, f"{row['regret_points']:.2f}", f"{row['regret_nats']:.3f}"]


def sampling(study: dict[str, Any]) -> str:
    """The default search on other samples of images."""
    rows = []
    for row in study["sampling"]:
        ranks = [f"{row['spearman'][goal]:.2f}" for goal in ("task_loss", "balanced")]
        low, high = row["as_good_depths"]
        rows.append([str(row["images"]), str(row["seed"]), *ranks, f"{low} to {high}", *plan_of(row)])
    heads = ["images", "seed", "task loss", "accuracy", "as good: shared", "plan: shared, tail weight"]
    return table([*heads, "regret, points", "regret, nats"], rows)


def noise(study: dict[str, Any]) -> str:
    """What the tasks' noise costs with batch norm held fixed and recalibrated."""
    rows = [[name, *(f"{value:.3f}" for value in values)] for name, values in study["noise_cost"].items()]
    return table(["batch norm", "head, nats", "tail, nats"], rows)


def cost(study: dict[str, Any], costs: dict[str, Any]) -> str:
    """What statistics and search cost: beside the grid, and on ResNet-32 beside an epoch of training."""
    grid, epoch = study["seconds"]["grid"], costs["training_epoch"]
    rows = []
    for name, row in costs["structures"].items():
        both = sum(study["proxies"][name]["seconds"].values())
        statistics = f"{row['statistics']:.0f} s = {row['statistics'] / epoch:.2f} epochs"
        search = f"{row['search']:.2f} s = {row['search'] / epoch:.1%} of an epoch"
        error = f"{study['proxies'][name]['trace_error']:.0%}"
        rows.append([name, str(row["images"]), error, statistics, search, f"{grid / both:.0f}"])
    heads = ["structure", "images", "error of the trace", "statistics, ResNet-32", "search, ResNet-32"]
    hardware, large = costs["hardware"], costs["large"]
    size = f"{large['parameters_of_a_task'] / 1e6:.0f} million parameters"
    note = (
        f"Diagonal statistics of two task networks of {size} each peak at {large['peak_gigabytes']:.1f} GB; for "
        f"`refit` such networks are too large, and it says so. An epoch of ResNet-32 takes {epoch:.0f} s, one seed "
        f"of the grid took {grid / 3600:.1f} hours. "
        f"{hardware['processor']}, one thread, {hardware['amp']} training, {costs['date']}: `{costs['command']}` and "
        f"`{study['command']}` ({study['date']}, two processes side by side)."
    )
    return table([*heads, "ResNet-14: grid / both"], rows) + "\n\n" + note


if __name__ == "__main__":
    sys.exit(main(__doc__, lambda: render(ROOT)))
