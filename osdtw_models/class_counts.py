"""Training images per class: checked, and classes split into tasks by them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

MOST_IMAGES = 2**53  # of one class; floats hold all whole numbers up to there
Tasks = tuple[tuple[int, ...], ...]


def checked_counts(counts: Iterable[Any]) -> list[int]:
    """Training images per class as plain numbers.

    Args:
        counts: Numbers of any kind.

    Returns:
        The numbers, JSON-ready.

    Raises:
        ValueError: If they are no numbers of images.
    """
    try:
        whole = [int(count) for count in counts]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"class_counts must be numbers of images, one per class ({error}).") from error
    odd = [count for count in whole if not 0 <= count <= MOST_IMAGES]
    if odd:
        raise ValueError(f"class_counts holds {odd[0]}, which is no number of images.")
    return whole


def by_frequency(counts: Sequence[int], num_tasks: int) -> Tasks:
    """Tasks of (nearly) equal class count, most frequent classes first.

    Args:
        counts: Training images per class, all at least 1.
        num_tasks: Number of tasks; the first ones get the remainder.

    Returns:
        Classes of each task, in their original order.

    Raises:
        ValueError: If there are no classes, or fewer than tasks, or a count is below 1.
    """
    _check_seen(counts)
    if not counts:
        raise ValueError("There are no classes to split into tasks; num_classes must be at least 1.")
    if num_tasks < 1 or len(counts) < num_tasks:
        raise ValueError(
            f"{len(counts)} classes cannot be split into {num_tasks} tasks; use 1 to {len(counts)} tasks, or more "
            "classes."
        )
    ordered = sorted(range(len(counts)), key=lambda c: (-counts[c], c))
    size, extra = divmod(len(counts), num_tasks)
    tasks, start = [], 0
    for k in range(num_tasks):
        stop = start + size + (k < extra)
        tasks.append(tuple(sorted(ordered[start:stop])))
        start = stop
    return tuple(tasks)


def above_threshold(counts: Sequence[int], threshold: int) -> Tasks:
    """Two tasks: the classes with more training images than a threshold, and the others.

    Args:
        counts: Training images per class, all at least 1.
        threshold: The threshold.

    Returns:
        Classes of head and tail.

    Raises:
        ValueError: If a count is below 1, or one of the two would be empty.
    """
    _check_seen(counts)
    head = tuple(c for c, n in enumerate(counts) if n > threshold)
    tail = tuple(c for c, n in enumerate(counts) if n <= threshold)
    if not head or not tail:
        if min(counts) == max(counts):
            raise ValueError(f"Every class has {max(counts)} images, so no threshold parts them; leave it out.")
        raise ValueError(
            f"Threshold {threshold} leaves the {'head' if not head else 'tail'} task empty; choose one "
            f"between {min(counts)} and {max(counts) - 1}."
        )
    return head, tail


def between_bounds(counts: Sequence[int], bounds: Sequence[int]) -> Tasks:
    """Tasks parted at given numbers of training images.

    Args:
        counts: Training images per class, all at least 1.
        bounds: Falling numbers: each task has the classes with more images that no task before it has.

    Returns:
        Classes of one task more than there are bounds.

    Raises:
        ValueError: If a count is below 1, the bounds do not fall, or a task would be empty.
    """
    _check_seen(counts)
    if not bounds or any(after >= before for before, after in itertools.pairwise(bounds)):
        raise ValueError(f"The bounds {list(bounds)} must fall, as in [100, 19]; give at least one.")
    task_of = [sum(n <= bound for bound in bounds) for n in counts]
    tasks = tuple(tuple(c for c, k in enumerate(task_of) if k == task) for task in range(len(bounds) + 1))
    if () in tasks:
        raise ValueError(
            f"The bounds {list(bounds)} leave task {tasks.index(())} empty; the classes have {min(counts)} to "
            f"{max(counts)} images."
        )
    return tasks


def _check_seen(counts: Sequence[int]) -> None:
    empty = [c for c, n in enumerate(counts) if n < 1]
    if empty:
        raise ValueError(f"Class {empty[0]} has {counts[empty[0]]} training images; every class needs at least 1.")
