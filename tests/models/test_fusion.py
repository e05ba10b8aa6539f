"""Fusion rules against enumeration: theory.md Props 1 and 2 on random posteriors of a finite population."""

import itertools

import pytest
import torch

from osdtw_models.fusion import FUSION_RULES, calibrate, close, fuse
from osdtw_models.partition import ClassPartition

IMAGES = 7
SIZES = [(2, 4), (1, 3), (3, 2, 2)]
PAIRS = [sizes for sizes in SIZES if len(sizes) == 2]
RULES = [rule for rule in FUSION_RULES if rule != "mean"]  # that of experts, which have no "none"
EXACT = {"rtol": 0, "atol": 1e-12}


def tasks_of(sizes):
    """Tasks of the given sizes over classes in order, so that task order is class order."""
    starts = [sum(sizes[:k]) for k in range(len(sizes))]
    return ClassPartition(tuple(tuple(range(start, start + n)) for start, n in zip(starts, sizes, strict=True)))


def random_posterior(num_classes):
    return torch.softmax(2 * torch.randn(IMAGES, num_classes, dtype=torch.float64), dim=-1)


def random_logits(sizes):
    return [2 * torch.randn(IMAGES, n + 1, dtype=torch.float64) for n in sizes]


def task_posteriors(posterior, partition):
    """P(y_k | x) of every task: own classes, then everything else as "none"."""
    own = [posterior[:, list(task)] for task in partition.tasks]
    return [torch.cat([p, 1 - p.sum(1, keepdim=True)], dim=1) for p in own]


def exact_logits(posterior, partition):
    """Logits of exact tasks, each image shifted by a number of its own."""
    return [torch.log(p) + torch.randn(IMAGES, 1, dtype=p.dtype) for p in task_posteriors(posterior, partition)]


def kl(p, q):
    return (p * (p / q).log()).sum(-1)


def entropy(p):
    return -(p * p.log()).sum(-1)


def group_posterior(posterior, partition):
    """P(G = k | x): shape (IMAGES, K)."""
    return torch.stack([posterior[:, list(task)].sum(1) for task in partition.tasks], dim=1)


def joint_model(task_logits):
    """The factorised model's probability of every tuple of task labels."""
    tasks = [torch.softmax(z, dim=-1) for z in task_logits]
    tuples = list(itertools.product(*(range(q.shape[1]) for q in tasks)))
    return {labels: torch.stack([q[:, y] for q, y in zip(tasks, labels, strict=True)]).prod(0) for labels in tuples}


def valid_tuples(partition):
    """The label tuple of every class: exactly one label is not "none"."""
    return [tuple(partition.label_maps[:, c].tolist()) for c in range(partition.num_classes)]


@pytest.mark.parametrize("sizes", SIZES)
def test_joint_kl_is_the_sum_of_task_kls_and_what_no_model_can_change(sizes):
    partition = tasks_of(sizes)
    posterior, logits = random_posterior(sum(sizes)), random_logits(sizes)
    joint = joint_model(logits)
    model = torch.stack([joint[labels] for labels in valid_tuples(partition)], dim=1)
    tasks = zip(task_posteriors(posterior, partition), logits, strict=True)
    task_kls = sum(kl(p, torch.softmax(z, dim=-1)) for p, z in tasks)
    # Total correlation: every task knows whether the class is its own; one knowledge of the group is enough.
    group = group_posterior(posterior, partition)
    shared = sum(entropy(torch.stack([p, 1 - p], dim=1)) for p in group.unbind(1)) - entropy(group)
    torch.testing.assert_close(kl(posterior, model), task_kls + shared, **EXACT)
    if len(sizes) == 2:
        torch.testing.assert_close(shared, entropy(group), **EXACT)


@pytest.mark.parametrize(("rule", "sizes"), [*(("raw", s) for s in SIZES), *(("pool", s) for s in PAIRS)])
def test_raw_and_pool_are_exact_at_exact_tasks(rule, sizes):
    partition, posterior = tasks_of(sizes), random_posterior(sum(sizes))
    fused = torch.softmax(fuse(exact_logits(posterior, partition), rule), dim=-1)
    torch.testing.assert_close(fused, posterior, **EXACT)


@pytest.mark.parametrize("sizes", SIZES)
def test_raw_drops_none_and_renormalises(sizes):
    logits = random_logits(sizes)
    own = torch.cat([torch.softmax(z, dim=-1)[:, :-1] for z in logits], dim=1)
    expected = own / own.sum(1, keepdim=True)
    torch.testing.assert_close(torch.softmax(fuse(logits, "raw"), dim=-1), expected, **EXACT)


@pytest.mark.parametrize("sizes", SIZES)
def test_valid_conditions_the_joint_model_on_one_task_speaking(sizes):
    logits = random_logits(sizes)
    joint = joint_model(logits)
    valid = torch.stack([joint[labels] for labels in valid_tuples(tasks_of(sizes))], dim=1)
    expected = valid / valid.sum(1, keepdim=True)
    torch.testing.assert_close(torch.softmax(fuse(logits, "valid"), dim=-1), expected, **EXACT)


@pytest.mark.parametrize("sizes", PAIRS)
def test_pool_averages_the_group_and_keeps_each_conditional(sizes):
    logits = random_logits(sizes)
    head, tail = (torch.softmax(z, dim=-1) for z in logits)
    odds = ((1 - head[:, -1:]) / head[:, -1:] * tail[:, -1:] / (1 - tail[:, -1:])).sqrt()
    in_head = odds / (1 + odds)
    expected = torch.cat(
        [in_head * head[:, :-1] / (1 - head[:, -1:]), (1 - in_head) * tail[:, :-1] / (1 - tail[:, -1:])], dim=1
    )
    torch.testing.assert_close(torch.softmax(fuse(logits, "pool"), dim=-1), expected, **EXACT)


@pytest.mark.parametrize("sizes", PAIRS)
def test_valid_pays_for_counting_the_group_twice(sizes):
    partition, posterior, logits = tasks_of(sizes), random_posterior(sum(sizes)), random_logits(sizes)
    joint = joint_model(logits)
    mass = sum(joint[labels] for labels in valid_tuples(partition))
    tasks = zip(task_posteriors(posterior, partition), logits, strict=True)
    task_kls = sum(kl(p, torch.softmax(z, dim=-1)) for p, z in tasks)
    bound = task_kls + entropy(group_posterior(posterior, partition))
    error = kl(posterior, torch.softmax(fuse(logits, "valid"), dim=-1))
    torch.testing.assert_close(error, bound + mass.log(), **EXACT)
    assert (error <= bound).all()


@pytest.mark.parametrize("sizes", PAIRS)
def test_valid_is_not_bayes_at_exact_tasks(sizes):
    partition, posterior = tasks_of(sizes), random_posterior(sum(sizes))
    group = group_posterior(posterior, partition)
    error = kl(posterior, torch.softmax(fuse(exact_logits(posterior, partition), "valid"), dim=-1))
    torch.testing.assert_close(error, entropy(group) + group.square().sum(1).log(), **EXACT)
    assert error.max() > 1e-2


@pytest.mark.parametrize("sizes", PAIRS)
def test_pool_errs_by_no_more_than_its_tasks_together(sizes):
    partition, posterior, logits = tasks_of(sizes), random_posterior(sum(sizes)), random_logits(sizes)
    task_kls, group_kls, group_models = 0, 0, []
    group = group_posterior(posterior, partition)
    for k, (p, z) in enumerate(zip(task_posteriors(posterior, partition), logits, strict=True)):
        q = torch.softmax(z, dim=-1)
        own = 1 - q[:, -1]
        in_head = own if k == 0 else 1 - own
        group_models.append(torch.stack([in_head, 1 - in_head], dim=1))
        task_kls = task_kls + kl(p, q)
        group_kls = group_kls + kl(group, group_models[k])
    overlap = (group_models[0] * group_models[1]).sqrt().sum(1)  # Bhattacharyya coefficient
    error = kl(posterior, torch.softmax(fuse(logits, "pool"), dim=-1))
    torch.testing.assert_close(error, task_kls - group_kls / 2 + overlap.log(), **EXACT)
    assert (error <= task_kls).all()


@pytest.mark.parametrize("rule", RULES)
def test_a_number_added_to_a_task_changes_nothing(rule):
    logits = random_logits((2, 4))
    moved = [z + torch.randn(IMAGES, 1, dtype=z.dtype) for z in logits]
    before, after = (torch.softmax(fuse(z, rule), dim=-1) for z in (logits, moved))
    torch.testing.assert_close(before, after, **EXACT)


@pytest.mark.parametrize("rule", RULES)
def test_certain_tasks_stay_finite(rule):
    logits = [1e4 * z for z in random_logits((2, 4))]
    assert torch.isfinite(torch.softmax(fuse(logits, rule), dim=-1)).all()


@pytest.mark.parametrize("rule", FUSION_RULES)
def test_one_task_has_nothing_to_fuse(rule):
    logits = torch.randn(IMAGES, 5, dtype=torch.float64)
    assert torch.equal(fuse([logits], rule), logits)


def test_pool_is_for_two_tasks():
    sentence = "Fusion rule 'pool' averages two opinions on one group and is defined for 2 tasks, not 3; use 'raw'."
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        fuse(random_logits((3, 2, 2)), "pool")


def test_an_unknown_rule_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match=r"^Unknown fusion rule 'sum'; choose one of raw, valid, pool, mean\.$"):
        fuse(random_logits((2, 4)), "sum")


def offsets_of(sizes):
    return [torch.randn(n + 1, dtype=torch.float64) for n in sizes]


def without_offsets(posterior, offsets):
    """Prop 8 (ii): class probabilities divided by what training multiplied them with."""
    balanced = posterior / torch.cat([m[:-1] for m in offsets]).exp()
    return balanced / balanced.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("rule", "sizes"), [*((rule, s) for rule in ("raw", "valid") for s in SIZES), ("pool", (2, 4))]
)
def test_offsets_are_part_of_the_posterior_and_then_divided_out_of_its_classes(rule, sizes):
    logits, offsets = random_logits(sizes), offsets_of(sizes)
    as_trained = [z + m for z, m in zip(logits, offsets, strict=True)]
    expected = without_offsets(torch.softmax(fuse(as_trained, rule), dim=-1), offsets)
    torch.testing.assert_close(torch.softmax(fuse(logits, rule, offsets), dim=-1), expected, **EXACT)


def test_scores_of_raw_and_valid_are_what_they_say():
    logits, offsets = random_logits((2, 1)), offsets_of((2, 1))
    q = [torch.softmax(z + m, dim=-1) for z, m in zip(logits, offsets, strict=True)]
    raw = torch.stack(
        [q[0][:, 0].log() - offsets[0][0], q[0][:, 1].log() - offsets[0][1], q[1][:, 0].log() - offsets[1][0]], 1
    )
    none = [z[:, -1] + m[-1] for z, m in zip(logits, offsets, strict=True)]
    valid = torch.stack([logits[0][:, 0] - none[0], logits[0][:, 1] - none[0], logits[1][:, 0] - none[1]], 1)
    torch.testing.assert_close(fuse(logits, "raw", offsets), raw, **EXACT)
    torch.testing.assert_close(fuse(logits, "valid", offsets), valid, **EXACT)


def test_the_mean_is_taken_over_the_experts():
    logits = [torch.tensor([[1.0, 4.0, 0.0], [2.0, 2.0, 2.0]]), torch.tensor([[3.0, 0.0, 0.0], [0.0, 1.0, -2.0]])]
    assert fuse(logits, "mean").tolist() == [[2, 2, 0], [1, 1.5, 0]]


def test_an_open_none_is_closed_by_the_sum_of_its_probabilities():
    outputs = torch.randn(IMAGES, 5, dtype=torch.float64)
    q = torch.softmax(outputs, dim=-1)
    closed = close(outputs, 2)
    assert torch.equal(closed[:, :2], outputs[:, :2])
    expected = torch.stack([q[:, 0], q[:, 1], q[:, 2] + q[:, 3] + q[:, 4]], dim=1)
    torch.testing.assert_close(torch.softmax(closed, dim=-1), expected, **EXACT)


def test_calibration_divides_by_the_temperature_and_moves_own_classes_alone():
    logits = [torch.tensor([[2.0, 4.0, 6.0]]), torch.tensor([[3.0, 6.0]])]
    temperatures, biases = torch.tensor([2.0, 3.0]), torch.tensor([10.0, -1.0])
    first, second = calibrate(logits, temperatures, biases, [2, 1])
    assert first.tolist() == [[11, 12, 3]]
    assert second.tolist() == [[0, 2]]
    first, second = calibrate(logits, temperatures, biases, None)  # no "none": nothing to move against
    assert first.tolist() == [[1, 2, 3]]
    assert second.tolist() == [[1, 2]]


def test_calibration_wants_a_size_for_every_task():
    with pytest.raises(ValueError, match=r"zip\(\)"):
        calibrate(random_logits((2, 4)), torch.ones(2), torch.zeros(2), [2])
