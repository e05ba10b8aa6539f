"""The proxy against loops over depths, weights and coordinates, theory.md's closed form, and simulation."""

import dataclasses

import pytest
import torch

from osdtw_training import proxy
from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.proxy import block_forms, error_terms, noise_scale, sampling_noise
from osdtw_training.search import weight_grid

N, GAMMA = 50, 0.05
EXACT = {"rtol": 1e-11, "atol": 1e-12}


@pytest.fixture
def fine(monkeypatch):
    """Only equal ratios of curvatures are taken together: no rounding."""
    monkeypatch.setattr(proxy, "RATIO_STEP", 1e-9)


def block(tasks, parameters, spread=1.0, replicates=False):
    """Random statistics in float64; the scores are a positive matrix in every coordinate."""
    root = torch.randn(parameters, tasks, tasks + 1, dtype=torch.float64)
    return BlockStatistics(
        curvature=torch.rand(tasks, parameters, dtype=torch.float64) + 0.1,
        scores=(root @ root.mT).permute(1, 2, 0),
        target=torch.rand(tasks, parameters, dtype=torch.float64) + 0.1,
        optimum=spread * torch.randn(tasks, parameters, dtype=torch.float64),
        replicates=torch.randn(2, tasks, parameters, dtype=torch.float64) if replicates else None,
    )


def statistics(tasks=2, sizes=(3, 1, 150), spread=1.0, replicates=False):
    return Statistics(tuple(block(tasks, p, spread, replicates) for p in sizes), N, GAMMA)


def chance(part, p, h, scale):
    """V of one coordinate: from the replicates' difference, or by Prop 3."""
    tasks = range(len(h))
    if part.replicates is not None:
        e = [float(part.replicates[0, k, p] - part.replicates[1, k, p]) / 2 for k in tasks]
        return [[e[k] * e[m] for m in tasks] for k in tasks]
    return [[scale * float(part.scores[k, m, p]) / (N * h[k] * h[m]) for m in tasks] for k in tasks]


def coordinate(part, p, w, gamma, scale, debias=True):
    """Encoder variance, encoder bias and decoder variance of one parameter, by Props 3, 4 and 7."""
    tasks = range(len(w))
    h = [float(part.curvature[k, p]) + gamma for k in tasks]
    j = [float(part.target[k, p]) for k in tasks]
    v = chance(part, p, h, scale)
    total = sum(w[k] * h[k] for k in tasks)
    u = [w[k] * h[k] / total for k in tasks]
    variance = 0.5 * sum(j) * sum(u[k] * u[m] * v[k][m] for k in tasks for m in tasks)
    centre = sum(u[k] * float(part.optimum[k, p]) for k in tasks)
    bias = 0
    for k in tasks:
        pull = [u[m] - (m == k) for m in tasks]
        shown = sum(pull[m] * pull[n] * v[m][n] for m in tasks for n in tasks) if debias else 0
        bias += 0.5 * j[k] * ((centre - float(part.optimum[k, p])) ** 2 - shown)
    return variance, bias, sum(0.5 * j[k] * v[k][k] for k in tasks)


def by_hand(stats, depth, w, gamma, scale, debias=True):
    """The three terms of one plan, coordinate by coordinate."""
    sums = [0.0, 0.0, 0.0]
    for number, part in enumerate(stats.blocks, 1):
        for p in range(part.curvature.shape[1]):
            variance, bias, decoder = coordinate(part, p, w, gamma, scale, debias)
            shared = number <= depth
            sums = [sums[0] + variance * shared, sums[1] + bias * shared, sums[2] + decoder * (not shared)]
    return sums


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("spread", [1.0, 1e-3])  # with and without room for the whole sampling noise
@pytest.mark.parametrize("replicates", [False, True])
@pytest.mark.parametrize("debias", [False, True])
def test_terms_of_all_depths_are_sums_over_blocks_and_coordinates(fine, tasks, spread, replicates, debias):
    stats, damping = statistics(tasks, spread=spread, replicates=replicates), 3.0
    weights = weight_grid(tasks, 6)
    gamma = damping * stats.damping
    scale = noise_scale(stats, gamma)
    terms = error_terms(stats, weights, damping, debias)
    for g, w in enumerate(weights.tolist()):
        for depth in range(4):
            sums = by_hand(stats, depth, w, gamma, scale, debias)
            found = [terms.encoder_variance[depth, g], terms.encoder_bias[depth, g], terms.decoder_variance[depth]]
            assert [float(value) for value in found] == pytest.approx(sums, rel=1e-9, abs=1e-12)
            assert float(terms.proxy[depth, g]) == pytest.approx(sum(sums), rel=1e-9, abs=1e-12)
            assert float(terms.units[depth, g].sum()) == pytest.approx(sum(sums), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("tasks", [2, 3])
def test_taking_like_ratios_together_changes_next_to_nothing(tasks):
    """Curvatures that differ by many orders of magnitude, as in real networks."""
    stats = Statistics(tuple(spread_out(tasks) for _ in range(3)), N, 1e-3)
    weights = weight_grid(tasks, 5)
    terms = error_terms(stats, weights)
    scale = noise_scale(stats, 1e-3)
    for g, w in enumerate(weights.tolist()):
        expected = by_hand(stats, 3, w, 1e-3, scale)
        assert float(terms.encoder_variance[3, g]) == pytest.approx(expected[0], rel=2e-3)
        assert float(terms.encoder_bias[3, g]) == pytest.approx(expected[1], rel=2e-3)


def spread_out(tasks):
    part = block(tasks, 300)
    return dataclasses.replace(part, curvature=10 ** (3 * torch.randn(tasks, 300, dtype=torch.float64)))


def test_two_tasks_have_the_closed_form(fine):
    part, weights = block(2, 5), weight_grid(2, 7)
    h = part.curvature + GAMMA
    v_h, v_t = part.scores[0, 0] / (h[0] ** 2 * N), part.scores[1, 1] / (h[1] ** 2 * N)
    c = part.scores[0, 1] / (h[0] * h[1] * N)
    j_h, j_t = part.target
    squared = (part.optimum[1] - part.optimum[0]) ** 2 - (v_h + v_t - 2 * c)
    forms = block_forms(part, N, GAMMA)
    variance, bias = (values.sum(-1) for values in forms.at(weights))
    for g, (_, tail) in enumerate(weights.tolist()):
        s = tail * h[1] / ((1 - tail) * h[0] + tail * h[1])
        scatter = (1 - s) ** 2 * v_h + s**2 * v_t + 2 * s * (1 - s) * c
        torch.testing.assert_close(bias[g], (0.5 * squared * (j_h * s**2 + j_t * (1 - s) ** 2)).sum(), **EXACT)
        torch.testing.assert_close(variance[g], (0.5 * (j_h + j_t) * scatter).sum(), **EXACT)
    torch.testing.assert_close(forms.private.sum(), 0.5 * (j_h * v_h + j_t * v_t).sum(), **EXACT)


FIELDS = ("curvature", "scores", "target", "optimum")


@pytest.mark.parametrize("tasks", [2, 3])
def test_the_bias_is_unbiased_over_noisy_optima(fine, tasks):
    """Optima drawn around the true ones with the sampling noise: on average the bias is the true optima's."""
    draws, true = 3000, block(tasks, 1)
    noise = sampling_noise(true, N, GAMMA)[:, :, 0]
    repeated = BlockStatistics(*(getattr(true, name).expand(*getattr(true, name).shape[:-1], draws) for name in FIELDS))
    weights = weight_grid(tasks, 3)
    means = []
    for _ in range(40):
        shifts = torch.linalg.cholesky(noise) @ torch.randn(tasks, draws, dtype=torch.float64)
        noisy = dataclasses.replace(repeated, optimum=true.optimum + shifts)
        means.append(bias_of(noisy, weights) / draws)
    nothing = dataclasses.replace(true, scores=torch.zeros_like(true.scores))
    compare(torch.stack(means), bias_of(nothing, weights))


def bias_of(part, weights):
    return block_forms(part, N, GAMMA).at(weights)[1].sum(-1)


def compare(means, expected):
    """The mean of many is the expected value within four standard errors, and these are small."""
    error = means.std(0) / len(means) ** 0.5
    assert ((means.mean(0) - expected).abs() < 4 * error).all()
    assert (error < 0.1 * expected.abs()).all()


@pytest.mark.parametrize("tasks", [2, 3])
def test_replicates_of_twice_the_noise_give_unbiased_terms(fine, tasks):
    """Nothing but optima and replicates drawn around the truth: variances and bias come out on average."""
    draws, true = 3000, block(tasks, 1)
    noise = sampling_noise(true, N, GAMMA)[:, :, 0]
    root = torch.linalg.cholesky(noise)
    repeated = BlockStatistics(*(getattr(true, name).expand(*getattr(true, name).shape[:-1], draws) for name in FIELDS))
    weights = weight_grid(tasks, 3)
    found = []
    for _ in range(60):
        optimum = true.optimum + root @ torch.randn(tasks, draws, dtype=torch.float64)
        halves = true.optimum + 2**0.5 * root @ torch.randn(2, tasks, draws, dtype=torch.float64)
        forms = block_forms(dataclasses.replace(repeated, optimum=optimum, replicates=halves), N, GAMMA)
        variance, bias = (values.sum(-1) for values in forms.at(weights))
        found.append(torch.cat([variance, bias, forms.private.sum()[None]]) / draws)
    exact, silent = block_forms(true, N, GAMMA), dataclasses.replace(true, scores=torch.zeros_like(true.scores))
    expected = [exact.at(weights)[0].sum(-1), bias_of(silent, weights), exact.private.sum()[None]]
    compare(torch.stack(found), torch.cat(expected))


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


def test_the_unit_of_the_target_fisher_does_not_change_how_much_is_noise():
    stats = scaled(statistics(2), 1e-3)
    tiny = dataclasses.replace(
        stats, blocks=tuple(dataclasses.replace(b, target=1e-9 * b.target) for b in stats.blocks)
    )
    assert noise_scale(tiny, GAMMA) == pytest.approx(noise_scale(stats, GAMMA), rel=1e-9)
    assert noise_scale(tiny, GAMMA) < 0.1


@pytest.mark.parametrize("tasks", [2, 3])
def test_groups_are_the_coordinates_of_one_part_with_one_ratio(tasks):
    """Ratios on a coarse grid, so that many coordinates share theirs: the forms are sums over exactly these."""
    parameters = proxy.UNITS * proxy.RUN + 200
    levels = torch.randint(-20, 21, (tasks - 1, parameters))
    h = torch.cat([torch.ones(1, parameters), (proxy.RATIO_STEP * levels.double()).exp()])
    part = dataclasses.replace(block(tasks, parameters), curvature=h - GAMMA)
    forms, noise = block_forms(part, N, GAMMA), sampling_noise(part, N, GAMMA)
    expected = {}
    for p in range(parameters):
        key = (p // proxy.RUN % proxy.UNITS, *levels[:, p].tolist())
        expected[key] = expected.get(key, 0) + 0.5 * part.target[:, p].sum() * noise[:, :, p]
    steps = (forms.curvature.log() / proxy.RATIO_STEP).round().long()
    found = [(int(unit), *row[1:]) for unit, row in zip(forms.unit, steps.tolist(), strict=True)]
    assert sorted(found) == sorted(expected)
    for key, variance in zip(found, forms.variance, strict=True):
        torch.testing.assert_close(variance, expected[key], **EXACT)


def test_forms_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        block_forms(block(2, 3), N, GAMMA).unit = None


def test_the_standard_error_is_the_scatter_of_the_parts():
    """Many like coordinates: the error of a difference of plans is what repeating the draw shows."""
    weights = weight_grid(2, 3)
    values, errors = [], []
    for _ in range(200):
        terms = error_terms(Statistics((block(2, 64 * 16, replicates=True),), N, GAMMA), weights)
        values.append(float(terms.proxy[1, 0] - terms.proxy[0, 1]))
        errors.append(float(terms.standard_error(0, 1)[1, 0]))
    assert float(terms.standard_error(0, 1)[0, 1]) == 0
    assert float(torch.tensor(errors).square().mean().sqrt()) == pytest.approx(
        float(torch.tensor(values).std()), rel=0.2
    )
