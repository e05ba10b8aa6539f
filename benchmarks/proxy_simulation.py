"""The proxy's algebra against simulation, in numpy alone: docs/theory.md section 8.

    python benchmarks/proxy_simulation.py        -> benchmarks/studies/proxy_simulation.json

Images have finite support: population risks and Fishers are exact sums, a data set is a table of counts, and all
repetitions are fitted at once by Newton's method. Both simulations are log-linear models whose task posteriors are
right at the true parameters: what is tested is the expansion, not deep networks.

Names: theta = (phi, psi_0, psi_1); logits of task k at x are base_k(x) + X_k(x) (theta - theta*_k).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from osdtw_models.files import write_text
from osdtw_training.provenance import processor

Array = np.ndarray[Any, Any]
RESULTS = Path(__file__).parent / "studies" / "proxy_simulation.json"
POINTS = 40  # images
PRIOR = np.array([0.42, 0.25, 0.15, 0.10, 0.05, 0.03])  # classes; the first three are the head
WEIGHTS = np.linspace(0.1, 0.9, 17)  # of the tail
ENCODER, DECODER = 9, 6  # parameters
CHUNK = 250  # repetitions fitted at once
DELTA = 0.1  # small: the expansion is local, and what it leaves out does not shrink with the number of images


def softmax(z: Array) -> Array:
    """Chances along the last axis."""
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


class Tasks:
    """Head and tail, each with 'none', on one long-tailed sample (Prop 8 (i)); the target is balanced.

    Args:
        rng: Draws images and features.
        delta: Length of every encoder parameter's displacement between the tasks.
    """

    def __init__(self, rng: np.random.Generator, delta: float) -> None:
        of_class = softmax(1.2 * rng.standard_normal((6, POINTS)))  # p(x | y): (6, M)
        self.joint = PRIOR[:, None] * of_class  # training p(x, y)
        balanced = of_class / 6
        self.at = balanced.sum(0)  # target p(x)
        size = ENCODER + 2 * DECODER
        self.optima = np.zeros((2, size))
        self.optima[1, :ENCODER] = delta * rng.choice([-1, 1], ENCODER)
        self.design, self.base, self.offsets, self.weights, self.labels = [], [], [], [], []
        evidence = 0.5 * rng.standard_normal((POINTS, 1, ENCODER))  # for the head: the encoder tells both tasks alike
        for k in range(2):
            own = np.arange(3) + 3 * k
            other = np.arange(3) + 3 * (1 - k)
            labels = np.full(6, 3)
            labels[own] = np.arange(3)
            posterior = np.stack([balanced[labels == c].sum(0) for c in range(4)], -1) / self.at[:, None]
            design = np.zeros((POINTS, 4, size))
            sides = np.array([1, 1, 1, -1]) * (1 - 2 * k)
            design[..., :ENCODER] = 0.5 * rng.standard_normal((POINTS, 4, ENCODER)) + sides[:, None] * evidence
            columns = slice(ENCODER + k * DECODER, ENCODER + (k + 1) * DECODER)
            design[..., columns] = 0.7 * rng.standard_normal((POINTS, 4, DECODER))
            mass = PRIOR[other].sum()
            weights = np.ones(6)
            weights[other] = mass / 3 / PRIOR[other]
            self.design.append(design)
            self.base.append(np.log(posterior))
            self.offsets.append(np.log(6 * np.append(PRIOR[own], mass / 3)))
            self.weights.append(weights)
            self.labels.append(labels)

    def logits(self, k: int, theta: Array) -> Array:
        """Logits of task k: (R, size) -> (R, M, 4)."""
        shift = theta - self.optima[k]
        return self.base[k] + np.tensordot(shift, self.design[k], (1, 2))

    def risk(self, theta: Array) -> Array:
        """Balanced KL summed over the tasks: (R, size) -> (R,)."""
        total = np.zeros(len(theta))
        for k in range(2):
            truth = softmax(self.base[k])
            log_q = np.log(softmax(self.logits(k, theta)))
            total += np.einsum("m,mc,rmc->r", self.at, truth, self.base[k] - log_q)
        return total

    def fit(self, counts: Array, tail: float) -> Array:
        """Minimise (1 - w) L_head + w L_tail for tables of counts (R, 6, M): theta (R, size)."""
        size = self.optima.shape[1]
        theta = np.tile((1 - tail) * self.optima[0] + tail * self.optima[1], (len(counts), 1))
        share = counts / counts.sum((1, 2), keepdims=True)
        targets = []
        for k in range(2):
            weighted = share * self.weights[k][:, None]
            targets.append(np.stack([weighted[:, self.labels[k] == c].sum(1) for c in range(4)], -1))  # (R, M, 4)
        for _ in range(6):
            gradient, hessian = np.zeros((len(counts), size)), np.zeros((len(counts), size, size))
            for k, weight in enumerate((1 - tail, tail)):
                q = softmax(self.logits(k, theta) + self.offsets[k])
                mass = targets[k].sum(-1, keepdims=True)
                gradient += weight * np.einsum("rmc,mcp->rp", mass * q - targets[k], self.design[k])
                hessian += weight * curvature(mass[..., 0], q, self.design[k])
            theta -= np.linalg.solve(hessian + 1e-9 * np.eye(size), gradient[..., None])[..., 0]
        return theta


def curvature(mass: Array, q: Array, design: Array) -> Array:
    """Sum over x of mass X' (diag q - q q') X, shape (R, size, size); mass (R, M), q (R, M, 4), X (M, 4, size)."""
    pulled = np.einsum("rmc,mcp->rmp", q, design)
    flat = (mass[..., None] * q).reshape(len(q), -1)
    rows = design.reshape(-1, design.shape[-1])
    outer = np.matmul(rows.T, flat[..., None] * rows)
    return outer - np.matmul((mass[..., None] * pulled).transpose(0, 2, 1), pulled)


def information(tasks: Tasks) -> tuple[Array, Array, Array]:
    """Population H (2, size, size), C (2, 2, size, size) and J* (2, size, size) at each task's own optimum."""
    scores, training, target = [], [], []
    for k in range(2):
        q = softmax(tasks.base[k] + tasks.offsets[k])
        mass = (tasks.joint * tasks.weights[k][:, None]).sum(0)
        training.append(curvature(mass[None], q[None], tasks.design[k])[0])
        target.append(curvature(tasks.at[None], softmax(tasks.base[k])[None], tasks.design[k])[0])
        errors = q[None] - np.eye(4)[tasks.labels[k]][:, None]  # (6, M, 4)
        scores.append(tasks.weights[k][:, None, None] * np.einsum("ymc,mcp->ymp", errors, tasks.design[k]))
    cross = np.array([[np.einsum("ym,ymp,ymq->pq", tasks.joint, a, b) for b in scores] for a in scores])
    return np.array(training), cross, np.array(target)


def predictions(tasks: Tasks, images: int) -> dict[str, Array]:
    """Predicted risk over WEIGHTS by every simplification of the full expansion (Props 4 and 5)."""
    training, cross, target = information(tasks)
    blocks = np.repeat(np.arange(3), [ENCODER, DECODER, DECODER])
    block = (blocks[:, None] == blocks[None]).astype(float)
    own = np.array([[PRIOR[:3].sum() * images], [PRIOR[3:].sum() * images]])[..., None]
    matched = training / images
    alone = cross * np.eye(2)[..., None, None] / images

    def curve(h: Array, noise: Array, j: Array) -> Array:
        return np.array([expansion(tasks, h, noise, j, tail) for tail in WEIGHTS])

    def separate(noise: Array) -> Array:
        return np.eye(2)[..., None, None] * noise[:, None]

    h, j = training * block, target * block
    return {
        "training_fisher": curve(h, separate(matched * block), h),
        "own_n": curve(h, separate(training * block / own), h),
        "target_fisher": curve(h, separate(matched * block), j),
        "sandwich": curve(h, cross / images * block, j),
        "full": curve(training, cross / images, target),
        "no_cross": curve(training, alone, target),
    }


def expansion(tasks: Tasks, h: Array, noise: Array, j: Array, tail: float) -> float:
    """Risk to second order of the joint M-estimator: bias of its limit + trace of its sandwich covariance.

    Stationarity of sum_k w_k L_k, each L_k quadratic with curvature H_k around theta*_k, gives the limit
    A^-1 sum_k w_k H_k theta*_k, A = sum_k w_k H_k, and the covariance A^-1 (sum_kl w_k w_l C_kl / N) A^-1. With the
    whole matrices the Schur complements of Prop 5 are in the inverse.

    Args:
        tasks: Says where the tasks' optima are.
        h: Training curvatures, shape (2, size, size).
        noise: Score covariances C_kl / N, shape (2, 2, size, size).
        j: Fisher information of the target, shape (2, size, size).
        tail: Weight of the tail.

    Returns:
        The risk.
    """
    w = np.array([1 - tail, tail])
    inverse = np.linalg.inv(np.tensordot(w, h, 1) + 1e-12 * np.eye(h.shape[-1]))
    centre = inverse @ np.einsum("k,kpq,kq->p", w, h, tasks.optima)
    covariance = inverse @ np.einsum("k,l,klpq->pq", w, w, noise) @ inverse
    away = centre - tasks.optima
    return float(0.5 * np.einsum("kp,kpq,kq->", away, j, away) + 0.5 * np.einsum("kpq,qp->", j, covariance))


def single_sample(rng: np.random.Generator, delta: float, images: int, repetitions: int) -> dict[str, Any]:
    """Monte-Carlo risk over WEIGHTS beside the predictions: ratios, least weights, regrets (%)."""
    tasks = Tasks(np.random.default_rng(1), delta)
    risks = []
    for start in range(0, repetitions, CHUNK):
        number = min(CHUNK, repetitions - start)
        counts = rng.multinomial(images, tasks.joint.ravel() / tasks.joint.sum(), number).reshape(number, 6, POINTS)
        risks.append([tasks.risk(tasks.fit(counts, tail)) for tail in WEIGHTS])
    each = np.concatenate(risks, 1)  # (weights, R)
    mean, error = each.mean(1), each.std(1) / repetitions**0.5
    found: dict[str, Any] = {
        "delta": delta,
        "images": images,
        "monte_carlo": mean.tolist(),
        "standard_error": float((error / mean).max()),
        "best_tail_weight": float(WEIGHTS[mean.argmin()]),
        "predictions": {},
    }
    for name, values in predictions(tasks, images).items():
        chosen = int(values.argmin())
        found["predictions"][name] = {
            "ratio": [float((mean / values).min()), float((mean / values).max())],
            "best_tail_weight": float(WEIGHTS[chosen]),
            "regret_percent": float(100 * (mean[chosen] / mean.min() - 1)),
        }
    return found


LAYERS, WIDTH = 4, 9
APART = (0.0, 0.1, 0.25, 0.6)  # displacement of each layer's parameters
SHARES = (0.2, 0.35, 0.5)  # tail weights to choose from, in the own-sample convention


class Pair:
    """Two four-class tasks on samples of their own: 36 parameters each in four layers that may be shared."""

    def __init__(self, rng: np.random.Generator) -> None:
        size = LAYERS * WIDTH
        shift = np.repeat(APART, WIDTH) * rng.choice([-1, 1], size)
        self.optima = np.stack([np.zeros(size), shift])
        common = rng.standard_normal((POINTS, 4, size))
        self.design = [0.4 * (common + 0.5 * rng.standard_normal(common.shape)) for _ in range(2)]
        self.base = [np.log(softmax(rng.standard_normal((POINTS, 4)))) for _ in range(2)]

    def logits(self, k: int, theta: Array) -> Array:
        """(R, size) -> (R, M, 4)."""
        return self.base[k] + np.tensordot(theta - self.optima[k], self.design[k], (1, 2))

    def risk(self, thetas: Array) -> Array:
        """KL summed over the tasks at (2, R, size): (R,)."""
        terms = [softmax(b) * (b - np.log(softmax(self.logits(k, thetas[k])))) for k, b in enumerate(self.base)]
        return sum(term.sum((1, 2)) / POINTS for term in terms)

    def fit(self, shares: list[Array], depth: int, tail: float) -> Array:
        """Both tasks' parameters (2, R, size), the first layers in common; shares are (R, M, 4), each of sum 1."""
        size, shared = self.optima.shape[1], depth * WIDTH
        rest = size - shared
        place = [np.r_[0:shared, shared + k * rest : shared + (k + 1) * rest] for k in range(2)]
        theta = np.zeros((len(shares[0]), shared + 2 * rest))
        for k in range(2):
            theta[:, place[k][shared:]] = self.optima[k][shared:]
        for _ in range(6):
            gradient, hessian = np.zeros_like(theta), np.zeros((*theta.shape, theta.shape[1]))
            for k, weight in enumerate((1 - tail, tail)):
                q = softmax(self.logits(k, theta[:, place[k]]))
                mass = shares[k].sum(-1, keepdims=True)
                gradient[:, place[k]] += weight * np.einsum("rmc,mcp->rp", mass * q - shares[k], self.design[k])
                hessian[np.ix_(range(len(theta)), place[k], place[k])] += weight * curvature(
                    mass[..., 0], q, self.design[k]
                )
            theta -= np.linalg.solve(hessian + 1e-6 * np.eye(theta.shape[1]), gradient[..., None])[..., 0]
        return np.stack([theta[:, place[k]] for k in range(2)])


def plug_in(pair: Pair, estimates: Array, shares: list[Array], sizes: tuple[int, int], debias: str) -> Array:
    """Proxy from estimates, shape (LAYERS + 1, weights, R): Prop 4 by layers, the bias debiased or not (Prop 7)."""
    fishers = [curvature(shares[k].sum(-1), softmax(pair.logits(k, estimates[k])), pair.design[k]) for k in range(2)]
    inverses = [np.linalg.inv(f + 1e-6 * np.eye(f.shape[-1])) for f in fishers]
    encoder, decoder = [], []
    for layer in range(LAYERS):
        own = slice(layer * WIDTH, (layer + 1) * WIDTH)
        h = [f[:, own, own] for f in fishers]
        blocks = [np.linalg.inv(x + 1e-6 * np.eye(WIDTH)) for x in h]
        marginal = [v[:, own, own] for v in inverses]
        noise = [v / n for v, n in zip(marginal if debias == "full" else blocks, sizes, strict=True)]
        apart = estimates[1][:, own] - estimates[0][:, own]
        squares = apart[:, :, None] * apart[:, None] - (0 if debias == "none" else noise[0] + noise[1])
        each = []
        for tail in SHARES:
            inverse = np.linalg.inv((1 - tail) * h[0] + tail * h[1])
            pull = [np.matmul(inverse, w * x) for w, x in zip((1 - tail, tail), h, strict=True)]
            covariance = sum(p @ (b / n) @ p.transpose(0, 2, 1) for p, b, n in zip(pull, blocks, sizes, strict=True))
            value = 0.5 * np.einsum("rpq,rqp->r", h[0] + h[1], covariance)
            for k, other in ((0, pull[1]), (1, pull[0])):
                value = value + 0.5 * np.einsum("rpq,rqs,rst,rpt->r", h[k], other, squares, other)
            each.append(value)
        encoder.append(each)
        decoder.append(sum(WIDTH / 2 / n for n in sizes))
    shared = np.concatenate([np.zeros((1, *np.shape(encoder)[1:])), np.cumsum(encoder, 0)])
    private = np.append(np.cumsum(decoder[::-1])[::-1], 0)
    return shared + private[:, None, None]


def two_samples(rng: np.random.Generator, tail_images: int, repetitions: int) -> dict[str, Any]:
    """Depth and weight chosen from estimates: mean depth and regret (%) with and without debiasing."""
    pair, sizes = Pair(np.random.default_rng(2)), (4 * tail_images, tail_images)
    risks, chosen = [], {"none": [], "block": [], "full": []}
    for start in range(0, repetitions, CHUNK):
        number = min(CHUNK, repetitions - start)
        shares = []
        for k, n in enumerate(sizes):
            chances = (softmax(pair.base[k]) / POINTS).ravel()
            shares.append(rng.multinomial(n, chances, number).reshape(number, POINTS, 4) / n)
        plans = [[pair.risk(pair.fit(shares, d, t)) for t in SHARES] for d in range(LAYERS + 1)]
        risks.append(np.array(plans))
        estimates = pair.fit(shares, 0, 0.5)
        for name, picked in chosen.items():
            picked.append(plug_in(pair, estimates, shares, sizes, name).reshape(-1, number).argmin(0))
    mean = np.concatenate(risks, -1).mean(-1)  # (LAYERS + 1, weights)
    found: dict[str, Any] = {"tail_images": tail_images, "best_depth": int(mean.min(1).argmin()), "choices": {}}
    for name, picked in chosen.items():
        plan = np.concatenate(picked)
        found["choices"][name] = {
            "mean_depth": float((plan // len(SHARES)).mean()),
            "regret_percent": float(100 * (mean.ravel()[plan].mean() / mean.min() - 1)),
        }
    return found


def main() -> None:
    """Run both simulations and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    cases = [(delta, images) for delta in (0.0, DELTA) for images in (1_000, 4_000, 16_000, 64_000)]
    results = {
        "command": "python benchmarks/proxy_simulation.py",
        "seed": 0,
        "repetitions": options.repetitions,
        "hardware": {"processor": processor(), "threads": 1},
        "date": time.strftime("%Y-%m-%d"),
        "single_sample": [single_sample(rng, *case, options.repetitions) for case in cases],
        "two_samples": [two_samples(rng, n, max(options.repetitions // 8, 20)) for n in (300, 1_200, 4_800)],
    }
    results["seconds"] = round(time.perf_counter() - started, 1)
    write_text(options.output, json.dumps(results, indent=2) + "\n")
    print(f"Wrote {options.output}")


if __name__ == "__main__":
    main()
