"""Refit decoders: Schur complements by explicit matrices, in float64; where nothing is refit, plain quadratic forms."""

import pytest
import torch

from osdtw_training import schur
from osdtw_training.responses import Responses
from osdtw_training.schur import error_terms, left_out, unexplained
from osdtw_training.search import weight_grid

GAMMA = 0.05


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Problem:
    """Explicit gradients of every image in every block, and explicit optima: what `Responses` are made of."""

    def __init__(self, tasks=2, sizes=(3, 2, 4), head=2, images=12):
        self.tasks, self.images = tasks, images
        self.gradients = [[torch.randn(images, p) / images**0.5 for p in (*sizes, head)] for _ in range(tasks)]
        self.optima = [torch.randn(tasks, p) for p in sizes]
        self.noise = [0.5 * torch.randn(tasks, p) for p in sizes]

    def responses(self):
        directions = [torch.cat([o[1:] - o[0], e]) for o, e in zip(self.optima, self.noise, strict=True)]
        slopes = [[v @ g.T for v, g in zip(directions, task, strict=False)] for task in self.gradients]
        gram = [torch.stack([g @ g.T for g in task]) for task in self.gradients]
        return Responses(torch.stack([torch.stack(task) for task in slopes]), torch.stack(gram), GAMMA)

    def quadratic(self, task, depth, vectors):
        """What moves of blocks 1 .. d leave of every image when ridge regressions are fitted to all the others."""
        own = self.gradients[task]
        values = torch.stack([sum(g @ v for g, v in zip(own[:depth], vector, strict=False)) for vector in vectors])
        features = torch.cat(own[depth:], 1)
        tried = [values]
        for penalty in schur.PENALTIES:
            left = torch.empty_like(values)
            for i in range(self.images):
                others = torch.arange(self.images) != i
                x, y = features[others], values[:, others].T
                normal = x.T @ x + penalty * GAMMA * torch.eye(x.shape[1])
                left[:, i] = values[:, i] - features[i] @ torch.linalg.solve(normal, x.T @ y)
            tried.append(left)
        shares = [float((left.square().sum(1) / values.square().sum(1)).sum()) for left in tried]
        return tried[shares.index(min(shares))]

    def terms(self, depth, weights, debias):
        """The three terms of a plan, from vectors."""
        total = 0.0
        for k in range(self.tasks):
            values = sum(g @ e[k] for g, e in zip(self.gradients[k], self.noise, strict=False))
            total += 0.5 * float(values.square().sum())
        if depth == 0:
            return 0.0, 0.0, total
        variance = bias = private = 0.0
        for k in range(self.tasks):
            moves = [[o[j] - o[0] for o in self.optima] for j in range(1, self.tasks)]
            moves += [[e[j] for e in self.noise] for j in range(self.tasks)]
            left = self.quadratic(k, depth, moves)
            displaced = torch.cat([torch.zeros(1, self.images), left[: self.tasks - 1]])  # of every task from task 0
            noise = left[self.tasks - 1 :]
            variance += 0.5 * float(sum(weights[j] * noise[j] for j in range(self.tasks)).square().sum())
            from_own = sum(weights[j] * (displaced[j] - displaced[k]) for j in range(self.tasks))
            bias += 0.5 * float(from_own.square().sum())
            if debias:
                apart = sum(weights[j] * (noise[j] - noise[k]) for j in range(self.tasks))
                bias -= 0.5 * float(apart.square().sum())
            private += 0.5 * float(noise[k].square().sum())
        return variance, bias, total - private


@pytest.mark.parametrize("tasks", [1, 2, 3])
@pytest.mark.parametrize("debias", [False, True])
def test_terms_are_those_of_explicit_vectors_and_matrices(tasks, debias):
    problem = Problem(tasks)
    weights = weight_grid(tasks, 3)
    found = error_terms(problem.responses(), weights, debias=debias)
    for depth in range(4):
        for g, w in enumerate(weights.tolist()):
            expected = problem.terms(depth, w, debias)
            value = [found.encoder_variance[depth, g], found.encoder_bias[depth, g], found.decoder_variance[depth]]
            assert [float(v) for v in value] == pytest.approx(expected, rel=1e-8, abs=1e-10)
            assert float(found.units[depth, g].sum()) == pytest.approx(sum(expected), rel=1e-8, abs=1e-10)


def test_with_many_images_it_is_the_schur_complement():
    """Gradients with a known covariance: what is left is v' (J_ff - J_fp J_pp^-1 J_pf) v."""
    images, encoder, decoder = 4000, 3, 4
    root = torch.randn(encoder + decoder, encoder + decoder)
    gradients = torch.randn(images, encoder + decoder) @ root / images**0.5
    fisher = root.T @ root
    schur_complement = fisher[:3, :3] - fisher[:3, 3:] @ torch.linalg.solve(fisher[3:, 3:], fisher[3:, :3])
    v = torch.randn(encoder)
    features = gradients[:, 3:]
    left = left_out((gradients[:, :3] @ v)[None], features @ features.T, 1e-9)
    assert float(left.square().sum()) == pytest.approx(float(v @ schur_complement @ v), rel=0.1)
    assert float(v @ schur_complement @ v) < 0.8 * float(v @ fisher[:3, :3] @ v)  # otherwise nothing is shown


def test_features_of_noise_explain_nothing_of_other_images():
    """More features than images: in-sample nothing would be left; of images left out, all of it is."""
    images = 200
    values, features = torch.randn(1, images), torch.randn(images, 5000)
    left = left_out(values, features @ features.T / 5000, 0.01)
    assert float(left.square().sum() / values.square().sum()) > 0.9


def test_a_decoder_never_makes_it_worse():
    """Fitting is only done where it helps on other images: what is left is at most what there was."""
    problem = Problem(images=40)
    noisy = problem.responses()
    for depth in range(1, 4):
        slopes = noisy.slopes[0, :depth].sum(0)
        shares = unexplained(noisy, 0, depth).square().sum(1) / slopes.square().sum(1)
        assert float(shares.sum()) <= len(slopes) * (1 + 1e-12)
    one = torch.randn(2, 1)
    alone = Responses(one[None, None], torch.ones(1, 2, 1, 1), GAMMA)
    torch.testing.assert_close(unexplained(alone, 0, 1), one)
