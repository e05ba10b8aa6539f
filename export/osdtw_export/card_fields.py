"""Results -> what the places of a card's template are filled with, in words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from osdtw_export.public_data import DATA_SETS
from osdtw_export.results import GROUPS, METHODS, Results, command_of, cost_of, figure, hardware_words, header, row

PLANS = {
    "search": "found by the search",
    "search, depth given": "the weights found by the search at the recipe's depth",
    "search, weights given": "the depth found by the search at the recipe's weights",
    "recipe": "given by the recipe, not searched",
}
CLOSED = 'with a "none" class for images of the other tasks. The answers are fused into one set of logits.'
OPEN = (
    'with a "none" for images of the other tasks that is open: the task tells the classes behind it apart, too. So '
    "each task has a logit for every class; the answer is the mean over the tasks."
)
UNKNOWN_DATA = "Of the data nothing is known here but the name and the numbers of images."
NO_PEERS = "No other method was run at the same cost on the same images."
SAME_COST = 0.01  # two costs of training that differ by no more than this part are the same
LEAST = "Of all plans looked at, this one has the least sum of encoder variance, encoder bias and decoder variance."
LEVEL = "The level of the search's proxy was not calibrated by replicates, which favours sharing."


def template_fields(
    name: str, source: str, results: Results, others: Mapping[str, Results] | None, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    """What the template's places are filled with.

    Args:
        name: What the card calls the network.
        source: What loads it.
        results: Content of its ``results.json``.
        others: Results by name, of runs that the card may name as peers; None for a run outside of any study.
        arguments: The network's own, as its ``config.json`` holds them.

    Returns:
        Texts by the name of their place.
    """
    counts, trained = results["class_counts"], results["training_counts"]
    blocks, size = _network(results)
    _, figures = figures_of(results)
    known, data = DATA_SETS.get(results["data"]), Path(results["data"]).name
    return {
        "name": name,
        "source": source,
        "summary": _summary(results, size, blocks, arguments),
        "size": size,
        "data": data,
        "data_title": known.title if known else data,
        "data_name": data_name(results),
        "train_command": command_of(results),
        "num_classes": len(counts),
        "largest": max(counts),
        "smallest": min(counts),
        "images": f"{sum(counts):,}",
        "held_out": _held_out(counts, trained),
        "looked_at": _looked_at(results),
        "groups": results_table(results),
        "tasks": _task_figures(results, figures),
        "calibration": _calibration(results, figures),
        "peers": "" if others is None else " ".join(_peers(results, others)) or NO_PEERS,
        "epoch": _epoch(results),
        "plan": _plan(results, blocks),
        "cost": _cost(results, arguments),
        "origin": _origin(results),
        "passes": results["passes"],
        "citation": f"Data: {known.citation if known else f'{data}.'}",
        "data_note": known.note if known else UNKNOWN_DATA,
    }


def figures_of(results: Results) -> tuple[str, dict[str, Any]]:
    """The split that a card reports, and its figures: the test images, or the held-out ones where there are none."""
    return ("test", results["test"]) if "test" in results else ("holdout", results["holdout"])


def data_name(results: Results) -> str:
    """The data in words; of a folder only its name, its path is the user's own."""
    known, factor = DATA_SETS.get(results["data"]), results["imbalance_factor"]
    name = known.title if known else Path(results["data"]).name
    return name if factor is None else f"{name}, imbalance factor {factor:g}"


def _network(results: Results) -> tuple[int, str]:
    """Number of blocks and image size: as the run wrote them, else those of the architecture."""
    if "blocks" in results:
        return results["blocks"], "x".join(map(str, results["image_size"]))
    import timm

    from osdtw_models import OsdtwNet, create_model

    architecture = results["model"]
    if not timm.is_model(architecture):
        raise ValueError(f"The results name the network {architecture!r}, which this version does not have.")
    network = create_model(architecture)
    assert isinstance(network, OsdtwNet)
    _, height, width = network.pretrained_cfg["input_size"]
    return network.num_blocks, f"{height}x{width}"


def _summary(results: Results, size: str, blocks: int, arguments: Mapping[str, Any]) -> str:
    """The network in a few sentences."""
    widths = f"{'-'.join(map(str, arguments['widths']))} channels, " if arguments.get("widths") else ""
    network = f"The network `{results['model']}` ({widths}{results['parameters']:,} parameters, {size} images)"
    classes = len(results["class_counts"])
    if results["method"] != "osdtw":
        trained = f"trained with {METHODS[results['method']]} for {classes} classes of very different sizes."
        return f"{network}, {trained} Data: {data_name(results)}."
    plan = results["plan"]
    return (
        f"{network} as OSDTW ([arXiv 2605.24969](https://arxiv.org/abs/2605.24969)): {classes} classes are split by "
        f"frequency into {len(plan['task_weights'])} tasks. The tasks share {plan['shared_depth']} of {blocks} blocks; "
        f"each has what follows as its own decoder, {OPEN if arguments.get('open_none') else CLOSED} "
        f"Trained on {data_name(results)}."
    )


def _looked_at(results: Results) -> str:
    """Which images the figures are of."""
    split, figures = figures_of(results)
    if split == "test":
        kind = "whole balanced test set" if results["data"] in DATA_SETS else "test set"
        return f"On the {kind} ({results['test_images']:,} images)"
    images = sum(figures["breakdown"]["reliability"]["images"])
    return f"On the held-out images ({images:,}; there is no test set, and these took part in decisions)"


def _held_out(counts: list[int], trained: list[int]) -> str:
    """How many of the images were kept from training."""
    if counts == trained:
        return "None of them was held out."
    whole = sum(a == b for a, b in zip(counts, trained, strict=True))
    return (
        f"Held out: {sum(counts) - sum(trained):,} of them, never trained on; {whole} classes gave none. Trained on "
        f"the other {sum(trained):,}."
    )


def results_table(results: Results) -> str:
    """Accuracy by class frequency, with how many classes and images stand behind each figure.

    Args:
        results: Content of a ``results.json``.

    Returns:
        A table in Markdown.
    """
    from osdtw_models.evaluation import FEW_BELOW, MANY_ABOVE, frequency_groups

    counts, (_, figures) = results["class_counts"], figures_of(results)
    sizes = (f"more than {MANY_ABOVE}", f"{FEW_BELOW} to {MANY_ABOVE}", f"fewer than {FEW_BELOW}")
    lines = [row(["group", "images of a class", "classes", "images", "accuracy"]), "|" + "---|" * 5]
    lines.append(row(["overall", "any", str(len(counts)), f"{sum(counts):,}", figure(figures["overall"], " %")]))
    for size, (name, classes) in zip(sizes, frequency_groups(counts).items(), strict=True):
        images = f"{sum(counts[c] for c in classes):,}"
        lines.append(row([name, size, str(len(classes)), images, figure(figures[name], " %")]))
    return "\n".join(lines)


def _task_figures(results: Results, figures: dict[str, Any]) -> str:
    """What is right in each task's classes; nothing to say of other methods."""
    from osdtw_models.evaluation import task_names

    if results["method"] != "osdtw":
        return ""
    names = task_names(len(results["plan"]["task_weights"]))
    each = ", ".join(f"{name} {figure(figures[name], ' %')}" for name in names)
    return f"By task: {each}; the prediction falls into the right task for {figure(figures['task_right'], ' %')}.\n"


def _calibration(results: Results, figures: dict[str, Any]) -> str:
    """How far confidence can be trusted, and what was fitted to that end."""
    text = (
        f"Calibration error (ECE) {figure(figures['ece'], ' %')}, negative log-likelihood {figure(figures['nll'])} nats"
    )
    if "calibration" not in results:
        return f"{text}; the probabilities are those of training, nothing was fitted afterwards."
    fitted, (split, _) = results["calibration"], figures_of(results)
    before = fitted["before"][split]
    temperatures, biased = {t for t, _ in fitted["tasks"]}, any(b for _, b in fitted["tasks"])
    if len(temperatures) == 1:
        what = "one temperature and a bias of each task were" if biased else "one temperature was"
    else:
        what = "a temperature and a bias of each task were" if biased else "the tasks' temperatures were"
    return (
        f"{text}, after {what} fitted on {fitted['images']:,} held-out images "
        f"(before: {figure(before['ece'], ' %')}, {figure(before['nll'])} nats)."
    )


def _peers(results: Results, others: Mapping[str, Results]) -> Iterator[str]:
    """A sentence for each run of another method on the same images, with the same network, at the same cost."""
    same = ("model", "data", "imbalance_factor", "seed", "class_counts", "training_counts")
    for _, other in sorted(others.items()):
        alike = other["method"] != results["method"] and all(other[key] == results[key] for key in same)
        if alike and math.isclose(cost_of(other), cost_of(results), rel_tol=SAME_COST):
            shown = ("overall", *GROUPS, "ece")
            figures = ", ".join(f"{header(key)} {figure(other['test'][key], ' %')}" for key in shown)
            yield (
                f"On the same images and at the same cost of training, {METHODS[other['method']]} reaches {figures} "
                f"(`{command_of(other)}`)."
            )


def _epoch(results: Results) -> str:
    """Whose weights they are."""
    if "epoch_taken" not in results:
        return "The weights are those of the last epoch."
    taken = results["epoch_taken"]
    return (
        f"The weights are those after epoch {taken['epochs']} of {taken['of']} of stage {taken['stage']}, the best by "
        f"{taken['metric']} on the held-out images."
    )


def _plan(results: Results, blocks: int) -> str:
    """Depth and weights, who chose them, and why."""
    if results["method"] != "osdtw":
        return f"None: {METHODS[results['method']]} divides nothing into tasks."
    plan = results["plan"]
    if plan["source"] not in PLANS:
        raise ValueError(f"The plan's source is {plan['source']!r}; a card can state {', '.join(map(repr, PLANS))}.")
    weights = ", ".join(f"{weight:.3f}" for weight in plan["task_weights"])
    text = f"{plan['shared_depth']} of {blocks} blocks shared, task weights {weights}: {PLANS[plan['source']]}."
    if plan["source"] != "recipe":
        text += f" {plan.get('why', LEAST)}"
        if not plan.get("level_calibrated"):
            text += f" {LEVEL}"
    return text


def _cost(results: Results, arguments: Mapping[str, Any]) -> str:
    """What training and a prediction took."""
    plain = "plain backbone of the usual widths" if arguments.get("widths") else "plain backbone"
    text = (
        f"{results['passes']} passes, each task's own ones counted; {results['training_hours']:.2f} hours of "
        f"wall-clock, with whatever else the machine did and without the search "
        f"({hardware_words(results['hardware'])}). Passes compare runs, hours do not."
    )
    if "training_passes" in results:
        text += f" In multiply-adds of the {plain}, statistics counted: {cost_of(results):.1f} passes."
    if "inference_ratio" in results:
        text += f" A prediction takes {results['inference_ratio']:.2f} times the multiply-adds of the {plain}."
    return text


def _origin(results: Results) -> str:
    """Seed, versions, commit and day."""
    versions = [f"{library} {version}" for library, version in results["versions"].items()]
    commit = [f"commit {results['commit']}"] if results.get("commit") else []
    return ", ".join([f"Seed {results['seed']}", *versions, *commit, results["date"]])
