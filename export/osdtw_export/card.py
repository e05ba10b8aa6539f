"""Results files -> model cards and the README's table: every number in them comes from a ``results.json``.

``python -m osdtw_export.card`` writes ``model_cards/<release>.md`` from ``model_cards/template.md`` for each released
checkpoint, and the table between the two ``results`` marks of ``README.md`` from all committed results.
``--check`` writes nothing and fails if something would change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

Results = dict[str, Any]
MARKS = ("<!-- results -->", "<!-- /results -->")
GROUPS = ("many", "medium", "few")
COLUMNS = ("overall", *GROUPS, "head", "tail", "nll", "ece")
HEADERS = {"task_right": "right task", "nll": "NLL", "ece": "ECE"}
METHODS = {"osdtw": "OSDTW", "balanced_softmax": "balanced softmax"}
NOT_CALIBRATED = "the level of its proxy is not calibrated yet"
PLANS = {
    "search": f"found by the search; {NOT_CALIBRATED}",
    "search, depth given": f"the weights found by the search at the recipe's depth; {NOT_CALIBRATED}",
    "search, weights given": f"the depth found by the search at the recipe's weights; {NOT_CALIBRATED}",
    "recipe": "given by the recipe, not searched",
}


class DataSet(NamedTuple):
    """What a card says about a public data set: its name, its place on the Hub, its source, what to know of it."""

    title: str
    hub: str
    citation: str
    note: str


DATA_SETS = {
    "cifar100": DataSet(
        "CIFAR-100",
        "uoft-cs/cifar100",
        "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009 (CIFAR-100).",
        "The long-tailed set has the literature's class sizes but not its images: they are drawn from the order of "
        "their SHA-256, which is the same for every copy of the data.",
    )
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check cards and table.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code: 1 if ``--check`` found a difference, 2 after an error that one sentence explains.
    """
    parser = argparse.ArgumentParser("python -m osdtw_export.card", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="root of the repository (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    options = parser.parse_args(argv)
    try:
        documents = render(options.root)
    except (OSError, ValueError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 2
    changed = [path for path, text in documents.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in changed:
        if not options.check:
            path.write_text(documents[path], encoding="utf-8", newline="\n")
        print(f"{'differs' if options.check else 'wrote'}: {path}")
    return 1 if changed and options.check else 0


def render(root: Path) -> dict[Path, str]:
    """The text of every generated document.

    Args:
        root: Root of the repository.

    Returns:
        Texts by path: one card per release, and the README.

    Raises:
        FileNotFoundError: If the template or the README is not under ``root``.
        ValueError: If a results file lacks a field that a document states, or the README lacks its marks.
    """
    template, readme = root / "model_cards" / "template.md", root / "README.md"
    for path in (template, readme):
        if not path.is_file():
            raise FileNotFoundError(f"No {path}; run this at the root of the repository, or give its path.")
    releases = {file.parent.name: _read(file) for file in (root / "osdtw_models" / "weights").glob("*/results.json")}
    others = {file.stem: _read(file) for file in (root / "benchmarks" / "results").glob("*.json")}
    documents = {readme: _between(readme.read_text(encoding="utf-8"), table(releases, others))}
    text = template.read_text(encoding="utf-8")
    for release, results in sorted(releases.items()):
        documents[template.with_name(f"{release}.md")] = card(release, results, text, others)
    return documents


def card(release: str, results: Results, template: str, others: Mapping[str, Results] | None = None) -> str:
    """The card of one released checkpoint.

    Args:
        release: Name of the release, ``architecture.tag``.
        results: Content of its ``results.json``.
        template: Text with ``$field`` places.
        others: Results by name, of runs that are not released; the card names the peers among them.

    Returns:
        The card: the Hub's metadata, then the filled template.

    Raises:
        ValueError: If the results lack a field that the card states.
    """
    try:
        body = Template(template).substitute(_fields(release, results, others or {}))
        return f"---\n{metadata(release, results).to_yaml()}\n---\n\n{body}"
    except (KeyError, TypeError) as error:
        raise ValueError(_incomplete(release, error)) from error


def metadata(release: str, results: Results) -> ModelCardData:
    """What the Hub shows and filters by.

    Args:
        release: Name of the release.
        results: Content of its ``results.json``.

    Returns:
        The metadata, with the overall accuracy as the model index's figure.
    """
    known = DATA_SETS.get(results["data"])
    accuracy = EvalResult(
        task_type="image-classification",
        dataset_type=known.hub if known else Path(results["data"]).name,
        dataset_name=_data_name(results),
        metric_type="accuracy",
        metric_value=results["test"]["overall"],
    )
    return ModelCardData(
        license="apache-2.0",
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "long-tailed-recognition", "arxiv:2605.24969"],
        datasets=[known.hub] if known else None,
        model_name=release,
        eval_results=[accuracy],
    )


def table(releases: Mapping[str, Results], others: Mapping[str, Results]) -> str:
    """Markdown table of runs, one row each, released ones first.

    Args:
        releases: Results by name, of released checkpoints.
        others: Results by name, of runs that are only compared with.

    Returns:
        The table, and below it the hardware; percent but for NLL (nats).

    Raises:
        ValueError: If results lack a field that the table states.
    """
    names = ["method", "network", "plan", "passes", *map(_header, COLUMNS), "seed", "hours", "command"]
    lines, hardware = [_row(names), "|" + "---|" * len(names)], set()
    for runs, mark in ((releases, " (released)"), (others, "")):
        for name, results in sorted(runs.items(), key=lambda run: (run[1].get("method") != "osdtw", run[0])):
            try:
                lines.append(_row(_cells(results, mark)))
                hardware.add(f"Hardware: {_hardware(results['hardware'])}.")
            except (KeyError, TypeError) as error:
                raise ValueError(_incomplete(name, error)) from error
    return "\n".join([*lines, "", *sorted(hardware)])


def _fields(release: str, results: Results, others: Mapping[str, Results]) -> dict[str, Any]:
    """What the template's places are filled with."""
    from osdtw_models.evaluation import FEW_BELOW, MANY_ABOVE, frequency_groups

    counts, trained, plan = results["class_counts"], results["training_counts"], results["plan"]
    known = DATA_SETS.get(results["data"])
    blocks, size = _network(results["model"])
    weights = plan["task_weights"]
    groups = {name: len(classes) for name, classes in frequency_groups(counts).items()}
    tasks = ["head", "tail"] if len(weights) == 2 else [f"task{k}" for k in range(len(weights))]
    columns = ["overall", *tasks, "task_right", *GROUPS, "nll", "ece"]
    return {
        "name": release,
        "architecture": results["model"],
        "recipe": _recipe(results),
        "size": size,
        "blocks": blocks,
        "parameters": f"{results['parameters']:,}",
        "num_tasks": len(weights),
        "data": results["data"] if known else Path(results["data"]).name,
        "data_title": known.title if known else Path(results["data"]).name,
        "data_name": _data_name(results),
        "num_classes": len(counts),
        "largest": max(counts),
        "smallest": min(counts),
        "images": f"{sum(counts):,}",
        "groups": ", ".join(f"{groups[name]} {name}" for name in GROUPS),
        "many_above": MANY_ABOVE,
        "few_below": FEW_BELOW,
        "training_images": f"{sum(trained):,}",
        "holdout_images": f"{sum(counts) - sum(trained):,}",
        "whole_classes": sum(a == b for a, b in zip(counts, trained, strict=True)),
        "test_images": f"{results['test_images']:,}",
        "results": "\n".join(
            [
                _row([_header(column) for column in columns]),
                "|" + "---|" * len(columns),
                _row([_figure(results["test"][column], "" if column == "nll" else " %") for column in columns]),
            ]
        ),
        "peers": " ".join(_peers(results, others)) or "No other method was run at the same passes on the same images.",
        "seed": results["seed"],
        "passes": results["passes"],
        "training_hours": f"{results['training_hours']:.2f}",
        "hardware": _hardware(results["hardware"]),
        "versions": ", ".join(f"{library} {version}" for library, version in results["versions"].items()),
        "date": results["date"],
        "shared_depth": plan["shared_depth"],
        "task_weights": ", ".join(f"{weight:.3f}" for weight in weights),
        "plan_source": _plan_source(plan["source"]),
        "citation": known.citation if known else "",
        "data_note": known.note if known else "The data are the trainer's own.",
    }


def _peers(results: Results, others: Mapping[str, Results]) -> Iterator[str]:
    """A sentence for each run of another method on the same images, with the same network and as many passes."""
    same = ("model", "data", "imbalance_factor", "seed", "passes", "class_counts", "training_counts")
    for _, other in sorted(others.items()):
        if other["method"] != results["method"] and all(other[key] == results[key] for key in same):
            shown = ("overall", *GROUPS, "ece")
            figures = ", ".join(f"{_header(key)} {_figure(other['test'][key], ' %')}" for key in shown)
            yield (
                f"On the same images and at the same passes, {METHODS[other['method']]} reaches {figures} "
                f"(`osdtw-train {_recipe(other)}`)."
            )


def _cells(results: Results, mark: str) -> list[str]:
    """One row of the README's table."""
    plan, test = results.get("plan"), results["test"]
    return [
        METHODS[results["method"]] + mark,
        f"{results['model'].removeprefix('osdtw_')}, {results['parameters']:,} parameters",
        f"{plan['shared_depth']} shared ({plan['source']})" if plan else "one network",
        str(results["passes"]),
        # Only the names of the tasks may be others: head and tail exist for two.
        *(_figure(test.get(column) if column in ("head", "tail") else test[column]) for column in COLUMNS),
        str(results["seed"]),
        f"{results['training_hours']:.2f}",
        f"`osdtw-train {_recipe(results)}`",
    ]


def _network(architecture: str) -> tuple[int, str]:
    """Number of blocks and image size of an architecture."""
    import timm

    from osdtw_models import OsdtwNet, create_model

    if not timm.is_model(architecture):
        raise ValueError(f"The results name the network {architecture!r}, which this version does not have.")
    network = create_model(architecture)
    assert isinstance(network, OsdtwNet)
    _, height, width = network.pretrained_cfg["input_size"]
    return network.backbone.num_blocks, f"{height}x{width}"


def _plan_source(source: str) -> str:
    """Where a plan comes from, in words."""
    if source not in PLANS:
        raise ValueError(f"The plan's source is {source!r}; a card can state {', '.join(map(repr, PLANS))}.")
    return PLANS[source]


def _data_name(results: Results) -> str:
    """The data in words; of a folder only its name, its path is the user's own."""
    known, factor = DATA_SETS.get(results["data"]), results["imbalance_factor"]
    name = known.title if known else Path(results["data"]).name
    return name if factor is None else f"{name}, imbalance factor {factor:g}"


def _hardware(hardware: dict[str, Any]) -> str:
    threads = f"{hardware['threads']} thread{'' if hardware['threads'] == 1 else 's'}"
    precision = "" if hardware["amp"] == "none" else f", {hardware['amp']} forward pass"
    return f"{hardware['processor']}, {threads}, {hardware['device']}{precision}"


def _recipe(results: Results) -> str:
    """Name of the recipe; results of early versions state none."""
    return str(results.get("recipe") or "RECIPE")


def _header(column: str) -> str:
    return HEADERS.get(column, column)


def _figure(value: float | None, unit: str = "") -> str:
    """Two digits and the unit; a dash where a group has no class."""
    return "-" if value is None else f"{value:.2f}{unit}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _incomplete(name: str, error: Exception) -> str:
    what = f"lack {error}" if isinstance(error, KeyError) else f"have a field of the wrong type ({error})"
    return f"The results of {name} {what}; write them again with this version's osdtw-train."


def _between(text: str, table_text: str) -> str:
    """The README with the table between its marks."""
    start, end = (text.find(mark) for mark in MARKS)
    if not 0 <= start < end:
        raise ValueError(f"README.md lacks {MARKS[0]} followed by {MARKS[1]}; put both where the table belongs.")
    return f"{text[: start + len(MARKS[0])]}\n{table_text}\n{text[end:]}"


def _read(path: Path) -> Results:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no results; it must be an object as osdtw-train writes it.")
    return values


if __name__ == "__main__":
    sys.exit(main())
