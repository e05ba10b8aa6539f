"""Task losses against formulas written out by hand (theory.md Prop 8), and the optimum they lead to."""

import math

import pytest
import torch

from osdtw_models.partition import ClassPartition
from osdtw_training.objectives import distillation, task_objectives

COUNTS = [60, 3, 25, 8, 4]
PARTITION = ClassPartition(((2, 0), (4, 1, 3)))
PRIOR = [n / sum(COUNTS) for n in COUNTS]
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def others(task):
    return [c for c in range(len(COUNTS)) if c not in task]


def loss_by_hand(logits, label, task, none_weights, none_offset):
    """Weighted negative log of the softmax of the logits times m, one image at a time."""
    outside = others(task)
    mass = sum(PRIOR[c] for c in outside)
    relative = [*(len(COUNTS) * PRIOR[c] for c in task), math.exp(none_offset)]
    place = task.index(label) if label in task else len(task)
    weight = mass / len(outside) / PRIOR[label] if none_weights and label in outside else 1
    terms = [m * math.exp(z) for m, z in zip(relative, logits.tolist(), strict=True)]
    return -weight * math.log(terms[place] / sum(terms))


@pytest.mark.parametrize("none_weights", [True, False])
def test_each_loss_is_the_formula_of_prop_8(none_weights):
    objectives = task_objectives(PARTITION, COUNTS, none_weights, none_clip=math.inf)
    labels = torch.arange(5).repeat(3)
    for task, objective in zip(PARTITION.tasks, objectives, strict=True):
        logits = torch.randn(15, len(task) + 1, dtype=torch.float64)
        outside = others(task)
        none_offset = math.log(sum(PRIOR[c] for c in outside) * len(COUNTS) / len(outside))
        by_hand = [
            loss_by_hand(z, int(y), task, none_weights, none_offset) for z, y in zip(logits, labels, strict=True)
        ]
        found = objective.per_sample(logits, labels).double()
        torch.testing.assert_close(found, torch.tensor(by_hand, dtype=torch.float64), **CLOSE)
        assert objective(logits, labels).item() == pytest.approx(sum(by_hand) / 15, rel=1e-5)


@pytest.mark.parametrize("clip", [1.0, 2.0, 10.0, math.inf])
def test_none_weights_have_mean_one_over_none_and_are_one_inside(clip):
    counts = [500, 300, 100, 40, 20, 9, 3, 1]
    for partition in (ClassPartition.from_counts(counts, 2), ClassPartition.from_counts(counts, 3)):
        for task, objective in zip(partition.tasks, task_objectives(partition, counts, True, clip), strict=True):
            weights = objective.class_weights.double()
            outside = [c for c in range(8) if c not in task]
            images = torch.tensor([counts[c] for c in outside], dtype=torch.float64)
            assert (weights[outside] * images).sum() / images.sum() == pytest.approx(1, rel=1e-6)
            assert weights[list(task)].tolist() == [1] * len(task)


def test_clipping_caps_the_rarest_class_only():
    counts = [10, 1000, 500, 100, 80, 1]  # the first task's "none" weights go as 1 / count: median 1 / 100
    partition = ClassPartition(((0,), (1, 2, 3, 4, 5)))
    weights = task_objectives(partition, counts, True, none_clip=10.0)[0].class_weights.double()
    ratios = weights / weights[3]
    torch.testing.assert_close(ratios[1:], torch.tensor([0.1, 0.2, 1, 1.25, 10], dtype=torch.float64), **CLOSE)


def test_one_task_is_balanced_softmax():
    (objective,) = task_objectives(ClassPartition.single(5), COUNTS)
    logits, labels = torch.randn(20, 5, dtype=torch.float64), torch.arange(20) % 5
    shifted = logits + torch.tensor(COUNTS).double().log()
    expected = torch.logsumexp(shifted, 1) - shifted[torch.arange(20), labels]
    torch.testing.assert_close(objective.per_sample(logits, labels).double(), expected, **CLOSE)


def test_given_weights_are_a_factor_on_each_images_loss():
    given = torch.tensor([0.5, 3.0, 1.0, 2.0, 0.1])
    labels, counts = torch.arange(5), (torch.tensor(COUNTS) * given).tolist()
    weighted = task_objectives(PARTITION, counts, given=given)
    for task, plain, objective in zip(PARTITION.tasks, task_objectives(PARTITION, counts), weighted, strict=True):
        logits = torch.randn(5, len(task) + 1)
        expected = given * plain.per_sample(logits, labels)
        torch.testing.assert_close(objective.per_sample(logits, labels), expected)


@pytest.fixture
def likelihood():
    """p(x | y) for x of 7 values, shape (7, 5)."""
    return torch.softmax(torch.randn(7, 5, dtype=torch.float64), dim=0)


def assert_training_stops(objective, likelihood, posterior):
    """Over images as often as they are seen in training, the loss has no gradient there, and has one elsewhere."""
    joint, gradients = likelihood * torch.tensor(PRIOR, dtype=torch.float64), []
    for logits in (posterior.log(), torch.zeros_like(posterior)):
        logits.requires_grad_()
        losses = [objective.per_sample(logits, torch.full((7,), c)) for c in range(5)]
        (torch.stack(losses, 1) * joint).sum().backward()
        gradients.append(logits.grad.abs().max())
    assert gradients[0] < 1e-7
    assert gradients[1] > 1e-3


@pytest.mark.parametrize("given", [[1.0] * 5, [0.5, 3.0, 1.0, 2.0, 0.1]])
@pytest.mark.parametrize("partition", [PARTITION, ClassPartition(((3,), (0, 2), (1, 4)))])
def test_the_balanced_posterior_is_where_training_stops_whatever_the_weights(partition, given, likelihood):
    given = torch.tensor(given)
    counts = (torch.tensor(COUNTS) * given).tolist()
    balanced = likelihood / likelihood.sum(1, keepdim=True)
    for task, objective in zip(partition.tasks, task_objectives(partition, counts, True, math.inf, given), strict=True):
        none = balanced[:, others(task)].sum(1, keepdim=True)
        assert_training_stops(objective, likelihood, torch.cat([balanced[:, task], none], 1))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_an_open_none_is_the_closed_loss_and_a_share_of_telling_apart(share):
    partition = ClassPartition(PARTITION.tasks, open_none=True)
    labels = torch.arange(5).repeat(2)
    for task, objective in zip(partition.tasks, task_objectives(partition, COUNTS, share=share), strict=True):
        order, logits = [*task, *others(task)], torch.randn(10, 5, dtype=torch.float64)
        mass = torch.exp(logits) * torch.tensor([PRIOR[c] for c in order], dtype=torch.float64)
        chance, behind = mass / mass.sum(1, keepdim=True), mass[:, len(task) :]
        for z, y, p, b in zip(objective.per_sample(logits, labels), labels.tolist(), chance, behind, strict=True):
            place = order.index(y)
            if place < len(task):
                expected = -p[place].log()
            else:
                expected = -p[len(task) :].sum().log() - share * (b[place - len(task)] / b.sum()).log()
            assert z.item() == pytest.approx(expected.item(), rel=1e-5)
        assert objective.class_weights.tolist() == [1] * 5  # Prop 9 (iii)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_the_balanced_posterior_is_where_an_open_task_stops(share, likelihood):
    partition = ClassPartition(PARTITION.tasks, open_none=True)
    balanced = likelihood / likelihood.sum(1, keepdim=True)
    for task, objective in zip(partition.tasks, task_objectives(partition, COUNTS, share=share), strict=True):
        assert_training_stops(objective, likelihood, balanced[:, [*task, *others(task)]])


def test_distillation_is_the_divergence_from_the_teacher():
    student, teacher = torch.randn(6, 4, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)
    p, q = teacher.softmax(1), student.softmax(1)
    expected = sum(float(a) * math.log(a / b) for a, b in zip(p.flatten(), q.flatten(), strict=True)) / 6
    assert distillation(student, teacher).item() == pytest.approx(expected, rel=1e-5)
    assert distillation(student, student + 3).item() == pytest.approx(0, abs=1e-6)
