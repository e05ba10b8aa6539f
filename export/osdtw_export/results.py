"""Results files: read, and their values put into words. What cards and the README's table have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from osdtw_export.public_data import DATA_SETS

Results = dict[str, Any]
GROUPS = ("many", "medium", "few")
HEADERS = {"task_right": "right task", "nll": "NLL", "ece": "ECE"}
METHODS = {
    "osdtw": "OSDTW",
    "cross_entropy": "cross-entropy",
    "focal": "focal loss",
    "class_balanced": "class-balanced loss",
    "balanced_softmax": "balanced softmax",
    "logit_adjustment": "logit adjustment, in the loss",
    "logit_adjustment_post_hoc": "logit adjustment, after training",
    "ldam_drw": "LDAM-DRW",
    "crt": "cRT",
    "lws": "LWS",
    "tau_norm": "tau-normalisation",
    "ncm": "nearest class mean",
    "mislas": "MiSLAS",
    "bags": "balanced group softmax",
    "ride": "RIDE, 3 experts",
    "sade": "SADE, 3 experts",
    "nbn": "normalised batch norm",
    "mfm": "meta feature modulator",
}


def read(path: Path) -> Results:
    """Read one results file.

    Returns:
        Its content.

    Raises:
        ValueError: If it is not an object in JSON.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no results; it must be an object as osdtw-train writes it.")
    return values


def hardware_words(hardware: dict[str, Any]) -> str:
    """What a run was made on."""
    threads = f"{hardware['threads']} thread{'' if hardware['threads'] == 1 else 's'}"
    precision = "" if hardware["amp"] == "none" else f", {hardware['amp']} forward pass"
    return f"{hardware['processor']}, {threads}, {hardware['device']}{precision}"


def read_all(folder: Path) -> dict[str, Results]:
    """Read every results file below a folder.

    Returns:
        Their contents by path from ``folder``, without ending.

    Raises:
        ValueError: If one is not an object in JSON.
    """
    return {file.relative_to(folder).with_suffix("").as_posix(): read(file) for file in folder.rglob("*.json")}


def cost_of(results: Results) -> float:
    """Passes of the plain backbone in multiply-adds; older results state the passes alone."""
    return float(sum(results["training_passes"].values()) if "training_passes" in results else results["passes"])


def command_of(results: Results) -> str:
    """What trains such a network again; older results do not state the options."""
    data = "" if results["data"] in DATA_SETS else f" --data {Path(results['data']).name}"
    return str(results.get("command") or f"osdtw-train {results['recipe']}{data}")


def header(column: str) -> str:
    """Head of a figure's column."""
    return HEADERS.get(column, column)


def figure(value: float | None, unit: str = "") -> str:
    """Two digits and the unit; a dash where a group has no class."""
    return "-" if value is None else f"{value:.2f}{unit}"


def row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def incomplete(name: str, error: Exception) -> str:
    """The sentence for results in which a field is missing (KeyError) or of the wrong type."""
    what = f"lack {error}" if isinstance(error, KeyError) else f"have a field of the wrong type ({error})"
    return f"The results of {name} {what}; write them again with this version's osdtw-train."
