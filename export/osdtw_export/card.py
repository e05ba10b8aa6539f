"""The results of a trained network -> its model card: the Hub's metadata and the filled template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from osdtw_export.card_fields import data_name, figures_of, template_fields
from osdtw_export.public_data import DATA_SETS
from osdtw_export.results import GROUPS, Results, incomplete

# What a run's pictures show; a card has them in this order.
CAPTIONS = {
    "class_accuracy.png": "Accuracy of every class over the number of its training images",
    "group_confusion.png": "Where the predictions for many, medium and few fall",
    "class_confusion.png": "Which classes are taken for which, the most frequent first",
    "reliability.png": "Accuracy over confidence",
    "proxy_depth.png": "The proxy's error terms by shared depth, and the plan",
    "proxy_map.png": "The proxy over depth and task weights, and the plan",
    "learning_curves.png": "Training loss, stage by stage",
}
IN_PACKAGE = Path(__file__).with_name("card_template.md")  # where a wheel holds the template
IN_REPOSITORY = Path(__file__).parents[2] / "model_cards" / "template.md"


@dataclass(frozen=True)
class Release:
    """How a trained network is offered.

    Args:
        name: What the card calls it: a packaged checkpoint's ``architecture.tag``, or a repository's name.
        source: What loads it: a packaged name, or "hf-hub:org/name"; the name by default.
        license: The weights' licence, as the Hub spells it.
        figures: Paths of pictures, as the card is to write them; those named in `CAPTIONS` are shown.
        arguments: The network's own, as ``model_args`` of its ``config.json`` has them.
    """

    name: str
    source: str = ""
    license: str = "apache-2.0"
    figures: tuple[str, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


def template() -> str:
    """The text of ``model_cards/template.md``, which wheels have in this package."""
    return (IN_PACKAGE if IN_PACKAGE.is_file() else IN_REPOSITORY).read_text(encoding="utf-8")


def card(release: Release, results: Results, text: str, others: Mapping[str, Results] | None = None) -> str:
    """The card of one trained network.

    Args:
        release: How it is offered.
        results: Content of its ``results.json``; figures are of the test images, or of the held-out ones without them.
        text: Template with ``$field`` places.
        others: Results by name, of the runs that this one was compared with; the card names the peers among them.
            None for a run outside of any study.

    Returns:
        The card: the Hub's metadata, then the filled template.

    Raises:
        ValueError: If the results lack a field that the card states.
    """
    try:
        fields = template_fields(release.name, release.source or release.name, results, others, release.arguments)
        body = Template(text).substitute(fields, pictures="\n".join(_pictures(release.figures)))
        return f"---\n{metadata(release, results).to_yaml()}\n---\n\n{body}"
    except (KeyError, TypeError) as error:
        raise ValueError(incomplete(release.name, error)) from error


def metadata(release: Release, results: Results) -> ModelCardData:
    """What the Hub shows and filters by.

    Args:
        release: How the network is offered.
        results: Content of its ``results.json``.

    Returns:
        The metadata; the model index has the accuracy overall and in many, medium and few, and the calibration error.
    """
    known = DATA_SETS.get(results["data"])
    method = [] if results["method"] == "osdtw" else [results["method"].replace("_", "-")]
    return ModelCardData(
        license=release.license,
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "long-tailed-recognition", "osdtw", "arxiv:2605.24969", *method],
        datasets=[known.hub] if known else None,
        model_name=release.name,
        eval_results=list(_eval_results(results)),
    )


def _eval_results(results: Results) -> Iterator[EvalResult]:
    """The figures of the model index; a group without classes has none."""
    known, factor = DATA_SETS.get(results["data"]), results["imbalance_factor"]
    split, figures = figures_of(results)
    names = {"overall": "Accuracy", **{group: f"Accuracy, {group}" for group in GROUPS}}
    for key, name in {**names, "ece": "Expected calibration error"}.items():
        if figures[key] is not None:
            yield EvalResult(
                task_type="image-classification",
                dataset_type=known.hub if known else Path(results["data"]).name,
                dataset_name=data_name(results),
                dataset_split=split,
                dataset_args=None if factor is None else {"imbalance_factor": factor},
                metric_type="ece" if key == "ece" else "accuracy",
                metric_name=name,
                metric_value=round(figures[key], 2),
            )


def _pictures(figures: tuple[str, ...]) -> Iterator[str]:
    """Lines that show pictures, in the order of `CAPTIONS`."""
    paths = {Path(path).name: path for path in figures}
    for name, caption in CAPTIONS.items():
        if name in paths:
            yield f"![{caption}]({paths[name]})\n"
