"""Prior correction (theory.md Prop 8): tasks trained to their optimum on a long tail fuse to the balanced posterior.

A population of finite support has its optimum in closed form. Each test first checks that the gradient of the
training loss is zero there, so that nothing rests on the algebra that built the logits.
"""

import pytest
import torch

from osdtw_models.fusion import fuse

IMAGES = 9
CASES = [("raw", (2, 4)), ("raw", (3, 2, 2)), ("pool", (2, 4)), ("pool", (1, 3))]
EXACT = {"rtol": 0, "atol": 1e-12}


class Population:
    """Images with random class likelihoods, seen under a long-tailed prior and judged under the uniform one."""

    def __init__(self, sizes):
        self.sizes, self.num_classes = sizes, sum(sizes)
        self.likelihood = torch.softmax(2 * torch.randn(IMAGES, self.num_classes, dtype=torch.float64), dim=0)
        self.prior = torch.softmax(-1.2 * torch.arange(self.num_classes, dtype=torch.float64), dim=0)
        self.train = self.likelihood * self.prior  # p(x, y)
        self.balanced = self.likelihood / self.likelihood.sum(1, keepdim=True)
        self.relative_prior = self.num_classes * self.prior  # m_y

    def tasks(self):
        """Own classes and other classes of each task."""
        start = 0
        for n in self.sizes:
            own = list(range(start, start + n))
            yield own, [c for c in range(self.num_classes) if c not in own]
            start += n

    def optimum(self, own, none_weights, offsets):
        """Task logits at the minimum of the weighted loss on ``logits + offsets``, shifted at random per image."""
        none = (self.train * none_weights).sum(1, keepdim=True)
        logits = torch.log(torch.cat([self.train[:, own], none], dim=1)) - offsets
        logits = logits + torch.randn(IMAGES, 1, dtype=torch.float64)
        self.check_optimal(logits, own, none_weights, offsets)
        return logits

    def check_optimal(self, logits, own, none_weights, offsets):
        """The loss as it is trained, summed over the whole population, has no gradient left."""
        logits = logits.clone().requires_grad_()
        log_model = torch.log_softmax(logits + offsets, dim=-1)
        loss = 0
        for c in range(self.num_classes):
            label, weight = (own.index(c), 1) if c in own else (len(own), none_weights[c])
            loss = loss - (weight * self.train[:, c] * log_model[:, label]).sum()
        loss.backward()
        torch.testing.assert_close(logits.grad, torch.zeros_like(logits), **EXACT)


def none_indicator(population, others):
    """Weight 1 for samples of other classes, 0 for own ones: no re-weighting."""
    weights = torch.zeros(population.num_classes, dtype=torch.float64)
    weights[others] = 1
    return weights


@pytest.mark.parametrize(("rule", "sizes"), CASES)
def test_balanced_softmax_with_none_weights_is_bayes_for_the_balanced_test(rule, sizes):
    population = Population(sizes)
    logits = []
    for own, others in population.tasks():
        mean_prior = population.prior[others].mean()
        weights = none_indicator(population, others) * mean_prior / population.prior
        none_offset = population.num_classes * mean_prior
        offsets = torch.cat([population.relative_prior[own], none_offset[None]]).log()
        logits.append(population.optimum(own, weights, offsets))
    torch.testing.assert_close(torch.softmax(fuse(logits, rule), dim=-1), population.balanced, **EXACT)


def without_none_weights(population):
    """Logits and offsets of tasks trained as Prop 8 (ii) says, the offset of "none" chosen at random."""
    logits, offsets = [], []
    for own, others in population.tasks():
        none_offset = torch.randn(1, dtype=torch.float64)
        offsets.append(torch.cat([population.relative_prior[own].log(), none_offset]))
        logits.append(population.optimum(own, none_indicator(population, others), offsets[-1]))
    return logits, offsets


@pytest.mark.parametrize(("rule", "sizes"), CASES)
def test_offsets_make_tasks_without_none_weights_bayes_too(rule, sizes):
    population = Population(sizes)
    logits, offsets = without_none_weights(population)
    fused = torch.softmax(fuse(logits, rule, offsets), dim=-1)
    torch.testing.assert_close(fused, population.balanced, **EXACT)


@pytest.mark.parametrize(("rule", "sizes"), CASES)
def test_without_none_weights_the_offsets_cannot_be_left_out(rule, sizes):
    population = Population(sizes)
    logits, _ = without_none_weights(population)
    fused = torch.softmax(fuse(logits, rule), dim=-1)
    assert (fused - population.balanced).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("rule", "sizes"), [*((rule, (2, 4)) for rule in ("raw", "valid", "pool")), ("valid", (3, 2, 2))]
)
def test_offsets_calibrate_to_training_and_divide_by_the_prior(rule, sizes):
    logits = [torch.randn(IMAGES, n + 1, dtype=torch.float64) for n in sizes]
    offsets = [torch.randn(n + 1, dtype=torch.float64) for n in sizes]
    trained = torch.softmax(fuse([z + m for z, m in zip(logits, offsets, strict=True)], rule), dim=-1)
    expected = trained / torch.cat([m[:-1] for m in offsets]).exp()
    expected = expected / expected.sum(1, keepdim=True)
    torch.testing.assert_close(torch.softmax(fuse(logits, rule, offsets), dim=-1), expected, **EXACT)
