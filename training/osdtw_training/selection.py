"""Which epoch of a stage counts: the last one, or the best on the held-out images.

Only the stage whose network is the run's result is judged, as it will be used: in evaluation mode, by fused logits,
before batch norm is recalibrated or a classifier replaced. Best weights and value lie in the stage's checkpoint, so a
resumed run chooses as an undisturbed one does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from osdtw_models.evaluation import evaluate_logits
from osdtw_training.batches import Batches
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run

FIGURES = {"balanced_acc": "balanced", "top1": "overall", "macro_f1": "macro_f1", "nll": "nll"}
PREFIX = "best."


class LastEpoch:
    """The last epoch counts: nothing is looked at and nothing kept."""

    def look(self, network: nn.Module, epoch: int) -> dict[str, float]:
        """Judge an epoch that has just been trained.

        Returns:
            What to log of it.
        """
        return {}

    def tensors(self) -> dict[str, Tensor]:
        """What the stage's checkpoint keeps of the best epoch."""
        return {}

    def state(self) -> dict[str, Any]:
        """Its number and value, for the same checkpoint."""
        return {}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""

    def finish(self, network: nn.Module) -> None:
        """Give the network the weights of the epoch that counts."""


LAST = LastEpoch()


class BestEpoch(LastEpoch):
    """The epoch with the best figure on the held-out images counts; of equal ones the later.

    Args:
        metric: One of `FIGURES`; of "nll" the lowest is best, of the others the highest.
        holdout: The held-out images.
        judge: From normalised images (B, C, H, W) to the logits (B, classes) by which they are classified.
    """

    def __init__(self, metric: str, holdout: Batches, judge: Callable[[Tensor], Tensor]) -> None:
        self.metric, self.holdout, self.judge = metric, holdout, judge
        self.best: tuple[int, float] | None = None
        self.weights: dict[str, Tensor] = {}

    def look(self, network: nn.Module, epoch: int) -> dict[str, float]:
        """Judge an epoch, and keep its weights if no earlier one is better."""
        value = self.value(network)
        if self.best is None or _score(self.metric, value) >= _score(self.metric, self.best[1]):
            self.best = (epoch, value)
            self.weights = {key: tensor.detach().clone() for key, tensor in network.state_dict().items()}
        return {f"holdout_{self.metric}": value}

    @torch.no_grad()
    def value(self, network: nn.Module) -> float:
        """The figure of the network as it is."""
        network.eval()
        seen = [(self.judge(images).float().cpu(), labels.cpu()) for images, labels in self.holdout.plain()]
        logits, labels = (torch.cat(each) for each in zip(*seen, strict=True))
        return dict(evaluate_logits(logits, labels))[FIGURES[self.metric]]

    def tensors(self) -> dict[str, Tensor]:
        """The best weights."""
        return {PREFIX + key: tensor for key, tensor in self.weights.items()}

    def state(self) -> dict[str, Any]:
        """Epoch and value of the best."""
        return {"best": self.best}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        epoch, value = state["best"]
        self.best = (epoch, value)
        self.weights = {key.removeprefix(PREFIX): t for key, t in tensors.items() if key.startswith(PREFIX)}

    def finish(self, network: nn.Module) -> None:
        """Load the best weights."""
        if self.weights:
            network.load_state_dict(self.weights)


def selection(recipe: Recipe, stage: str, holdout: Batches, judge: Callable[[Tensor], Tensor]) -> LastEpoch:
    """How the epoch of a stage is chosen, by the recipe's ``eval_metric``.

    Args:
        recipe: The recipe.
        stage: Name of the stage; the last epoch counts in all but the one whose network is the result.
        holdout: The held-out images.
        judge: See `BestEpoch`.

    Returns:
        What `engine.fit` takes.
    """
    if recipe.eval_metric == "last" or stage != recipe.result_stage():
        return LAST
    return BestEpoch(recipe.eval_metric, holdout, judge)


def epoch_taken(recipe: Recipe, run: Run) -> dict[str, Any]:
    """For ``results.json``: after how many epochs of which stage the weights were taken, and by what.

    Args:
        recipe: The recipe.
        run: A run whose stages are done.

    Returns:
        Empty if the last epoch counts.
    """
    if recipe.eval_metric == "last":
        return {}
    stage, metric = recipe.result_stage(), recipe.eval_metric
    values = [row[f"holdout_{metric}"] for row in run.metrics() if row["stage"] == stage]
    best = max(range(len(values)), key=lambda i: (_score(metric, values[i]), i))
    row = {"stage": stage, "epochs": best + 1, "of": len(values), "metric": metric, "value": round(values[best], 4)}
    return {"epoch_taken": {**row, "chosen_on": "holdout"}}


def _score(metric: str, value: float) -> float:
    """The value, larger for better; one that is not a number is worse than all."""
    if value != value:
        return -torch.inf
    return -value if metric == "nll" else value
