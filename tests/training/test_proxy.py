"""The proxy against loops over depths, weights and coordinates, theory.md's closed form, and simulation."""

import dataclasses

import pytest
import torch

from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.proxy import block_terms, error_terms, noise_scale, sampling_noise, search, weight_grid

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


def coordinate(part, p, w, gamma, scale):
    """Encoder variance, encoder bias and decoder variance of one parameter, by Props 3, 4 and 7."""
    tasks = range(len(w))
    h = [float(part.curvature[k, p]) + gamma for k in tasks]
    j = [float(part.target[k, p]) for k in tasks]
    s = [[scale * float(part.scores[k, m, p]) for m in tasks] for k in tasks]
    total = sum(w[k] * h[k] for k in tasks)
    variance = 0.5 * sum(j) * sum(w[k] * w[m] * s[k][m] for k in tasks for m in tasks) / (N * total**2)
    centre = sum(w[k] * h[k] * float(part.optimum[k, p]) for k in tasks) / total
    bias = 0
    for k in tasks:
        pull = [w[m] * h[m] / total - (m == k) for m in tasks]
        shown = sum(pull[m] * pull[n] * s[m][n] / (N * h[m] * h[n]) for m in tasks for n in tasks)
        bias += 0.5 * j[k] * ((centre - float(part.optimum[k, p])) ** 2 - shown)
    decoder = sum(0.5 * j[k] * s[k][k] / (N * h[k] ** 2) for k in tasks)
    return variance, bias, decoder


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("spread", [1.0, 1e-3])  # with and without room for the whole sampling noise
def test_terms_of_all_depths_are_sums_over_blocks_and_coordinates(tasks, spread):
    stats, damping = statistics(tasks, spread=spread), 3.0
    weights = weight_grid(tasks, 6)
    gamma = damping * stats.damping
    scale = noise_scale(stats, gamma)
    terms = error_terms(stats, weights, damping)
    for g, w in enumerate(weights.tolist()):
        for depth in range(4):
            sums = [0.0, 0.0, 0.0]
            for number, part in enumerate(stats.blocks, 1):
                for p in range(part.curvature.shape[1]):
                    variance, bias, decoder = coordinate(part, p, w, gamma, scale)
                    shared = number <= depth
                    sums = [sums[0] + variance * shared, sums[1] + bias * shared, sums[2] + decoder * (not shared)]
            found = [terms.encoder_variance[depth, g], terms.encoder_bias[depth, g], terms.decoder_variance[depth]]
            assert [float(value) for value in found] == pytest.approx(sums, rel=1e-10, abs=1e-13)
            assert float(terms.proxy[depth, g]) == pytest.approx(sum(sums), rel=1e-10, abs=1e-13)


def test_two_tasks_have_the_closed_form():
    part, weights = block(2, 5), weight_grid(2, 7)
    h = part.curvature + GAMMA
    v_h, v_t = part.scores[0, 0] / (h[0] ** 2 * N), part.scores[1, 1] / (h[1] ** 2 * N)
    c = part.scores[0, 1] / (h[0] * h[1] * N)
    j_h, j_t = part.target
    squared = (part.optimum[1] - part.optimum[0]) ** 2 - (v_h + v_t - 2 * c)
    variance, bias, decoder = block_terms(part, weights, N, GAMMA)
    for g, (_, tail) in enumerate(weights.tolist()):
        s = tail * h[1] / ((1 - tail) * h[0] + tail * h[1])
        scatter = (1 - s) ** 2 * v_h + s**2 * v_t + 2 * s * (1 - s) * c
        torch.testing.assert_close(bias[g], (0.5 * squared * (j_h * s**2 + j_t * (1 - s) ** 2)).sum(), **EXACT)
        torch.testing.assert_close(variance[g], (0.5 * (j_h + j_t) * scatter).sum(), **EXACT)
    torch.testing.assert_close(decoder, 0.5 * (j_h * v_h + j_t * v_t).sum(), **EXACT)


@pytest.mark.parametrize("tasks", [2, 3])
def test_the_bias_is_unbiased_over_noisy_optima(tasks):
    """Optima drawn around the true ones with the sampling noise: on average the bias is the true optima's."""
    draws, true = 3000, block(tasks, 1)
    noise = sampling_noise(true, N, GAMMA)[:, :, 0]
    repeated = BlockStatistics(*(getattr(true, name).expand(*getattr(true, name).shape[:-1], draws) for name in FIELDS))
    weights = weight_grid(tasks, 3)
    means = []
    for _ in range(40):
        shifts = torch.linalg.cholesky(noise) @ torch.randn(tasks, draws, dtype=torch.float64)
        noisy = dataclasses.replace(repeated, optimum=true.optimum + shifts)
        means.append(block_terms(noisy, weights, N, GAMMA)[1] / draws)
    means = torch.stack(means)
    nothing = dataclasses.replace(true, scores=torch.zeros_like(true.scores))
    expected = block_terms(nothing, weights, N, GAMMA)[1]
    error = means.std(0) / len(means) ** 0.5
    assert ((means.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.05 * expected.abs()).all()


FIELDS = ("curvature", "scores", "target", "optimum")


def scaled(stats, factor):
    """The same statistics with all displacements between tasks multiplied."""
    return dataclasses.replace(
        stats, blocks=tuple(dataclasses.replace(b, optimum=factor * b.optimum) for b in stats.blocks)
    )


def test_noise_never_explains_more_displacement_than_there_is():
    stats = statistics(3)
    assert noise_scale(scaled(stats, 100), GAMMA) == 1
    small = noise_scale(scaled(stats, 1e-3), GAMMA)
    assert 0 < small < 1
    assert noise_scale(scaled(stats, 2e-3), GAMMA) == pytest.approx(4 * small)
    assert noise_scale(statistics(1), GAMMA) == 1
    shown, expected = 0.0, 0.0
    for part in scaled(stats, 1e-3).blocks:
        h = part.curvature + GAMMA
        for k, m in [(0, 1), (0, 2), (1, 2)]:
            own = part.scores[k, k] / h[k] ** 2 + part.scores[m, m] / h[m] ** 2
            noise = own - 2 * part.scores[k, m] / (h[k] * h[m])
            shown += (part.target.sum(0) * (part.optimum[k] - part.optimum[m]) ** 2).sum()
            expected += (part.target.sum(0) * noise / N).sum()
    assert small == pytest.approx(float(shown / expected), rel=1e-10)


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
