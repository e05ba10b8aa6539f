"""The partition of classes into tasks: what holds for all counts, and what every error says."""

from dataclasses import FrozenInstanceError
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from osdtw_models.class_counts import MOST_IMAGES, checked_counts
from osdtw_models.partition import ClassPartition


@st.composite
def counts_and_tasks(draw):
    # Small counts, so that ties are common.
    counts = draw(st.lists(st.integers(1, 8), min_size=1, max_size=30))
    return counts, draw(st.integers(1, len(counts)))


@st.composite
def partitions(draw):
    """Any partition: classes in any order, cut anywhere."""
    order = draw(st.integers(1, 20).flatmap(lambda n: st.permutations(range(n))))
    cuts = draw(st.sets(st.integers(1, len(order)))) - {len(order)}
    edges = [0, *sorted(cuts), len(order)]
    return ClassPartition(tuple(tuple(order[a:b]) for a, b in pairwise(edges)))


@given(counts_and_tasks())
def test_counts_are_split_into_even_tasks_that_cover_every_class_once(drawn):
    counts, num_tasks = drawn
    tasks = ClassPartition.from_counts(counts, num_tasks).tasks
    sizes = [len(task) for task in tasks]
    assert sorted(c for task in tasks for c in task) == list(range(len(counts)))
    assert len(tasks) == num_tasks
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1


@given(counts_and_tasks())
def test_frequent_classes_come_first_and_ties_go_by_index(drawn):
    counts, num_tasks = drawn
    tasks = ClassPartition.from_counts(counts, num_tasks).tasks
    for earlier, later in pairwise(tasks):
        for a in earlier:
            assert all(counts[a] > counts[b] or (counts[a] == counts[b] and a < b) for b in later)


@given(counts_and_tasks())
def test_classes_keep_their_order_inside_a_task(drawn):
    for task in ClassPartition.from_counts(*drawn).tasks:
        assert list(task) == sorted(task)


def test_three_tasks_of_a_long_tail():
    counts = [5, 500, 40, 300, 10, 100, 1]
    assert ClassPartition.from_counts(counts, num_tasks=3).tasks == ((1, 3, 5), (2, 4), (0, 6))


@given(st.lists(st.integers(1, 50), min_size=2, max_size=20).filter(lambda counts: len(set(counts)) > 1), st.data())
def test_threshold_parts_the_classes_by_their_count(counts, data):
    threshold = data.draw(st.integers(min(counts), max(counts) - 1))
    head, tail = ClassPartition.from_counts(counts, threshold=threshold).tasks
    assert list(head) == [c for c, n in enumerate(counts) if n > threshold]
    assert list(tail) == [c for c, n in enumerate(counts) if n <= threshold]


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=20),
    st.lists(st.integers(0, 50), min_size=1, max_size=3, unique=True),
)
def test_bins_part_the_classes_by_their_count(counts, bounds):
    bounds = sorted(bounds, reverse=True)
    edges = [max(counts), *bounds, 0]
    expected = [tuple(c for c, n in enumerate(counts) if low < n <= high) for high, low in pairwise(edges)]
    if bounds[0] < max(counts) and bounds[-1] > 0 and all(expected):
        assert ClassPartition.from_bins(counts, bounds).tasks == tuple(expected)
    else:
        with pytest.raises(ValueError, match=r"leave task \d empty"):
            ClassPartition.from_bins(counts, bounds)


def test_tasks_may_be_lists():
    partition = ClassPartition([[2, 0], np.array([1])])
    assert partition == ClassPartition(((2, 0), (1,)))
    assert len({partition, ClassPartition(((2, 0), (1,)))}) == 1
    assert partition.to_lists() == [[2, 0], [1]]


@given(partitions())
def test_each_label_is_own_in_one_task_and_none_in_the_others(partition):
    for c in range(partition.num_classes):
        for k, task in enumerate(partition.tasks):
            own = c in task
            assert partition.label_maps[k, c] == (task.index(c) if own else len(task))
            assert (partition.task_of_class[c] == k) == own


@given(partitions())
def test_sizes_count_none_only_where_there_are_several_tasks(partition):
    assert partition.num_tasks == len(partition.tasks)
    assert sum(partition.task_sizes) == partition.num_classes
    assert partition.has_none == (partition.num_tasks > 1)
    extra = 1 if partition.num_tasks > 1 else 0
    assert partition.output_sizes == tuple(len(task) + extra for task in partition.tasks)


@given(partitions())
def test_class_order_and_position_undo_each_other(partition):
    in_task_order = [c for task in partition.tasks for c in task]
    assert partition.class_order.tolist() == in_task_order
    assert [in_task_order[p] for p in partition.class_position] == list(range(partition.num_classes))


def test_task_labels_of_a_batch():
    partition = ClassPartition(((3, 0), (1, 2, 4)))
    labels = torch.tensor([0, 1, 2, 3, 4, 0])
    assert partition.task_labels(labels).tolist() == [[1, 2, 2, 0, 2, 1], [3, 0, 1, 3, 2, 3]]


def test_one_task_labels_classes_as_they_are():
    partition = ClassPartition.single(4)
    assert partition.tasks == ((0, 1, 2, 3),)
    assert not partition.experts
    assert partition.task_labels(torch.arange(4)).tolist() == [[0, 1, 2, 3]]


@given(partitions())
def test_lists_bring_the_partition_back(partition):
    assert ClassPartition.resolve(partition.num_classes, partition.to_lists()) == partition


@pytest.mark.parametrize(
    ("arguments", "tasks"),
    [
        ({"num_classes": 5}, ((0, 1, 2), (3, 4))),
        ({"num_classes": 1}, ((0,),)),
        ({"num_classes": 4, "class_counts": [1, 9, 2, 8]}, ((1, 3), (0, 2))),
        ({"num_classes": 3, "task_classes": [[2], [1, 0]]}, ((2,), (1, 0))),
        ({"num_classes": 3, "task_classes": [[2], [1, 0]], "class_counts": [9, 5, 1]}, ((2,), (1, 0))),
    ],
)
def test_arguments_of_a_model_resolve_to_tasks(arguments, tasks):
    assert ClassPartition.resolve(**arguments).tasks == tasks


OPEN = ClassPartition(((3, 0), (1, 2, 4)), open_none=True)


@pytest.mark.parametrize("number", [2, 3])
def test_experts_list_every_class_each_and_have_no_none(number):
    experts = ClassPartition.of_experts(4, number)
    assert experts.experts
    assert not experts.has_none
    assert (experts.num_tasks, experts.num_classes) == (number, 4)
    assert experts.tasks == ((0, 1, 2, 3),) * number
    assert experts.task_sizes == experts.output_sizes == (4,) * number
    assert experts.class_order.tolist() == [0, 1, 2, 3]
    assert experts.task_of_class.tolist() == [0, 0, 0, 0]
    assert experts.label_maps.tolist() == [[0, 1, 2, 3]] * number


def test_two_tasks_are_no_experts():
    partition = ClassPartition(((0,), (1,)))
    assert not partition.experts
    assert partition.has_none


def test_an_open_none_has_an_output_for_every_class_own_ones_first():
    assert OPEN.output_sizes == (5, 5)
    # Outputs of task 0 stand for the classes 3, 0, 1, 2, 4; those of task 1 for 1, 2, 4, 0, 3.
    assert OPEN.output_maps.tolist() == [[1, 2, 3, 0, 4], [3, 0, 1, 4, 2]]
    closed = ClassPartition(OPEN.tasks)
    assert torch.equal(closed.output_maps, closed.label_maps)


def test_a_partition_keeps_its_kind_for_other_classes():
    assert ClassPartition.of_experts(3, 2).renewed(5) == ClassPartition.of_experts(5, 2)
    assert OPEN.renewed(4) == ClassPartition(((0, 1), (2, 3)), open_none=True)
    assert OPEN.renewed(3, [1, 9, 5]) == ClassPartition(((1, 2), (0,)), open_none=True)
    assert ClassPartition(((0,), (1,), (2,))).renewed(3, [1, 9, 5]).tasks == ((1,), (2,), (0,))


def test_there_are_two_tasks_and_a_closed_none_unless_asked_otherwise():
    assert ClassPartition.from_counts([4, 3, 2, 1]).tasks == ((0, 1), (2, 3))
    assert ClassPartition.resolve(4) == ClassPartition(((0, 1), (2, 3)), open_none=False)
    assert ClassPartition.resolve(4, open_none=True) == ClassPartition(((0, 1), (2, 3)), open_none=True)
    assert ClassPartition.resolve(5, OPEN.to_lists(), open_none=True) == OPEN


def test_a_partition_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        ClassPartition.single(2).tasks = ()


def test_offsets_are_one_a_output():
    partition = ClassPartition(((0,), (1, 2)))
    assert partition.checked_offsets((np.float32([1, 2]), [0, 1, 2])) == [[1.0, 2.0], [0.0, 1.0, 2.0]]
    with pytest.raises(
        ValueError, match=r"^logit_offsets has lengths \[1, 3\] but the tasks have \[2, 3\] outputs; give"
    ):
        partition.checked_offsets([[1], [0, 1, 2]])


def test_counts_of_any_kind_become_plain_numbers():
    found = checked_counts(torch.tensor([0, 1, MOST_IMAGES]))
    assert found == [0, 1, 9_007_199_254_740_992]
    assert all(type(count) is int for count in found)


@pytest.mark.parametrize("count", [-1, 2**53 + 1, 2**60])
def test_counts_that_no_folder_has_are_refused(count):
    with pytest.raises(ValueError, match=f"^class_counts holds {count}, which is no number of images"):
        checked_counts([3, count])


ONCE = "The tasks must list each of the classes 0 to {} exactly once, but class {}."
REFUSED = {
    "no task": (lambda: ClassPartition(()), "A partition needs at least one task; give one list of classes per task."),
    "empty task": (lambda: ClassPartition(((0,), ())), "Task 1 has no class; give every task at least one class."),
    "missing": (lambda: ClassPartition(((0, 1), (3,))), ONCE.format(2, "2 is missing")),
    "repeated": (lambda: ClassPartition(((0, 1), (1, 2))), ONCE.format(3, "1 is listed twice")),
    "negative": (lambda: ClassPartition(((-1, 0), (1,))), ONCE.format(2, "-1 is listed")),
    "no images": (
        lambda: ClassPartition.from_counts([3, 0]),
        "Class 1 has 0 training images; every class needs at least 1.",
    ),
    "too many tasks": (
        lambda: ClassPartition.from_counts([3, 2], num_tasks=3),
        "2 classes cannot be split into 3 tasks; use 1 to 2 tasks, or more classes.",
    ),
    "no tasks": (
        lambda: ClassPartition.from_counts([3, 2], num_tasks=0),
        "2 classes cannot be split into 0 tasks; use 1 to 2 tasks, or more classes.",
    ),
    "empty head": (
        lambda: ClassPartition.from_counts([9, 5, 2], threshold=9),
        "Threshold 9 leaves the head task empty; choose one between 2 and 8.",
    ),
    "empty tail": (
        lambda: ClassPartition.from_counts([9, 5, 2], threshold=1),
        "Threshold 1 leaves the tail task empty; choose one between 2 and 8.",
    ),
    "equal counts": (
        lambda: ClassPartition.from_counts([5, 5, 5], threshold=5),
        "Every class has 5 images, so no threshold parts them; leave it out.",
    ),
    "no classes": (
        lambda: ClassPartition.resolve(-3),
        "There are no classes to split into tasks; num_classes must be at least 1.",
    ),
    "no bounds": (
        lambda: ClassPartition.from_bins([9, 5, 2], []),
        "The bounds [] must fall, as in [100, 19]; give at least one.",
    ),
    "equal bounds": (
        lambda: ClassPartition.from_bins([9, 5, 2], [5, 5]),
        "The bounds [5, 5] must fall, as in [100, 19]; give at least one.",
    ),
    "a single task with an open none": (
        lambda: ClassPartition(((0, 1),), open_none=True),
        'There is no "none" to open: give two or more disjoint tasks, or leave open_none out.',
    ),
    "experts with an open none": (
        lambda: ClassPartition(((0, 1), (0, 1)), open_none=True),
        'There is no "none" to open: give two or more disjoint tasks, or leave open_none out.',
    ),
    "rising bounds": (
        lambda: ClassPartition.from_bins([9, 5, 2], [2, 5]),
        "The bounds [2, 5] must fall, as in [100, 19]; give at least one.",
    ),
    "an empty bin": (
        lambda: ClassPartition.from_bins([9, 5, 2], [4, 3]),
        "The bounds [4, 3] leave task 1 empty; the classes have 2 to 9 images.",
    ),
    "a class without images": (
        lambda: ClassPartition.from_bins([9, 0], [4]),
        "Class 1 has 0 training images; every class needs at least 1.",
    ),
    "counts of other classes": (
        lambda: ClassPartition.resolve(3, class_counts=[5, 4]),
        "class_counts has 2 entries but the model has 3 classes; give one count per class.",
    ),
    "tasks of other classes": (
        lambda: ClassPartition.resolve(3, task_classes=[[0], [1]]),
        "task_classes lists 2 classes but the model has 3; list every class exactly once.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_the_remedy(case):
    attempt, sentence = REFUSED[case]
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared below)
        attempt()
    assert str(refusal.value) == sentence
