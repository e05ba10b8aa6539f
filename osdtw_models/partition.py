"""Which classes belong to which task, and what a task calls them.

A partition is an ordered list of tasks, each a list of class indices; together they cover every class once.
Task ``k`` with ``n`` classes labels its own classes ``0 .. n-1`` in the order listed and every other class
``n``: the "none" label (theory.md section 1). A partition of one task has no "none": it is ordinary
classification. Nor have experts: several tasks of which every one lists all classes.

"none" may be open: the task then tells the classes behind it apart, too, and "none" is the sum of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import index
from typing import Any, cast

import torch
from torch import Tensor

from osdtw_models.class_counts import above_threshold, between_bounds, by_frequency


@dataclass(frozen=True)
class ClassPartition:
    """Disjoint tasks that cover the classes ``0 .. C-1``, or experts that cover them each.

    Args:
        tasks: One sequence of class indices per task, kept as tuples; the same sequence in all of them for experts.
        open_none: Whether each task tells the classes behind its "none" apart.

    Raises:
        ValueError: If a task is empty, or a class is missing, repeated or out of range; if there is no "none" to open.
    """

    tasks: tuple[tuple[int, ...], ...]
    open_none: bool = False

    def __post_init__(self) -> None:
        try:
            tasks = tuple(tuple(index(c) for c in task) for task in self.tasks)
        except TypeError as error:
            raise ValueError(f"The tasks must be lists of class numbers ({error}).") from error
        object.__setattr__(self, "tasks", tasks)
        if not self.tasks:
            raise ValueError("A partition needs at least one task; give one list of classes per task.")
        for k, task in enumerate(self.tasks):
            if not task:
                raise ValueError(f"Task {k} has no class; give every task at least one class.")
        listed = sorted(c for task in self._once for c in task)
        if listed != list(range(len(listed))):
            wrong = _first_wrong(listed)
            raise ValueError(
                f"The tasks must list each of the classes 0 to {len(listed) - 1} exactly once, but class {wrong}."
            )
        if self.open_none and not self.has_none:
            raise ValueError('There is no "none" to open: give two or more disjoint tasks, or leave open_none out.')

    @classmethod
    def from_counts(cls, counts: Sequence[int], num_tasks: int = 2, threshold: int | None = None) -> ClassPartition:
        """Split classes by how many training images they have, most frequent task first.

        Args:
            counts: Training images per class, in class order (length C, all at least 1).
            num_tasks: Number of tasks of (nearly) equal class count; the first ones get the remainder. Equal
                counts are ordered by class index.
            threshold: If given, two tasks instead: head = classes with more than ``threshold`` images.

        Returns:
            The partition; inside a task classes keep their original order.

        Raises:
            ValueError: If a count is below 1, there are fewer classes than tasks, or the threshold leaves a
                task empty.
        """
        return cls(above_threshold(counts, threshold) if threshold is not None else by_frequency(counts, num_tasks))

    @classmethod
    def from_bins(cls, counts: Sequence[int], bounds: Sequence[int]) -> ClassPartition:
        """Split classes at given numbers of training images: (100, 19) parts many, medium and few.

        Args:
            counts: Training images per class, in class order (length C, all at least 1).
            bounds: K - 1 numbers, falling: task k has the classes with more than ``bounds[k]`` images that no task
                before it has, the last task the rest.

        Returns:
            The partition into K tasks; inside a task classes keep their original order.

        Raises:
            ValueError: If a count is below 1, the bounds do not fall, or a task would be empty.
        """
        return cls(between_bounds(counts, bounds))

    @classmethod
    def resolve(
        cls,
        num_classes: int,
        task_classes: Sequence[Sequence[int]] | None = None,
        class_counts: Sequence[int] | None = None,
        num_tasks: int = 2,
        open_none: bool = False,
    ) -> ClassPartition:
        """Partition of a model from its arguments: explicit tasks, else counts, else the first half as head.

        Args:
            num_classes: Number of classes C.
            task_classes: One list of class indices per task.
            class_counts: Training images per class (length C).
            num_tasks: Number of tasks where none are given; C if there are fewer classes.
            open_none: Whether each task tells the classes behind its "none" apart.

        Returns:
            The partition.

        Raises:
            ValueError: If an argument does not fit ``num_classes``.
        """
        if class_counts is not None and len(class_counts) != num_classes:
            raise ValueError(
                f"class_counts has {len(class_counts)} entries but the model has {num_classes} classes; "
                "give one count per class."
            )
        if task_classes is not None:
            partition = cls(cast("Any", task_classes), open_none)
            if partition.num_classes != num_classes:
                raise ValueError(
                    f"task_classes lists {partition.num_classes} classes but the model has {num_classes}; "
                    "list every class exactly once."
                )
            return partition
        counts = [1] * num_classes if class_counts is None else class_counts
        return replace(cls.from_counts(counts, num_tasks=min(num_tasks, num_classes)), open_none=open_none)

    def renewed(self, num_classes: int, class_counts: Sequence[int] | None = None) -> ClassPartition:
        """The same kind of partition of other classes: as many tasks, and experts stay experts.

        Args:
            num_classes: New number of classes.
            class_counts: Training images per class; without them all classes count alike.

        Returns:
            The partition.

        Raises:
            ValueError: If there are fewer classes than disjoint tasks, or a count is below 1.
        """
        if self.experts:
            return ClassPartition.of_experts(num_classes, self.num_tasks)
        renewed = ClassPartition.from_counts(class_counts or [1] * num_classes, self.num_tasks)
        return replace(renewed, open_none=self.open_none)

    @classmethod
    def single(cls, num_classes: int) -> ClassPartition:
        """One task with every class: ordinary classification without a "none" class."""
        return cls((tuple(range(num_classes)),))

    @classmethod
    def of_experts(cls, num_classes: int, number: int) -> ClassPartition:
        """Experts: several tasks with every class each."""
        return cls((tuple(range(num_classes)),) * number)

    @property
    def num_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.tasks)

    @cached_property
    def num_classes(self) -> int:
        """Number of classes C."""
        return sum(len(task) for task in self._once)

    @property
    def experts(self) -> bool:
        """Whether the tasks are experts: more than one, and all with the same classes."""
        return self.num_tasks > 1 and len(set(self.tasks)) == 1

    @property
    def _once(self) -> tuple[tuple[int, ...], ...]:
        """The tasks that list every class once: all, or one of the experts."""
        return self.tasks[:1] if self.experts else self.tasks

    @property
    def has_none(self) -> bool:
        """Whether each task carries a "none" class: not a single task, nor experts."""
        return self.num_tasks > 1 and not self.experts

    @property
    def task_sizes(self) -> tuple[int, ...]:
        """Number of own classes of each task, "none" not counted."""
        return tuple(len(task) for task in self.tasks)

    @property
    def output_sizes(self) -> tuple[int, ...]:
        """Number of outputs of each task's classifier: its classes, and "none" or, where it is open, all others."""
        if self.open_none:
            return (self.num_classes,) * self.num_tasks
        return tuple(n + self.has_none for n in self.task_sizes)

    @cached_property
    def output_maps(self) -> Tensor:
        """Which output of each task stands for each class, shape (K, C), int64: `label_maps`, unless "none" is open.

        Then a task's own classes come first, and the others in class order.
        """
        if not self.open_none:
            return self.label_maps
        orders = [[*task, *(c for c in range(self.num_classes) if c not in set(task))] for task in self.tasks]
        return torch.argsort(torch.tensor(orders), dim=1)

    @cached_property
    def class_order(self) -> Tensor:
        """Classes in task order, the tasks one after another (those of experts once): shape (C,), int64."""
        return torch.tensor([c for task in self._once for c in task], dtype=torch.int64)

    @cached_property
    def class_position(self) -> Tensor:
        """Where each class stands in `class_order` (its inverse permutation): shape (C,), int64."""
        return torch.argsort(self.class_order)

    @cached_property
    def task_of_class(self) -> Tensor:
        """Task index of each class, 0 where all are experts: shape (C,), int64."""
        task = torch.zeros(self.num_classes, dtype=torch.int64)
        for k, classes in enumerate(self._once):
            task[list(classes)] = k
        return task

    @cached_property
    def label_maps(self) -> Tensor:
        """Task labels of every class: shape (K, C), int64; row k holds the "none" label outside task k."""
        maps = torch.empty(self.num_tasks, self.num_classes, dtype=torch.int64)
        for k, classes in enumerate(self.tasks):
            maps[k] = len(classes)
            maps[k, list(classes)] = torch.arange(len(classes))
        return maps

    def task_labels(self, labels: Tensor) -> Tensor:
        """Task labels of class labels.

        Args:
            labels: Class labels, shape (B,), int64.

        Returns:
            Task labels, shape (K, B): exactly one row per image is not "none"; with experts all rows are alike.
        """
        return self.label_maps.to(labels.device)[:, labels]

    def checked_offsets(self, logit_offsets: Sequence[Sequence[float]]) -> list[list[float]]:
        """Log-offsets as plain lists, if there is one for every output of every task.

        Args:
            logit_offsets: One sequence per task, "none" last.

        Returns:
            The offsets, JSON-ready.

        Raises:
            ValueError: If a length is wrong.
        """
        lengths, sizes = [len(task) for task in logit_offsets], list(self.output_sizes)
        if lengths != sizes:
            raise ValueError(
                f"logit_offsets has lengths {lengths} but the tasks have {sizes} outputs; give one offset per output, "
                "'none' last."
            )
        return [[float(offset) for offset in task] for task in logit_offsets]

    def to_lists(self) -> list[list[int]]:
        """The partition as JSON-ready lists (the model argument ``task_classes``)."""
        return [list(task) for task in self.tasks]


def _first_wrong(listed: list[int]) -> str:
    """Name the first class of a sorted listing that is negative, repeated or missing."""
    if listed[0] < 0:
        return f"{listed[0]} is listed"
    for expected, found in enumerate(listed):
        if found < expected:
            return f"{found} is listed twice"
        if found > expected:
            return f"{expected} is missing"
    raise AssertionError("unreachable: the listing is right")
