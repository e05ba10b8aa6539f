"""Pure: statistics -> error terms for every shared depth and task weighting at once -> `Plan` (Prop 4, 7; section 4).

With diagonal blocks the expected error of the assembled network is a sum over blocks: a shared block costs
encoder variance + encoder bias, a private one decoder variance. So all depths come from one prefix sum and one
suffix sum, for all weights together.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osdtw_training.fisher import BlockStatistics, Statistics

WEIGHT_RANGE = (0.05, 0.95)


@dataclass(frozen=True)
class Terms:
    """Error terms in nats, for depths d = 0 .. L and G task weightings.

    Args:
        weights: Task weightings, shape (G, K), rows sum to 1.
        encoder_variance: Shape (L + 1, G): of blocks 1 .. d when shared.
        encoder_bias: Shape (L + 1, G).
        decoder_variance: Shape (L + 1,): of blocks d + 1 .. L in every decoder.
        noise_scale: Factor that the displacement allowed on the sampling noise, see `noise_scale`.
    """

    weights: Tensor
    encoder_variance: Tensor
    encoder_bias: Tensor
    decoder_variance: Tensor
    noise_scale: float

    @property
    def proxy(self) -> Tensor:
        """Sum of the three terms, shape (L + 1, G)."""
        return self.encoder_variance + self.encoder_bias + self.decoder_variance[:, None]


@dataclass(frozen=True)
class Plan:
    """What the search chose.

    Args:
        shared_depth: Number of shared blocks.
        task_weights: Weight of each task's mean loss over all N images; they sum to 1.
        terms: The error terms the choice was made from.
        edge: Whether the least proxy lay at the edge of the weight grid, where the expansion is not to be
            trusted (theory.md section 9); the weights are then equal and the depth is the best one for them.
    """

    shared_depth: int
    task_weights: tuple[float, ...]
    terms: Terms
    edge: bool


def search(
    statistics: Statistics,
    points: int = 101,
    damping: float = 1.0,
    shared_depth: int | None = None,
    task_weights: Sequence[float] | None = None,
) -> Plan:
    """The depth and the task weights with the least proxy.

    Args:
        statistics: Statistics of the trained tasks.
        points: Size of the weight grid.
        damping: Factor on the statistics' damping.
        shared_depth: Search the weights at this depth only.
        task_weights: Search the depths at these weights only.

    Returns:
        The plan, with all terms.
    """
    if task_weights is not None:
        weights = torch.tensor([list(task_weights)], dtype=torch.float64)
    else:
        weights = weight_grid(len(statistics.blocks[0].curvature), points)
    terms = error_terms(statistics, weights, damping)
    depths = slice(None) if shared_depth is None else slice(shared_depth, shared_depth + 1)
    depth, index = divmod(int(terms.proxy[depths].argmin()), len(weights))
    edge = len(weights) > 1 and bool((weights[index] <= weights.min() + 1e-9).any())
    if edge:
        index = int((weights - 1 / weights.shape[1]).abs().sum(1).argmin())
        depth = int(terms.proxy[depths, index].argmin())
    return Plan(depth + (shared_depth or 0), tuple(weights[index].tolist()), terms, edge)


def error_terms(statistics: Statistics, weights: Tensor, damping: float = 1.0) -> Terms:
    """Error terms of all depths and the given task weightings, by prefix and suffix sums.

    Args:
        statistics: Statistics of the trained tasks, L blocks.
        weights: Task weightings, shape (G, K).
        damping: Factor on the statistics' damping.

    Returns:
        The terms, float64.
    """
    gamma = damping * statistics.damping
    scale = noise_scale(statistics, gamma)
    images = statistics.num_images
    per_block = [block_terms(block, weights, images, gamma, scale) for block in statistics.blocks]
    variance, bias = (torch.stack([terms[i] for terms in per_block]) for i in (0, 1))
    decoder = torch.stack([terms[2] for terms in per_block])
    nothing = torch.zeros(1, len(weights), dtype=torch.float64)
    return Terms(
        weights=weights,
        encoder_variance=torch.cat([nothing, variance.cumsum(0)]),
        encoder_bias=torch.cat([nothing, bias.cumsum(0)]),
        decoder_variance=torch.cat([decoder.flip(0).cumsum(0).flip(0), nothing[0, :1]]),
        noise_scale=scale,
    )


def block_terms(
    block: BlockStatistics, weights: Tensor, num_images: int, gamma: float, scale: float = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """Terms of one block of P parameters (Prop 4, diagonal; K tasks).

    With damped curvature h_k, a shared block settles at sum_k u_k phi_k, u_k = w_k h_k / sum_l w_l h_l, and
    scatters by sum_kl w_k w_l S_kl / (N A^2), A = sum_k w_k h_k. The displacement that the tasks' own noise
    V_kl = S_kl / (N h_k h_l) would show, sum_lm (u_l - [l=k]) (u_m - [m=k]) V_lm, is subtracted from the bias of
    task k (Prop 7, for K tasks).

    Args:
        block: Statistics of the block.
        weights: Task weightings, shape (G, K).
        num_images: Training images N.
        gamma: Damping added to the curvature; the target Fisher and the scores stay undamped.
        scale: Factor on the noise V, see `noise_scale`.

    Returns:
        Encoder variance (G,), encoder bias (G,) and decoder variance (scalar), in nats, float64.
    """
    h = block.curvature.double() + gamma  # (K, P)
    target = block.target.double()  # (K, P)
    optimum = block.optimum.double()  # (K, P)
    noise = scale * sampling_noise(block, num_images, gamma)  # V: (K, K, P)
    own = noise.diagonal().T  # V_kk: (K, P)
    variances, biases = [], []
    for w in weights.double():
        pull = w[:, None] * h
        share = pull / pull.sum(0)  # u: (K, P)
        mixed = (share[:, None] * noise).sum(0)  # sum_l u_l V_lk: (K, P)
        scatter = (share * mixed).sum(0)  # of the shared optimum: (P,)
        squared = ((share * optimum).sum(0) - optimum).square()  # (K, P)
        shown = scatter - 2 * mixed + own  # what noise alone would show: (K, P)
        variances.append(0.5 * (target.sum(0) * scatter).sum())
        biases.append(0.5 * (target * (squared - shown)).sum())
    return torch.stack(variances), torch.stack(biases), 0.5 * (target * own).sum()


def sampling_noise(block: BlockStatistics, num_images: int, gamma: float) -> Tensor:
    """Covariance of the tasks' optima from sampling, V_kl = S_kl / (N h_k h_l) (Prop 3): shape (K, K, P)."""
    h = block.curvature.double() + gamma
    return block.scores.double() / num_images / (h[:, None] * h[None, :])


def noise_scale(statistics: Statistics, gamma: float) -> float:
    """Largest factor on the sampling noise that the measured displacement allows, at most 1.

    Two tasks with one optimum would differ by noise alone: E delta^2 = V_kk + V_ll - 2 V_kl. A network trained
    for a few epochs from a common start has not scattered as far as the expansion says, so the expansion's
    noise is scaled down until, weighed by the target Fisher over all blocks and pairs of tasks, it explains no
    more displacement than there is. It is a bound, not an estimate: with it the tasks' optima differ nowhere on
    average, only from block to block.

    Args:
        statistics: Statistics of the trained tasks.
        gamma: Damping added to the curvature.

    Returns:
        The factor, above 0 and at most 1.
    """
    shown, expected = 0.0, 0.0
    for block in statistics.blocks:
        noise = sampling_noise(block, statistics.num_images, gamma)
        metric = block.target.double().sum(0)
        for k, m in itertools.combinations(range(len(block.optimum)), 2):
            difference = block.optimum[k].double() - block.optimum[m].double()
            shown += float((metric * difference.square()).sum())
            expected += float((metric * (noise[k, k] + noise[m, m] - 2 * noise[k, m])).sum())
    return min(1.0, shown / expected) if expected > 0 else 1.0


def weight_grid(num_tasks: int, points: int) -> Tensor:
    """Task weightings to search.

    Args:
        num_tasks: Number of tasks K.
        points: Wanted number of weightings.

    Returns:
        Shape (G, K), rows sum to 1. Two tasks: G = ``points``, evenly spaced in log-odds from 0.05 to 0.95. One
        task: the weight 1. More: the inner points of the finest simplex lattice with at most ``points`` of them.
    """
    if num_tasks == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if num_tasks == 2:
        ends = torch.logit(torch.tensor(WEIGHT_RANGE, dtype=torch.float64))
        second = torch.linspace(float(ends[0]), float(ends[1]), points, dtype=torch.float64).sigmoid()
        return torch.stack([1 - second, second], 1)
    steps = num_tasks
    while len(_lattice(num_tasks, steps + 1)) <= points:
        steps += 1
    return torch.tensor(_lattice(num_tasks, steps), dtype=torch.float64) / steps


def _lattice(parts: int, total: int) -> Sequence[tuple[int, ...]]:
    """All ways to write a total as an ordered sum of positive parts."""
    cuts = itertools.combinations(range(1, total), parts - 1)
    return [tuple(b - a for a, b in itertools.pairwise((0, *cut, total))) for cut in cuts]
