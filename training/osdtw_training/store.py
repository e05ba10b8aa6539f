"""Statistics in a run folder: ``checkpoints/statistics.safetensors``, whatever their structure."""

from __future__ import annotations

from typing import Any

from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.responses import Responses
from osdtw_training.runs import Run

NAME = "statistics"
FIELDS = ("curvature", "scores", "target", "optimum", "replicates")


def save(run: Run, statistics: Statistics | Responses, seconds: float) -> None:
    """Keep statistics in the run folder, with the seconds they took."""
    state: dict[str, Any] = {
        "damping": statistics.damping,
        "trace_error": statistics.trace_error,
        "samples": statistics.samples,
        "seconds": seconds,
    }
    if isinstance(statistics, Responses):
        tensors = {name: getattr(statistics, name) for name in ("slopes", "gram")}
        run.save_checkpoint(NAME, tensors, state)
        return
    tensors = {
        f"block{i}.{name}": value
        for i, block in enumerate(statistics.blocks, 1)
        for name in FIELDS
        if (value := getattr(block, name)) is not None
    }
    run.save_checkpoint(NAME, tensors, {**state, "blocks": statistics.num_blocks, "num_images": statistics.num_images})


def load(run: Run) -> tuple[Statistics | Responses, float]:
    """Statistics of a run folder, and the seconds they took.

    Returns:
        The statistics and the seconds.

    Raises:
        FileNotFoundError: If the run has none yet.
    """
    saved = run.load_checkpoint(NAME)
    if saved is None:
        raise FileNotFoundError(
            f"{run.folder} has no statistics yet; osdtw-train writes them after stage 1 unless both --shared-depth "
            "and --task-weights are given."
        )
    tensors, state = saved
    if "slopes" in tensors:
        found = Responses(tensors["slopes"], tensors["gram"], state["damping"], state["trace_error"])
        return found, state["seconds"]
    blocks = tuple(
        BlockStatistics(*(tensors.get(f"block{i}.{name}") for name in FIELDS))  # type: ignore[arg-type]
        for i in range(1, state["blocks"] + 1)
    )
    rest = (state["num_images"], state["damping"], state["samples"], state["trace_error"])
    return Statistics(blocks, *rest), state["seconds"]


def has(run: Run) -> bool:
    """Whether the run folder holds statistics."""
    return run.has_checkpoint(NAME)
