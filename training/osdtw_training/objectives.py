"""The loss of each task, its prior correction, and the weighted sum (theory.md section 6).

All losses are means over the N images of a batch, "none" samples included; task weights multiply those means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.partition import ClassPartition


@dataclass(frozen=True)
class TaskObjective:
    """Prior-corrected cross-entropy of one task (Prop 8).

    Args:
        label_map: Which output stands for each class, shape (C,), int64; "none" outside the task, unless it is open.
        offsets: Log-offsets ``log m`` added to the outputs in training, shape (n_k + 1,), "none" last; (C,) if it is
            open.
        class_weights: Sample weight of each class, shape (C,): inside the task what the user gave it, 1 by default.
        given_weights: What the user gave each class, shape (C,): part of ``class_weights``.
        behind: Outputs behind an open "none", shape (C,), bool; None where it is closed.
        share: Part that telling them apart has of their loss.
    """

    label_map: Tensor
    offsets: Tensor
    class_weights: Tensor
    given_weights: Tensor
    behind: Tensor | None = None
    share: float = 1.0

    def per_sample(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Weighted loss of each image, shape (B,).

        Args:
            logits: Task logits, shape (B, n_k + 1).
            labels: Class labels, shape (B,), or the part that each class has of an image, shape (B, C).

        Returns:
            Losses in nats, shape (B,); of a mixed image the sum over its classes, each in proportion.
        """
        missed = -self._log_posterior(logits)[:, self.label_map]  # (B, C): loss of each class, were it the image's
        if labels.dim() == 2:
            return (labels * self.class_weights * missed).sum(1)
        return self.class_weights[labels] * missed.gather(1, labels[:, None]).squeeze(1)

    def _log_posterior(self, logits: Tensor) -> Tensor:
        """Log-posterior of each output under the training prior; behind an open "none" in part that of "none"."""
        each = torch.log_softmax(logits.float() + self.offsets, -1)
        if self.behind is None:
            return each
        none = torch.logsumexp(each[:, self.behind], 1, keepdim=True)
        return torch.where(self.behind, self.share * each + (1 - self.share) * none, each)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean of `per_sample` over the batch: a scalar."""
        return self.per_sample(logits, labels).mean()

    def to(self, device: str | torch.device) -> TaskObjective:
        """The objective with its tensors on another device."""
        names = ("label_map", "offsets", "class_weights", "given_weights", "behind")
        there = {name: getattr(self, name) for name in names}
        return replace(self, **{name: each.to(device) for name, each in there.items() if each is not None})


def task_objectives(
    partition: ClassPartition,
    counts: Sequence[float],
    none_weights: bool = True,
    none_clip: float = 10.0,
    given: Tensor | None = None,
    share: float = 1.0,
) -> list[TaskObjective]:
    """The objective of every task of a partition.

    Args:
        partition: The tasks.
        counts: Training images per class, times the weights given to them, length C.
        none_weights: True for Prop 8 (i): "none" samples of class t weigh (pi_other / |other|) / pi_t, so that
            the logits without offsets are balanced. False for Prop 8 (ii): no weights; the offsets must then
            be applied at test time (`OsdtwNet`'s ``logit_offsets``).
        none_clip: "none" weights are clipped at this multiple of their median, then rescaled to mean 1 over
            the "none" samples, so that clipping moves weight only between classes of "none".
        given: Factor on the loss of each class's images, shape (C,); none = 1.
        share: Part that telling the classes behind an open "none" apart has of their loss (theory.md Prop 9). Open,
            "none" needs no weights: its composition is among the outputs.

    Returns:
        One objective per task; with one task plain balanced softmax (Ren et al. 2020).
    """
    total = torch.tensor(counts, dtype=torch.float64)
    prior = total / total.sum()
    num_classes = len(counts)
    given = torch.ones(num_classes) if given is None else given.cpu()
    objectives = []
    for classes, outputs in zip(partition.tasks, partition.output_maps, strict=True):
        own, other = list(classes), [c for c in range(num_classes) if c not in set(classes)]
        offsets, behind = torch.log(num_classes * prior[own]), None
        weights = torch.ones(num_classes, dtype=torch.float64)
        if partition.open_none:
            offsets = torch.cat([offsets, torch.log(num_classes * prior[other])])
            behind = torch.arange(num_classes) >= len(own)
        elif partition.has_none:
            mass = prior[other].sum()
            offsets = torch.cat([offsets, torch.log(mass * num_classes / len(other)).view(1)])
            if none_weights:
                exact = mass / len(other) / prior[other]
                clipped = exact.clamp(max=none_clip * float(exact.median()))
                weights[other] = clipped * mass / (prior[other] * clipped).sum()
        objectives.append(
            TaskObjective(
                label_map=outputs,
                offsets=offsets.float(),
                class_weights=given * weights.float(),
                given_weights=given,
                behind=behind,
                share=share,
            )
        )
    return objectives


def distillation(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean KL divergence of the student's task posterior from the teacher's: a scalar.

    Args:
        student: Task logits, shape (B, n_k + 1).
        teacher: Task logits of the network to follow, same shape.

    Returns:
        The divergence in nats.
    """
    return F.kl_div(
        torch.log_softmax(student.float(), -1),
        torch.log_softmax(teacher.float(), -1),
        log_target=True,
        reduction="batchmean",
    )


def scale_gradient(values: Tensor, factor: float) -> Tensor:
    """The same values; what flows back through them is multiplied by a factor."""
    scaled: Tensor = _ScaleGradient.apply(values, factor)
    return scaled


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, values: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return context.factor * gradient, None
