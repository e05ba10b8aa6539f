"""Pure: statistics -> error terms for every shared depth and task weighting at once (Props 3, 4, 7; section 4).

With diagonal blocks the expected error of the assembled network is a sum over blocks: a shared block costs
encoder variance + encoder bias, a private one decoder variance. So all depths come from one prefix sum and one
suffix sum, for all weights together. The terms of a block are quadratic in the shares that the tasks have in the
common optimum, and the shares depend on the tasks' curvatures only through their ratios: coordinates of like ratios
are added up first, once, and all weights are then cheap. What holds without diagonal blocks is in schur.py.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.terms import Terms

RATIO_STEP = 0.02  # like ratios: within 2 %; a share is then off by a quarter of a percent at most
UNITS, RUN = 16, 64  # parts of a network to see a sum's scatter by: runs of 64 coordinates, dealt out in turn


def error_terms(statistics: Statistics, weights: Tensor, damping: float = 1.0, debias: bool = True) -> Terms:
    """Error terms of all depths and the given task weightings, by prefix and suffix sums.

    Args:
        statistics: Statistics of the trained tasks, L blocks.
        weights: Task weightings, shape (G, K).
        damping: Factor on the statistics' damping.
        debias: Whether the displacement that noise alone would show is taken off the bias (Prop 7).

    Returns:
        The terms, float64.
    """
    gamma = damping * statistics.damping
    scale = noise_scale(statistics, gamma)
    forms = [block_forms(block, statistics.num_images, gamma, scale, debias) for block in statistics.blocks]
    each = [form.at(weights.double()) for form in forms]
    variance, bias = (_up_to(torch.stack([terms[i] for terms in each])) for i in (0, 1))  # (L + 1, G, U)
    decoder = _up_to(torch.stack([form.private for form in forms]).flip(0)).flip(0)  # (L + 1, U)
    units = variance + bias + decoder[:, None]
    return Terms(weights, variance.sum(-1), bias.sum(-1), decoder.sum(1), units, scale)


@dataclass(frozen=True)
class Forms:
    """One block's error as quadratic forms in the tasks' shares of the common optimum, by groups of coordinates.

    Args:
        curvature: Of each group, relative to the first task's, shape (groups, K).
        variance: Form of the encoder variance, shape (groups, K, K).
        bias: Form of the encoder bias, shape (groups, K, K).
        unit: Part of the network that the group belongs to, shape (groups,).
        private: Decoder variance, shape (U,).
    """

    curvature: Tensor
    variance: Tensor
    bias: Tensor
    unit: Tensor
    private: Tensor

    def at(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Encoder variance and encoder bias at task weightings (G, K), each of shape (G, U)."""
        pull = weights[:, None] * self.curvature
        share = pull / pull.sum(-1, keepdim=True)  # u: (G, groups, K)

        def form(matrix: Tensor) -> Tensor:
            values = torch.einsum("gik,ikl,gil->gi", share, matrix, share)
            return torch.zeros(len(weights), UNITS, dtype=values.dtype).index_add_(1, self.unit, values)

        return form(self.variance), form(self.bias)


def block_forms(
    block: BlockStatistics, num_images: int, gamma: float, scale: float = 1.0, debias: bool = True
) -> Forms:
    """The error of one block of P coordinates (Prop 4, diagonal; K tasks).

    With damped curvature h_k, a shared block settles at sum_k u_k phi_k, u_k = w_k h_k / sum_l w_l h_l, and scatters
    by sum_lm u_l u_m V_lm. It lies sum_l u_l (phi_l - phi_k) away from the optimum of task k; of the square of that,
    sum_lm u_l u_m Cov(phi_l - phi_k, phi_m - phi_k) is noise and taken off (Prop 7, for K tasks).

    Args:
        block: Statistics of the block.
        num_images: Training images N.
        gamma: Damping added to the curvature; the target Fisher and the scores stay undamped.
        scale: Factor on the noise V, see `noise_scale`.
        debias: False: the displacement is taken as it is.

    Returns:
        The forms, in nats, float64.
    """
    h = block.curvature.double() + gamma  # (K, P)
    target, optimum = block.target.double(), block.optimum.double()
    noise = scale * sampling_noise(block, num_images, gamma)  # V: (K, K, P)
    variance = 0.5 * target.sum(0) * noise
    bias = torch.zeros_like(noise)
    for k, metric in enumerate(target):
        away = optimum - optimum[k]  # phi_l - phi_k: (K, P)
        squares = away[:, None] * away[None]
        if debias:
            squares -= noise - noise[:, k, None] - noise[None, k] + noise[k, k]
        bias += 0.5 * metric * squares
    unit = torch.arange(h.shape[1]) // RUN % UNITS
    ratio = (h / h[0]).log()
    group, index = _groups(unit, ratio[1:])

    def added(values: Tensor) -> Tensor:
        """Sums over the coordinates of each group: (..., P) -> (groups, ...)."""
        flat = values.reshape(-1, values.shape[-1]).T
        return flat.new_zeros(len(group), flat.shape[1]).index_add_(0, index, flat).view(-1, *values.shape[:-1])

    mean = added(ratio) / added(torch.ones_like(ratio[:1]))
    own = 0.5 * (target * noise.diagonal().T).sum(0)
    private = own.new_zeros(UNITS).index_add_(0, unit, own)
    return Forms(mean.exp(), added(variance), added(bias), group, private)


def sampling_noise(block: BlockStatistics, num_images: int, gamma: float) -> Tensor:
    """Covariance of the tasks' optima from chance: shape (K, K, P).

    With replicates, whose noise is twice as strong, it is a quarter of the product of what they differ by: unbiased,
    and at the level that the network shows. Without, it is the expansion's V_kl = S_kl / (N h_k h_l) (Prop 3).

    Args:
        block: Statistics of the block.
        num_images: Training images N.
        gamma: Damping added to the curvature.

    Returns:
        The covariance of tasks k and l in every coordinate.
    """
    if block.replicates is not None:
        half = (block.replicates[0] - block.replicates[1]).double() / 2
        return half[:, None] * half[None]
    h = block.curvature.double() + gamma
    return block.scores.double() / num_images / (h[:, None] * h[None, :])


def noise_scale(statistics: Statistics, gamma: float) -> float:
    """Largest factor on the expansion's noise that the measured displacement allows, at most 1; 1 with replicates.

    Two tasks with one optimum would differ by noise alone: E delta^2 = V_kk + V_ll - 2 V_kl. A network trained
    for a few epochs from a common start has not scattered as far as the expansion says, so the expansion's
    noise is scaled down until, weighed by the target Fisher over all blocks and pairs of tasks, it explains no
    more displacement than there is. It is a bound, not an estimate: with it the tasks' optima differ nowhere on
    average, only from block to block. Replicates make it superfluous.

    Args:
        statistics: Statistics of the trained tasks.
        gamma: Damping added to the curvature.

    Returns:
        The factor, above 0 and at most 1.
    """
    shown, expected = 0.0, 0.0
    for block in statistics.blocks:
        if block.replicates is not None:
            return 1.0
        noise = sampling_noise(block, statistics.num_images, gamma)
        metric = block.target.double().sum(0)
        for k, m in itertools.combinations(range(len(block.optimum)), 2):
            difference = block.optimum[k].double() - block.optimum[m].double()
            shown += float((metric * difference.square()).sum())
            expected += float((metric * (noise[k, k] + noise[m, m] - 2 * noise[k, m])).sum())
    return min(1.0, shown / expected) if expected > 0 else 1.0


def _groups(unit: Tensor, ratio: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates of one unit (P,) and of like log-ratios (K - 1, P): each group's unit, each coordinate's group."""
    index = unit
    for row in (ratio / RATIO_STEP).round().long():
        above = row - row.min()
        index = torch.unique(index * (above.max() + 1) + above, return_inverse=True)[1]
    return unit.new_zeros(int(index.max()) + 1).scatter_(0, index, unit), index


def _up_to(values: Tensor) -> Tensor:
    """Sums of the first 0, 1, .. L entries, shape (L + 1, ...)."""
    return torch.cat([torch.zeros_like(values[:1]), values.cumsum(0)])
