"""The results of a released checkpoint -> its model card: the Hub's metadata and the filled template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from osdtw_export.results import GROUPS, METHODS, Results, figure, hardware_words, header, incomplete, row

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
        raise ValueError(incomplete(release, error)) from error


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


def _fields(release: str, results: Results, others: Mapping[str, Results]) -> dict[str, Any]:
    """What the template's places are filled with."""
    from osdtw_models.evaluation import FEW_BELOW, MANY_ABOVE, frequency_groups, task_names

    counts, trained, plan = results["class_counts"], results["training_counts"], results["plan"]
    known = DATA_SETS.get(results["data"])
    blocks, size = _network(results["model"])
    weights = plan["task_weights"]
    groups = {name: len(classes) for name, classes in frequency_groups(counts).items()}
    columns = ["overall", *task_names(len(weights)), "task_right", *GROUPS, "nll", "ece"]
    return {
        "name": release,
        "architecture": results["model"],
        "recipe": results["recipe"],
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
                row([header(column) for column in columns]),
                "|" + "---|" * len(columns),
                row([figure(results["test"][column], "" if column == "nll" else " %") for column in columns]),
            ]
        ),
        "peers": " ".join(_peers(results, others)) or "No other method was run at the same passes on the same images.",
        "seed": results["seed"],
        "passes": results["passes"],
        "training_hours": f"{results['training_hours']:.2f}",
        "hardware": hardware_words(results["hardware"]),
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
            figures = ", ".join(f"{header(key)} {figure(other['test'][key], ' %')}" for key in shown)
            yield (
                f"On the same images and at the same passes, {METHODS[other['method']]} reaches {figures} "
                f"(`osdtw-train {other['recipe']}`)."
            )


def _network(architecture: str) -> tuple[int, str]:
    """Number of blocks and image size of an architecture."""
    import timm

    from osdtw_models import OsdtwNet, create_model

    if not timm.is_model(architecture):
        raise ValueError(f"The results name the network {architecture!r}, which this version does not have.")
    network = create_model(architecture)
    assert isinstance(network, OsdtwNet)
    _, height, width = network.pretrained_cfg["input_size"]
    return network.num_blocks, f"{height}x{width}"


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
