"""The simulation in small: what the expansion gets right, and what is lost without each of its parts."""

import numpy as np
import pytest

import proxy_simulation as simulation

REPETITIONS = 200


@pytest.fixture(scope="module")
def coinciding():
    return simulation.single_sample(np.random.default_rng(0), 0.0, 64_000, REPETITIONS)


@pytest.fixture(scope="module")
def parted():
    return simulation.single_sample(np.random.default_rng(0), simulation.DELTA, 64_000, REPETITIONS)


def ratio(found, name):
    return found["predictions"][name]["ratio"]


def test_the_full_prediction_is_the_simulated_risk(coinciding, parted):
    for found in (coinciding, parted):
        slack = 3 * found["standard_error"]
        low, high = ratio(found, "full")
        assert 0.97 - slack < low < high < 1.03 + slack
        step = simulation.WEIGHTS[1] - simulation.WEIGHTS[0]
        assert abs(found["predictions"]["full"]["best_tail_weight"] - found["best_tail_weight"]) < 1.01 * step


def test_without_the_target_the_weights_are_wrong(parted):
    """Training Fishers alone have their least risk at equal weights, whatever the target (Prop 6, corollary)."""
    assert parted["predictions"]["training_fisher"]["best_tail_weight"] == pytest.approx(0.5)
    assert parted["best_tail_weight"] > 0.55
    assert parted["predictions"]["training_fisher"]["regret_percent"] > 2


def test_without_the_cross_term_the_risk_is_underrated_where_tasks_coincide(coinciding):
    assert max(ratio(coinciding, "no_cross")) > max(ratio(coinciding, "full")) + 0.05


def test_without_debiasing_too_little_is_shared():
    found = simulation.two_samples(np.random.default_rng(0), 1_200, 60)
    naive, block, full = (found["choices"][name] for name in ("none", "block", "full"))
    assert naive["mean_depth"] < found["best_depth"] - 0.5
    assert naive["mean_depth"] < block["mean_depth"] < full["mean_depth"]
    assert naive["regret_percent"] > block["regret_percent"] > full["regret_percent"]


def test_fits_are_minima():
    """At a fit the weighted loss of the table has no slope, by finite differences."""
    tasks = simulation.Tasks(np.random.default_rng(1), 0.1)
    counts = np.random.default_rng(0).multinomial(500, tasks.joint.ravel() / tasks.joint.sum(), 2)
    counts = counts.reshape(2, 6, simulation.POINTS)
    theta = tasks.fit(counts, 0.3)

    def loss(at):
        total = 0.0
        for k, weight in enumerate((0.7, 0.3)):
            log_q = np.log(simulation.softmax(tasks.logits(k, at) + tasks.offsets[k]))
            of_class = log_q[:, :, tasks.labels[k]].transpose(0, 2, 1)  # (R, 6, M)
            total = total - weight * (counts / 500 * tasks.weights[k][:, None] * of_class).sum((1, 2))
        return total

    for parameter in range(theta.shape[1]):
        step = np.zeros_like(theta)
        step[:, parameter] = 1e-4
        assert np.abs(loss(theta + step) - loss(theta - step)).max() / 2e-4 < 1e-6
