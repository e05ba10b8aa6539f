"""What a network makes of its tasks' logits: calibrated, fused, in the original class order.

It holds what the fusion depends on besides the logits: the partition, the rule, each task's log-offsets, temperature
and bias. Only the classes' positions, and where "none" is open the tasks' outputs of them, are in checkpoints; the rest
are arguments of the model and travel in ``config.json``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from osdtw_models.fusion import FUSION_RULES, calibrate, close, fuse
from osdtw_models.partition import ClassPartition


class FusedTasks(nn.Module):
    """A network of several tasks whose logits are fused; `OsdtwNet` is one."""

    partition: ClassPartition
    fusion: str
    class_position: Tensor
    calibration: list[list[float]] | None
    _offsets: list[list[float]] | None

    @property
    def tasks(self) -> range:
        """Task indices 0 .. K-1."""
        return range(self.partition.num_tasks)

    @property
    def places(self) -> dict[str, Tensor]:
        """Where classes stand, by the names of checkpoints: in task order and, behind an open "none", in each task."""
        names = ["class_position", *(f"outputs{k}" for k in self.tasks if self.partition.open_none)]
        return {name: self.get_buffer(name) for name in names}

    @property
    def logit_offsets(self) -> list[Tensor] | None:
        """Log-offsets of each task (Prop 8 (ii)), or None where the logits are balanced already."""
        if self._offsets is None:
            return None
        return [self.get_buffer(f"offsets{k}") for k in self.tasks]

    def fuse(self, outputs: list[Tensor]) -> Tensor:
        """Fuse the tasks' outputs into class logits of the original class order, shape (B, C)."""
        return self._fused(self._scaled(outputs))

    def calibrated(self, outputs: list[Tensor]) -> list[Tensor]:
        """The tasks' logits as they are fused: with the temperature, group bias and offsets of each, if there are any.

        Args:
            outputs: What `OsdtwNet.forward_outputs` gives.

        Returns:
            Logits whose softmax is each task's posterior, "none" included, as it is in training (theory.md Prop 8).
        """
        closed, offsets = self.close(self._scaled(outputs)), self.logit_offsets
        if offsets is None or self.partition.open_none:  # an open "none" is fused without them
            return closed
        return [logits + own.to(logits.dtype) for logits, own in zip(closed, offsets, strict=True)]

    def close(self, outputs: list[Tensor]) -> list[Tensor]:
        """The tasks' logits from what their classifiers give: the same, unless "none" is open."""
        if not self.partition.open_none:
            return outputs
        return [close(outputs[k], own) for k, own in enumerate(self.partition.task_sizes)]

    def fuse_with(self, outputs: list[Tensor], temperatures: Tensor, biases: Tensor) -> Tensor:
        """`fuse` under another calibration: temperatures (K,) and biases (K,), in the outputs' own type."""
        return self._fused(calibrate(outputs, temperatures, biases, self._own_sizes))

    def _scaled(self, outputs: list[Tensor]) -> list[Tensor]:
        if self.calibration is None:
            return outputs
        return calibrate(outputs, self.get_buffer("temperatures"), self.get_buffer("biases"), self._own_sizes)

    def _fused(self, outputs: list[Tensor]) -> Tensor:
        if self.partition.open_none:
            places = [self.get_buffer(f"outputs{k}") for k in self.tasks]
            return fuse([outputs[k].index_select(1, place) for k, place in enumerate(places)], self.fusion)
        offsets = self.logit_offsets
        if offsets is not None:
            offsets = [each.to(outputs[0].dtype) for each in offsets]
        return fuse(outputs, self.fusion, offsets).index_select(1, self.class_position)

    @property
    def _own_sizes(self) -> tuple[int, ...] | None:
        return self.partition.task_sizes if self.partition.has_none else None

    def set_calibration(self, calibration: Sequence[Sequence[float]] | None) -> None:
        """Give every task its temperature and group bias; they travel in ``config.json``.

        Args:
            calibration: Per task [T, b]; None for none.

        Raises:
            ValueError: If there are not two finite numbers per task, the first positive.
        """
        pairs = None if calibration is None else [[float(value) for value in pair] for pair in calibration]
        if pairs is not None:
            finite = all(len(pair) == 2 and 0 < pair[0] < math.inf and math.isfinite(pair[1]) for pair in pairs)
            if not finite or len(pairs) != self.partition.num_tasks:
                raise ValueError(
                    f"calibration is {pairs}; give [temperature, bias] for each of the {self.partition.num_tasks} "
                    "tasks, temperatures above 0."
                )
        self.calibration = pairs
        for name, column in (("temperatures", 0), ("biases", 1)):
            values = None if pairs is None else next(self.parameters()).new_tensor([pair[column] for pair in pairs])
            self.register_buffer(name, values, persistent=False)

    def _set_tasks(self, partition: ClassPartition, device: torch.device | None) -> None:
        """Fuse by a partition; whoever changes it also renews offsets and calibration."""
        self.partition = partition
        self.register_buffer("class_position", partition.class_position.to(device))
        for k in range(partition.num_tasks if partition.open_none else 0):
            self.register_buffer(f"outputs{k}", partition.output_maps[k].to(device))

    def _register_offsets(
        self,
        logit_offsets: Sequence[Sequence[float]] | None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._offsets = None if logit_offsets is None else self.partition.checked_offsets(logit_offsets)
        place: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        for k in self.tasks:
            values = None if self._offsets is None else torch.tensor(self._offsets[k], **place)
            # Not persistent: offsets are arguments of the model and travel in config.json.
            self.register_buffer(f"offsets{k}", values, persistent=False)


def refuse_other_tasks(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Stop before weights of another partition are loaded: they may fit, and every class would be wrong."""
    network, saved = cast("FusedTasks", module), state_dict.get(f"{prefix}class_position")
    if saved is None or saved.is_meta or network.class_position.is_meta:
        return
    rows = [state_dict.get(f"{prefix}decoders.{k}.classifier.bias") for k in network.tasks]
    sizes = network.partition.output_sizes
    same_sizes = all(row is None or len(row) == size for row, size in zip(rows, sizes, strict=True))
    # Of tasks with an open "none" all sizes are alike, and class_position may be: their order of outputs tells.
    there = {
        name: state_dict[f"{prefix}{name}"].cpu()
        for name in (*network.places, "outputs0")
        if f"{prefix}{name}" in state_dict
    }
    same_places = there.keys() == network.places.keys() and all(
        torch.equal(there[name], own.cpu()) for name, own in network.places.items()
    )
    if not same_sizes or not same_places:
        raise ValueError(
            "The checkpoint was trained on another partition of the classes into tasks; create the model with the "
            "checkpoint's task_classes (see its config.json)."
        )


def check_fusion(rule: str, partition: ClassPartition) -> None:
    """Refuse a rule that is not defined for these tasks.

    Args:
        rule: One of `osdtw_models.fusion.FUSION_RULES`.
        partition: The tasks.

    Raises:
        ValueError: If it is unknown or does not fit.
    """
    if rule not in FUSION_RULES:
        raise ValueError(f"Unknown fusion rule {rule!r}; choose one of {', '.join(FUSION_RULES)}.")
    if rule == "pool" and partition.num_tasks > 2:
        raise ValueError(f"fusion 'pool' is defined for 2 tasks, not {partition.num_tasks}; use 'raw'.")
    if partition.num_tasks > 1 and (rule == "mean") != (partition.experts or partition.open_none):
        raise ValueError(
            f"fusion {rule!r} does not fit these tasks; 'mean' is for experts and for an open 'none', and they for it: "
            f"give fusion {'raw' if rule == 'mean' else 'mean'!r}."
        )
