"""Calibration: parameters that were hidden in made-up logits are found again, and few images move little."""

import pytest
import torch

from osdtw_models.fusion import calibrate
from osdtw_models.load import load_model
from osdtw_models.partition import ClassPartition
from osdtw_training.calibration import fit_calibration, fit_logits, image_weights
from osdtw_training.data import load_data
from osdtw_training.networks import new_network
from osdtw_training.pipeline import run_recipe

TASKS = [[0, 1, 2], [3, 4]]


@pytest.fixture
def network(tiny):
    return new_network(tiny(), ClassPartition(TASKS)).eval()


def made_up(network, number):
    """Logits of exact tasks on a mixture of five Gaussians, each class as often: raw fusion gives its posterior."""
    centres = torch.randn(5, 3, dtype=torch.float64) * 1.5
    labels = torch.arange(5).repeat(number // 5)
    points = centres[labels] + torch.randn(len(labels), 3, dtype=torch.float64)
    density = -(points[:, None] - centres).square().sum(-1) / 2
    z = []
    for task in TASKS:
        others = [c for c in range(5) if c not in task]
        z.append(torch.cat([density[:, task], density[:, others].logsumexp(1, keepdim=True)], 1))
    torch.testing.assert_close(network.fuse(z).softmax(1), density.softmax(1))
    return z, labels


def nll(network, z, labels):
    weights = image_weights(network, labels)
    return float((weights * torch.nn.functional.cross_entropy(network.fuse(z), labels, reduction="none")).sum())


def test_the_fit_is_a_minimum_of_the_weighed_cross_entropy(network):
    z, labels = made_up(network, 4000)
    spoiled = [z[0] * 3 - 1, z[1] / 2 + torch.tensor([0.7, 0.7, 0.0])]
    before = nll(network, spoiled, labels)
    network.set_calibration(fit_logits(network, spoiled, labels))
    best = nll(network, spoiled, labels)
    assert best < before - 0.1
    fitted = network.calibration
    for k in (0, 1):
        for change in ([1.2, 0.0], [1 / 1.2, 0.0], [1.0, 0.2], [1.0, -0.2]):
            other = [list(pair) for pair in fitted]
            other[k] = [other[k][0] * change[0], other[k][1] + change[1]]
            network.set_calibration(other)
            assert nll(network, spoiled, labels) > best


def test_hidden_temperatures_and_biases_are_found(network):
    z, labels = made_up(network, 60_000)
    # The network is handed what calibration must undo: T (z - b on its own classes).
    hidden = [[2.0, 0.5], [0.6, -0.4]]
    handed = []
    for each, (t, b) in zip(z, hidden, strict=True):
        own = each.clone()
        own[:, :-1] -= b
        handed.append(own * t)
    exact = calibrate(handed, *torch.tensor(hidden, dtype=torch.float64).T, network.partition.task_sizes)
    assert all(torch.allclose(one, other) for one, other in zip(exact, z, strict=True))
    found = torch.tensor(fit_logits(network, handed, labels))
    assert (found - torch.tensor(hidden)).abs().max() < 0.15


def test_without_images_of_every_class_no_bias_is_fitted(network):
    """Class 4 is told badly and has no held-out image: what its task's other class shows is not true of both."""
    z, labels = made_up(network, 4000)
    z[1][:, :2] += 1
    assert all(abs(bias) > 0.1 for _, bias in fit_logits(network, z, labels))
    seen = labels != 4
    found = fit_logits(network, [each[seen] for each in z], labels[seen])
    assert [bias for _, bias in found] == [0, 0]
    assert all(temperature != 1 for temperature, _ in found)


@pytest.fixture
def opinions(tiny):
    """A network whose tasks know every class, and logits of each that are right too surely, one more than the other."""
    plan = {"shared_depth": 3, "task_weights": (0.5, 0.5)}
    recipe = tiny(open_none=True, fusion="mean", **plan)
    network = new_network(recipe, ClassPartition(TASKS, open_none=True)).eval()
    labels = torch.arange(5).repeat(40)
    right = torch.nn.functional.one_hot(labels, 5)
    z = [scale * (right + torch.randn(len(labels), 5, dtype=torch.float64)) for scale in (3, 9)]
    return network, [each.index_select(1, order.argsort()) for each, order in zip(z, orders(), strict=True)], labels


def orders():
    """Where a task's outputs have each class: its own first, the others in class order."""
    return torch.tensor([[0, 1, 2, 3, 4], [2, 3, 4, 0, 1]])


def test_opinions_on_every_class_share_a_temperature_that_changes_no_answer(opinions):
    network, z, labels = opinions
    answers = network.fuse(z).argmax(1)
    network.set_calibration(fit_logits(network, z, labels, biased=False))
    (first, second) = network.calibration
    assert first == second
    assert first[0] > 1.5
    assert torch.equal(network.fuse(z).argmax(1), answers)
    each = fit_logits(network, z, labels, biased=False, shared=False)
    assert each[1][0] > 1.5 * each[0][0]


def test_their_temperature_is_the_best_on_a_grid(opinions):
    network, z, labels = opinions
    mean = sum(each.index_select(1, order) for each, order in zip(z, orders(), strict=True)) / 2
    grid = torch.linspace(-1, 3, 4001, dtype=torch.float64)
    risk = [torch.nn.functional.cross_entropy(mean / t.exp(), labels) + t**2 / (2 * 0.5**2 * len(labels)) for t in grid]
    best = grid[torch.stack(risk).argmin()].exp()
    found = fit_logits(network, z, labels, biased=False)[0][0]
    assert found == pytest.approx(float(best), rel=2e-3)


def test_few_images_move_it_little(network):
    z, labels = made_up(network, 5)
    for temperature, bias in fit_logits(network, [each * 20 for each in z], labels):
        assert 0.2 < temperature < 5
        assert abs(bias) < 1


def test_classes_weigh_alike_in_their_task_and_tasks_by_their_classes(network):
    labels = torch.tensor([0, 0, 0, 1, 3])  # classes 2 and 4 have none held out
    weights = image_weights(network, labels)
    expected = torch.tensor([1.5 / 3] * 3 + [1.5, 2.0], dtype=torch.float64) / 5
    torch.testing.assert_close(weights, expected)


def test_a_run_calibrates_stores_and_tells_before_and_after(tiny, tmp_path, no_figures):
    result = run_recipe(tiny(calibrate=True, holdout=0.3), tmp_path / "run")
    told = result.results["calibration"]
    assert told["tasks"] == result.network.calibration == load_model(tmp_path / "run").calibration
    assert told["images"] > 0
    assert told["before"]["holdout"]["nll"] != result.results["holdout"]["nll"]
    assert {"nll", "ece", "overall"} <= told["before"]["test"].keys()
    images = load_data(tiny(calibrate=True, holdout=0.3))
    plain = load_model(tmp_path / "run")
    plain.set_calibration(None)
    torch.testing.assert_close(
        torch.tensor(fit_calibration(plain, images.holdout)), torch.tensor(told["tasks"]), rtol=1e-3, atol=1e-3
    )
