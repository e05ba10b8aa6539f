"""What the layers of all task networks show of a batch, and whose labels they are shown it with.

The curvature H and the target's Fisher J* are second moments under a task's own posterior. Scores are compared between
tasks, so their labels come from one class y for all tasks: independent draws would make every cross-task covariance
vanish (theory.md section 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.fusion import fuse_raw
from osdtw_models.network import OsdtwNet
from osdtw_training.gradients import Recorder
from osdtw_training.layers import Layer
from osdtw_training.objectives import TaskObjective


class FisherKind(Enum):
    """Whose labels the gradients are taken with."""

    EMPIRICAL = "empirical"
    """The real ones. Not a Fisher away from the optimum, and nearly nothing on images known by heart."""
    MONTE_CARLO = "monte_carlo"
    """One draw from the model per image."""
    EXACT = "exact"
    """All, weighed by the model's posterior: as many backward passes as there are classes."""


@dataclass(frozen=True)
class Labels:
    """R sets of labels of one task for a batch.

    Args:
        own: Task labels, shape (R, B).
        weights: Weight of each gradient in the statistic, shape (R, B).
        offsets: Added to the logits in the loss, shape (n_k + 1,).
    """

    own: Tensor
    weights: Tensor
    offsets: Tensor

    def residuals(self, logits: Tensor) -> Tensor:
        """Gradient of each image's loss in its logits, times the root of its weight: shape (R, B, n_k + 1)."""
        chances = (logits + self.offsets).softmax(-1)
        return self.weights.sqrt()[..., None] * (chances - F.one_hot(self.own, logits.shape[-1]))

    def losses(self, logits: Tensor) -> list[Tensor]:
        """Loss of each image with each set: R tensors of shape (B,)."""
        return [F.cross_entropy(logits + self.offsets, own, reduction="none") for own in self.own]


@dataclass(frozen=True)
class Look:
    """What one task's network showed of a batch: its logits, per layer the input and the gradients at its output."""

    logits: Tensor
    labels: dict[str, Labels]
    inputs: list[Tensor]
    arriving: list[Tensor]

    def sets(self, name: str) -> slice:
        """Which of the R sets of gradients belong to a statistic."""
        start = 0
        for key, labels in self.labels.items():
            if key == name:
                return slice(start, start + len(labels.own))
            start += len(labels.own)
        raise KeyError(name)


class Observer:
    """Shows batches to all task networks and draws the labels.

    Args:
        network: Network that shares nothing: decoder k is the whole network of task k.
        layers: Its layers.
        objectives: Loss of each task.
        kind: Whose labels the gradients are taken with.
        seed: Seed of what is drawn.
        statistics: Which sets of labels to take: of "curvature", "target", "scores".
        start: Images of the sub-sample that come before the first one shown, to other processes: what is drawn for an
            image depends on its place alone.
    """

    def __init__(
        self,
        network: OsdtwNet,
        layers: Sequence[Layer],
        objectives: Sequence[TaskObjective],
        kind: FisherKind,
        seed: int,
        statistics: Sequence[str] = ("curvature", "target", "scores"),
        start: int = 0,
    ) -> None:
        self.network = network
        self.statistics = statistics
        self.layers = layers
        self.objectives = objectives
        self.kind = kind
        self.stream = np.random.default_rng([seed, 6])
        self.stream.random((start, self._draws))

    def look(self, images: Tensor, labels: Tensor, train_mean: Tensor, target_mean: Tensor) -> list[Look]:
        """One batch.

        Args:
            images: Normalised images, shape (B, C, H, W).
            labels: Their classes, shape (B,).
            train_mean: Weights that make a sum over images the mean over training images, shape (B,).
            target_mean: The same for the balanced target.

        Returns:
            One entry per task.

        Raises:
            ValueError: If a layer does not see images one by one.
        """
        recorders, logits = [], []
        for k in self.network.tasks:
            with Recorder([layer.modules[k] for layer in self.layers]) as recorder, torch.enable_grad():
                logits.append(self.network.forward_task(images.detach().requires_grad_(), k))
            recorders.append(recorder)
        self._check_rows(recorders[0], len(images))
        self.uniform = iter(torch.from_numpy(self.stream.random((len(images), self._draws))).T)
        classes, chances = self._classes([z.detach() for z in logits], labels)
        looks = []
        for z, recorder, task in zip(logits, recorders, self.objectives, strict=True):
            own, none = task.label_map[labels], torch.zeros_like(task.offsets)
            curved, chance = self._own(z.detach() + task.offsets, own)
            aimed, aim = self._own(z.detach(), own)
            sets = {
                "curvature": Labels(curved, chance * train_mean * task.class_weights[labels], task.offsets),
                "target": Labels(aimed, aim * target_mean, none),
                # The weights of both factors of a product, one by one: a product of scores has two.
                "scores": Labels(
                    task.label_map[classes], (chances * train_mean).sqrt() * task.class_weights[classes], task.offsets
                ),
            }
            sets = {name: sets[name] for name in self.statistics}
            arriving = recorder.arriving([loss for each in sets.values() for loss in each.losses(z)])
            looks.append(Look(z.detach(), sets, recorder.inputs(), arriving))
        return looks

    @property
    def _draws(self) -> int:
        """Labels drawn for an image: of each task two, and one class."""
        return 2 * len(self.objectives) + 1

    def _check_rows(self, recorder: Recorder, images: int) -> None:
        for layer, inputs in zip(self.layers, recorder.inputs(), strict=True):
            if len(inputs) != images:
                raise ValueError(
                    f"{layer.name} sees images in pieces (windows), so its gradients by image are not known; give the "
                    "plan yourself, with --shared-depth and --task-weights."
                )

    def _own(self, logits: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """Labels of one task and their chances given the image, each of shape (R, B)."""
        if self.kind is FisherKind.EMPIRICAL:
            return real[None], torch.ones_like(logits[:, 0])[None]
        if self.kind is FisherKind.MONTE_CARLO:
            return draw(logits, next(self.uniform))[None], torch.ones_like(logits[:, 0])[None]
        return _every(logits)

    def _classes(self, logits: list[Tensor], real: Tensor) -> tuple[Tensor, Tensor]:
        """Classes, one for all tasks, and their chances given the image, each of shape (R, B)."""
        if self.kind is FisherKind.EMPIRICAL:
            return real[None], torch.ones_like(logits[0][:, 0])[None]
        shifted = [z + task.offsets for z, task in zip(logits, self.objectives, strict=True)]
        fused = shifted[0] if len(shifted) == 1 else fuse_raw(shifted)
        # With its offsets a network says how frequent classes are among weighted images; those shown are not weighted.
        scores = fused[:, self.network.class_position] - self.objectives[0].given_weights.log()
        if self.kind is FisherKind.MONTE_CARLO:
            return draw(scores, next(self.uniform))[None], torch.ones_like(scores[:, 0])[None]
        return _every(scores)


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One label per image from the softmax of its logits, by a uniform number each: shape (B,)."""
    ends = logits.softmax(-1).cpu().double().cumsum(-1)[:, :-1]
    return (ends <= uniform[:, None]).sum(-1).to(logits.device)


def _every(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Every label with its chance, each of shape (n, B)."""
    labels = torch.arange(logits.shape[1], device=logits.device)[:, None].expand(-1, len(logits))
    return labels, logits.softmax(-1).T
