"""Pure: error terms of every depth and weighting -> `Plan`, with what else would have done as well, and why."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from osdtw_training import proxy, schur
from osdtw_training.fisher import Statistics
from osdtw_training.responses import Responses
from osdtw_training.terms import Terms

WEIGHT_RANGE = (0.05, 0.95)


@dataclass(frozen=True)
class Plan:
    """What the search chose.

    Args:
        shared_depth: Number of shared blocks.
        task_weights: Weight of each task's mean loss over all N images; they sum to 1.
        terms: The error terms the choice was made from.
        alike: The shallowest and the deepest plan that are as good as the least proxy within one standard error.
        edge: Whether the best weights lay at the edge of the weight grid, where the expansion is not to be
            trusted (theory.md section 9); the weights are then equal.
    """

    shared_depth: int
    task_weights: tuple[float, ...]
    terms: Terms
    alike: tuple[int, int]
    edge: bool

    @cached_property
    def column(self) -> int:
        """Number of the plan's weights in ``terms.weights``: the column of its terms."""
        wanted = torch.tensor(self.task_weights, dtype=torch.float64)
        return int((self.terms.weights - wanted).abs().sum(1).argmin())

    @cached_property
    def near(self) -> Tensor:
        """Which plans are within one standard error of the least proxy: shape (L + 1, G)."""
        return _near(self.terms, self.terms.proxy)

    def least(self, values: Tensor) -> tuple[float, ...]:
        """The task weights at which values over the weight grid, shape (G,), are least."""
        return tuple(self.terms.weights[int(values.argmin())].tolist())

    def reason(self) -> str:
        """Why this depth, in one sentence: what the next block would cost and save."""
        terms, depth, column = self.terms, self.shared_depth, self.column
        blocks = len(terms.decoder_variance) - 1
        bias, variance = terms.encoder_bias[:, column].diff(), terms.encoder_variance[:, column].diff()
        saved = -terms.decoder_variance.diff()
        text = f"Sharing {depth} of {blocks} blocks"
        if depth < blocks:
            text += f": the next would add {bias[depth] + variance[depth]:.3g} nats of encoder error "
            text += f"({bias[depth]:.3g} of it bias) and save {saved[depth]:.3g} of decoder variance"
        if depth > 0:
            text += f"{';' if depth < blocks else ':'} the last one adds {bias[depth - 1] + variance[depth - 1]:.3g} "
            text += f"and saves {saved[depth - 1]:.3g}"
        least, most = self.alike
        if least < most:
            text += f"; {least} to {most} are as good within one standard error, and this is their middle"
        if self.edge:
            text += "; the least proxy lay at the edge of the weight grid, so the weights are equal instead"
        return text + "."


def search(
    statistics: Statistics | Responses,
    points: int = 101,
    damping: float = 1.0,
    shared_depth: int | None = None,
    task_weights: Sequence[float] | None = None,
    debias: bool = True,
) -> Plan:
    """The depth and the task weights with the least proxy, or the middle of those that are as good.

    Where the statistics come from a sample of images, plans within one standard error of the least proxy are as good
    as the least: another sample would put another of them first. Then the depth is the middle between the shallowest
    and the deepest of them (the shallower of two), which changes least from sample to sample.

    Args:
        statistics: Statistics of the trained tasks.
        points: Size of the weight grid.
        damping: Factor on the statistics' damping.
        shared_depth: Search the weights at this depth only.
        task_weights: Search the depths at these weights only.
        debias: Whether the displacement that noise alone would show is taken off the bias (Prop 7).

    Returns:
        The plan, with all terms.
    """
    if task_weights is not None:
        weights = torch.tensor([list(task_weights)], dtype=torch.float64)
    else:
        weights = weight_grid(statistics.num_tasks, points)
    terms = error_terms(statistics, weights, damping, debias)
    depths = slice(None) if shared_depth is None else slice(shared_depth, shared_depth + 1)
    first = shared_depth or 0
    best, columns = terms.proxy[depths].min(1)
    depth = int(best.argmin())
    alike = (depth, depth)
    if terms.sampled:
        near = _near(terms, terms.proxy[depths], first).any(1).nonzero().flatten().tolist()
        alike = (near[0], near[-1])
        depth = sum(alike) // 2
    index = int(columns[depth])
    edge = len(weights) > 1 and bool((weights[index] <= weights.min() + 1e-9).any())
    if edge:
        index = int((weights - 1 / weights.shape[1]).abs().sum(1).argmin())
        if not terms.sampled:
            depth = int(terms.proxy[depths, index].argmin())
    return Plan(depth + first, tuple(weights[index].tolist()), terms, (alike[0] + first, alike[1] + first), edge)


def _near(terms: Terms, proxy: Tensor, first: int = 0) -> Tensor:
    """Which plans are within one standard error of the least: shape as given, the first row being depth ``first``."""
    depth, column = divmod(int(proxy.argmin()), proxy.shape[1])
    errors = terms.standard_error(depth + first, column)[first : first + len(proxy)]
    return proxy - proxy[depth, column] <= errors


def error_terms(statistics: Statistics | Responses, weights: Tensor, damping: float, debias: bool) -> Terms:
    """Error terms by what the statistics allow: `schur.error_terms` or `proxy.error_terms`."""
    if isinstance(statistics, Responses):
        return schur.error_terms(statistics, weights, damping, debias)
    return proxy.error_terms(statistics, weights, damping, debias)


def weight_grid(num_tasks: int, points: int) -> Tensor:
    """Task weightings to search.

    Args:
        num_tasks: Number of tasks K.
        points: Wanted number of weightings.

    Returns:
        Shape (G, K), rows sum to 1, equal weights among them: the search falls back to those. Two tasks: evenly spaced
        in log-odds from 0.05 to 0.95, G = ``points`` or, if that is even, one more. More: the inner points of the
        finest simplex lattice with which G <= ``points``. One task, or one point: equal weights alone.
    """
    equal = torch.full((1, num_tasks), 1 / num_tasks, dtype=torch.float64)
    if num_tasks == 1 or points == 1:
        return equal
    if num_tasks == 2:
        ends = torch.logit(torch.tensor(WEIGHT_RANGE, dtype=torch.float64))
        second = torch.linspace(float(ends[0]), float(ends[1]), points | 1, dtype=torch.float64).sigmoid()
        return torch.stack([1 - second, second], 1)
    steps = num_tasks
    while len(_lattice(num_tasks, steps + 1)) < points:  # one is left for equal weights
        steps += 1
    lattice = torch.tensor(_lattice(num_tasks, steps), dtype=torch.float64) / steps
    return lattice if steps % num_tasks == 0 else torch.cat([lattice, equal])


def _lattice(parts: int, total: int) -> Sequence[tuple[int, ...]]:
    """All ways to write a total as an ordered sum of positive parts."""
    cuts = itertools.combinations(range(1, total), parts - 1)
    return [tuple(b - a for a, b in itertools.pairwise((0, *cut, total))) for cut in cuts]
