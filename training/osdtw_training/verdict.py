"""Results in a few plain sentences: how good, where bad, how honest its confidence, beside which others, what plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from osdtw_models.evaluation import FEW_BELOW, MANY_ABOVE, task_names
from osdtw_training.class_rows import Row
from osdtw_training.comparison import Compared

GROUP_WORDS = {
    "many": f"more than {MANY_ABOVE}",
    "medium": f"{FEW_BELOW} to {MANY_ABOVE}",
    "few": f"fewer than {FEW_BELOW}",
}


def sentences(
    figures: Mapping[str, Any], rows: Sequence[Row], worst: Sequence[int], compared: Sequence[Compared], split: str
) -> Iterator[str]:
    """What a reader of a report wants to know first.

    Args:
        figures: Figures of a set of images, as ``results.json`` has them.
        rows: See `osdtw_training.class_rows.rows_of`.
        worst: The worst classes, worst first.
        compared: The run among those beside it, most accurate first.
        split: Whose figures they are.

    Yields:
        Sentences, as text.
    """
    groups = [row for row in rows if row["of"] == "group" and row["accuracy"] is not None]
    if len(groups) > 1:
        weakest = min(groups, key=lambda row: row["accuracy"] or 0)
        yield f"Weakest where a class has {GROUP_WORDS[weakest['name']]} training images: {weakest['accuracy']:.1f} %."
    classes = [row for row in rows if row["of"] == "class"]
    if worst:
        row = classes[worst[0]]
        taken = f", most often taken for {row['taken_for']}" if row["taken_for"] else ""
        yield f"Worst class: {row['name']} ({row['training_images']} training images), {row['accuracy']:.0f} %{taken}."
    yield from _confidence(figures)
    yield from _rank(compared, split)


def plan_sentences(results: Mapping[str, Any], plan: Mapping[str, Any]) -> Iterator[str]:
    """What the tasks share, how they are weighed, and why.

    Args:
        results: Content of ``results.json``; says what was trained.
        plan: Content of ``plan.json``; says why, and may be of a later search.

    Yields:
        Sentences, as text.
    """
    trained = results["plan"]
    terms = plan.get("terms_nats")
    of = f" of {len(terms['proxy']) - 1}" if terms else ""
    weights = zip(task_names(len(trained["task_weights"])), trained["task_weights"], strict=True)
    each = ", ".join(f"{name} {weight:.2f}" for name, weight in weights)
    by = "as the recipe says" if trained["source"] == "recipe" else f"found by {trained['source']}"
    yield f"Plan: the tasks share {trained['shared_depth']}{of} blocks, with weights {each}; {by}."
    if any(plan.get(key) != trained[key] for key in ("shared_depth", "task_weights")):
        yield (
            "The network keeps the plan that it was trained with; a later search, whose pictures these are, chose "
            f"{plan['shared_depth']} shared blocks."
        )
    if "why" in plan:
        yield plan["why"]


def _confidence(figures: Mapping[str, Any]) -> Iterator[str]:
    bins = figures.get("breakdown", {}).get("reliability")
    if not bins or not sum(bins["images"]):
        return
    known = [row for row in zip(bins["images"], bins["confidence"], bins["accuracy"], strict=True) if row[0]]
    total = sum(images for images, _, _ in known)
    sure, right = (sum(row[0] * row[k] for row in known) / total for k in (1, 2))
    gap = f"{abs(sure - right):.1f} points {'surer' if sure > right else 'less sure'} than it is right"
    yield f"On average it is {gap} (calibration error {figures['ece']:.1f} %)."


def _rank(compared: Sequence[Compared], split: str) -> Iterator[str]:
    if len(compared) < 2:
        return
    place = next(i for i, run in enumerate(compared) if run.own)
    other = compared[1 if place == 0 else 0]
    found = f"{other.folder}/ ({other.results['method']}), {other.results[split]['overall']:.1f} %"
    yield f"Number {place + 1} of {len(compared)} runs on the same images; the best of the others is {found}."
