"""Class priors at test time: the fused posterior under another one, and the ways users name it.

The fused logits are those of a balanced target (theory.md Prop 8): log q(y | x) with every class equally likely. Under
class frequencies pi Bayes' rule gives q'(y | x) in proportion to q(y | x) pi_y: adding log pi is exact.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def under_prior(logits: Array, prior: Sequence[float] | None) -> Array:
    """Fused logits under another class prior (theory.md Prop 8).

    Args:
        logits: Fused, balanced logits, shape (B, C).
        prior: Weight of each class, length C, of any sum; None = balanced. A class of weight 0 is never predicted.

    Returns:
        Logits, shape (B, C); their softmax is the posterior under the prior.

    Raises:
        ValueError: If the weights are not one per class, negative, not finite, or all zero.
    """
    if prior is None:
        return logits
    weights = np.asarray(prior, dtype=np.float64)
    if weights.shape != logits.shape[1:]:
        raise ValueError(f"The prior has {weights.size} weights for {logits.shape[1]} classes; give one per class.")
    if not np.isfinite(weights).all() or weights.min() < 0 or not weights.any():
        raise ValueError("The weights of a prior must be finite and at least 0, and one of them above 0.")
    with np.errstate(divide="ignore"):
        shift = np.log(weights / weights.max())
    return (logits + shift).astype(np.float32)


def resolve_prior(
    wanted: str | Sequence[float],
    class_counts: Sequence[int] | None,
    label_names: Sequence[str] | None,
) -> list[float] | None:
    """The prior that a user named.

    Args:
        wanted: "balanced"; "training"; a file (a JSON list, one number a line, or a CSV of label and weight); or the
            weights themselves.
        class_counts: Training images per class, if known.
        label_names: Name of each class, if known.

    Returns:
        A weight per class, or None for the balanced prior.

    Raises:
        ValueError: If the training prior is not known, or the file makes no sense.
        FileNotFoundError: If there is no such file.
    """
    if not isinstance(wanted, str):
        return [float(weight) for weight in wanted]
    if wanted == "balanced":
        return None
    if wanted == "training":
        if class_counts is None:
            raise ValueError(
                "This network does not say how many training images its classes had; give the prior as a file."
            )
        return [float(count) for count in class_counts]
    file = Path(wanted)
    if not file.is_file():
        raise FileNotFoundError(f"There is no prior {wanted!r}; choose balanced, training, or a file of weights.")
    try:
        return _read(file.read_text(encoding="utf-8-sig"), label_names)
    except (ValueError, TypeError, RecursionError, OverflowError, csv.Error) as error:
        raise ValueError(
            f"{file} is no prior ({error}); give a JSON list, one number a line, or lines of label,weight."
        ) from error


def _read(text: str, label_names: Sequence[str] | None) -> list[float]:
    if text.lstrip().startswith("["):
        return [_number(value) for value in json.loads(text)]
    rows = [row for row in csv.reader(text.splitlines()) if row]
    if not any(len(row) > 1 for row in rows):
        return [_number(row[0]) for row in rows]
    if any(len(row) != 2 for row in rows):
        raise ValueError("some lines have not two columns")
    if rows[0] == ["label", "weight"]:
        rows = rows[1:]
    given = {label: _number(weight) for label, weight in rows}
    names = list(label_names or map(str, range(len(rows))))
    if len(given) != len(rows) or set(given) != set(names):
        odd = sorted(set(given) ^ set(names))
        raise ValueError(f"its labels are not the network's: {odd[0]!r}" if odd else "a label is there twice")
    return [given[name] for name in names]


def _number(value: object) -> float:
    number = float(value)  # type: ignore[arg-type]
    if isinstance(value, bool) or not math.isfinite(number):
        raise ValueError(f"{value!r} is no weight")
    return number
