"""The search: weight grids, the least proxy, what is fixed, edges, and what is said about the choice."""

import dataclasses

import pytest
import torch

from osdtw_training import search as search_module
from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.search import search, weight_grid
from osdtw_training.terms import Terms

N, GAMMA = 50, 0.05
EXACT = {"rtol": 1e-11, "atol": 1e-12}


def block(tasks, parameters, spread=1.0):
    """Random statistics in float64; the scores are a positive matrix in every coordinate."""
    root = torch.randn(parameters, tasks, tasks + 1, dtype=torch.float64)
    return BlockStatistics(
        curvature=torch.rand(tasks, parameters, dtype=torch.float64) + 0.1,
        scores=(root @ root.mT).permute(1, 2, 0),
        target=torch.rand(tasks, parameters, dtype=torch.float64) + 0.1,
        optimum=spread * torch.randn(tasks, parameters, dtype=torch.float64),
    )


def statistics(tasks=2, sizes=(3, 1, 4), spread=1.0):
    return Statistics(tuple(block(tasks, p, spread) for p in sizes), N, GAMMA)


def test_two_tasks_weights_are_even_in_log_odds():
    weights = weight_grid(2, 11)
    assert weights.shape == (11, 2)
    torch.testing.assert_close(weights.sum(1), torch.ones(11, dtype=torch.float64), **EXACT)
    torch.testing.assert_close(weights, weights.flip(0, 1), **EXACT)
    assert weights[[0, -1], 1].tolist() == pytest.approx([0.05, 0.95])
    steps = torch.logit(weights[:, 1]).diff()
    torch.testing.assert_close(steps, steps[:1].expand(10), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("tasks", "points"), [(3, 1), (3, 6), (3, 101), (4, 50)])
def test_more_tasks_weights_fill_the_simplex(tasks, points):
    weights = weight_grid(tasks, points)
    assert 1 <= len(weights) <= points
    assert (weights > 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights), dtype=torch.float64), **EXACT)
    rows = {tuple(round(x, 9) for x in row) for row in weights.tolist()}
    assert len(rows) == len(weights)
    assert rows == {row[1:] + row[:1] for row in rows}  # no task is preferred


def test_one_task_has_the_weight_one():
    assert weight_grid(1, 101).tolist() == [[1.0]]


def value(plan):
    """The proxy of a plan, from its own terms."""
    column = plan.terms.weights.tolist().index(list(plan.task_weights))
    return plan.terms.proxy[plan.shared_depth, column]


def inner(seed):
    """Statistics whose least proxy lies inside the weight grid."""
    torch.manual_seed(seed)
    stats = statistics(spread=0.3)
    best = divmod(int(search(stats, 9).terms.proxy.argmin()), 9)
    return stats if best[0] > 0 and 0 < best[1] < 8 else inner(seed + 100)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_search_finds_the_least_proxy_and_keeps_what_is_fixed(seed):
    stats = inner(seed)
    plan = search(stats, points=9)
    assert not plan.edge
    assert value(plan) == plan.terms.proxy.min()
    fixed = search(stats, points=9, shared_depth=plan.shared_depth)
    assert (fixed.shared_depth, fixed.task_weights) == (plan.shared_depth, plan.task_weights)
    assert search(stats, points=9, shared_depth=2).shared_depth == 2
    fixed = search(stats, task_weights=(0.3, 0.7))
    assert fixed.task_weights == (0.3, 0.7)
    assert value(fixed) == fixed.terms.proxy.min()


def lopsided(target):
    """One block that pulls the weights towards the tasks whose target is large."""
    optimum = torch.linspace(-5, 5, len(target), dtype=torch.float64)[:, None].expand(-1, 4)
    targets = torch.tensor(target, dtype=torch.float64)[:, None].expand(-1, 4)
    part = dataclasses.replace(block(len(target), 4), optimum=optimum, target=targets)
    return Statistics((dataclasses.replace(part, curvature=torch.ones(len(target), 4)),), N, GAMMA)


@pytest.mark.parametrize("points", [5, 21, 101])
@pytest.mark.parametrize(
    "target",
    [(1e3, 1), (1, 1e3)],
)
def test_at_the_edge_of_the_grid_the_weights_are_equal(target, points):
    plan = search(lopsided(target), points, shared_depth=1)
    assert int(plan.terms.proxy[1].argmin()) in (0, points - 1)
    assert plan.edge
    assert plan.task_weights == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("parting", [0, 1, 2, 3])
def test_blocks_are_shared_up_to_where_the_tasks_part(parting):
    """Optima agree in the first blocks and lie far apart in the others."""
    alike = [dataclasses.replace(b, optimum=torch.zeros_like(b.optimum)) for b in statistics().blocks]
    apart = [dataclasses.replace(b, optimum=10 * torch.tensor([[-1.0], [1.0]]).expand(2, 4)) for b in [block(2, 4)] * 3]
    stats = Statistics((*alike[:parting], *apart[parting:], apart[0]), N, GAMMA)
    assert search(stats, points=21).shared_depth == parting


def test_the_weights_follow_the_target():
    """Two tasks alike but for the balanced target: the one that the target weighs more gets more weight."""
    found = [search(lopsided((1, tail)), points=101, shared_depth=1).task_weights[1] for tail in (0.2, 1, 5)]
    assert found[0] < 0.3 < found[1] < 0.7 < found[2]


def sampled(by_depth, scatter, images=100):
    """Terms of given proxies, every image's part scattered around its share but for those of equal depth."""
    proxy = torch.tensor(by_depth, dtype=torch.float64)[:, None].expand(-1, 5) + torch.tensor([2.0, 1, 0, 1, 2])
    noise = torch.randn(len(by_depth), 1, images, dtype=torch.float64) * scatter / images**0.5
    noise -= noise.mean(-1, keepdim=True)
    units = proxy[..., None] / images + noise
    nothing = torch.zeros_like(proxy)
    return Terms(weight_grid(2, 5), nothing, proxy, nothing[:, 0], units, sampled=True)


@pytest.mark.parametrize(
    ("proxies", "scatter", "alike", "depth"),
    [
        ([3.0, 2, 1, 0, 1], 1e-3, (3, 3), 3),  # clear: the least
        ([3.0, 0.01, 0, 0.01, 3], 1.0, (1, 3), 2),
        ([0.02, 0.01, 0.0, 9, 9], 1.0, (0, 2), 1),
        ([9.0, 0.01, 9, 0.0, 9], 1.0, (1, 3), 2),  # undecided on both sides
        ([9.0, 9, 9, 0.01, 0.0], 1.0, (3, 4), 3),  # the shallower of two
    ],
)
def test_of_plans_that_are_as_good_the_middle_is_taken(proxies, scatter, alike, depth, monkeypatch):
    torch.manual_seed(0)
    terms = sampled(proxies, scatter)
    monkeypatch.setattr(search_module, "error_terms", lambda *_: terms)
    plan = search(statistics(), points=5)
    assert (plan.alike, plan.shared_depth) == (alike, depth)
    assert plan.task_weights == pytest.approx((0.5, 0.5))
    assert ("as good within one standard error" in plan.reason()) == (alike[0] < alike[1])
    assert plan.near.any(1).nonzero().flatten().tolist()[0] == alike[0]
    fixed = search(statistics(), points=5, shared_depth=4)
    assert (fixed.shared_depth, fixed.alike) == (4, (4, 4))


@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("points", [1, 2, 3, 50, 101])
def test_equal_weights_are_in_every_grid(tasks, points):
    equal = torch.full((tasks,), 1 / tasks, dtype=torch.float64)
    assert torch.isclose(weight_grid(tasks, points), equal, **EXACT).all(1).any()
