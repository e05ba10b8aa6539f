"""Per-block statistics of the trained tasks (theory.md sections 2 and 5).

Layout, for one block with P coordinates and K tasks::

    curvature   (K, P)      H_k: training curvature, E[c_y g^2] with the label drawn from the task's posterior
    scores      (K, K, P)   E[c_k g_k  c_l g_l], one class for all tasks: S_k on the diagonal, the cross-task
                            covariance C_kl off it
    target      (K, P)      J*_k: Fisher of the balanced target, label drawn from the unadjusted posterior
    optimum     (K, P)      parameters of task k after stage 1
    replicates  (2, K, P)   the same after stage 1 on each half of the images; none if there are no replicates

g is the gradient of one image's loss; expectations are over the training images (H, S) or over images with every
class weighing the same (J*). Coordinates are those of layers.py and structures.py. Classifiers are private in every
plan: a constant, left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.batches import Batches
from osdtw_training.distributed import gathered, share, summed
from osdtw_training.gradients import multiplies_patches
from osdtw_training.kronecker import KroneckerFactors
from osdtw_training.layers import Layer, block_layers, own_matrix, same_layers
from osdtw_training.objectives import TaskObjective
from osdtw_training.observer import FisherKind, Look, Observer
from osdtw_training.sampling import bootstrap_error, stratified, weighted_batches
from osdtw_training.structures import Structure

PIECE = 2**22  # gradients held at once: larger ones would be fetched from the system and given back each time


@dataclass(frozen=True)
class BlockStatistics:
    """Statistics of one block; shapes as in the layout above."""

    curvature: Tensor
    scores: Tensor
    target: Tensor
    optimum: Tensor
    replicates: Tensor | None = None


@dataclass(frozen=True)
class Statistics:
    """Statistics of all blocks.

    Args:
        blocks: One entry per block, the stem first.
        num_images: Training images N that the task losses are means over.
        damping: Curvature added by early stopping and weight decay: 1 / sum of stage-1 learning rates + decay.
        samples: Images that were looked at.
        trace_error: Relative standard error, by bootstrap, of the trace of J*_k over all blocks; the largest of K.
    """

    blocks: tuple[BlockStatistics, ...]
    num_images: int
    damping: float
    samples: int = 0
    trace_error: float = 0.0

    @property
    def num_tasks(self) -> int:
        """Number of tasks K."""
        return len(self.blocks[0].curvature)

    @property
    def num_blocks(self) -> int:
        """Number of blocks L."""
        return len(self.blocks)


def measure(
    network: OsdtwNet,
    objectives: Sequence[TaskObjective],
    batches: Batches,
    samples: int,
    damping: float,
    seed: int = 0,
    kind: FisherKind = FisherKind.MONTE_CARLO,
    structure: Structure = Structure.DIAGONAL,
    replicates: Sequence[OsdtwNet] = (),
) -> Statistics:
    """Statistics of the task networks over a stratified sub-sample, without augmentation.

    Args:
        network: Network that shares nothing: decoder k is the whole network of task k.
        objectives: Loss of each task.
        batches: Training images.
        samples: Images to use, spread evenly over the classes as far as they reach.
        damping: See `Statistics`.
        seed: Seed of the sub-sample and of the drawn labels.
        kind: Whose labels the gradients are taken with.
        structure: What is neglected inside a block.
        replicates: Networks like the first, each trained on one half of the images (`stages.train_replicates`).

    Returns:
        The statistics, float32 on the CPU.
    """
    network.eval()
    layers = block_layers(network)
    picked = stratified(batches.images.labels, samples, seed)

    def looks() -> Iterator[list[Look]]:
        start = share(len(picked)).start
        observer = Observer(network, layers, objectives, kind, seed, start=start)
        for batch in weighted_batches(batches, picked):
            yield observer.look(*batch)

    if structure is Structure.EKFAC:
        _find_eigenbases(layers, looks())
    moments = [Moments(len(objectives)) for _ in layers]
    norms = []
    for look in looks():
        shown = [each.add(layer, i, look) for i, (layer, each) in enumerate(zip(layers, moments, strict=True))]
        norms.append(torch.stack(shown).sum(0).cpu())
    for each in moments:
        each.sum_processes()
    blocks = [
        _gather(number, layers, moments, [same_layers(layers, each) for each in replicates])
        for number in range(1, network.num_blocks + 1)
    ]
    error = bootstrap_error(gathered(torch.cat(norms, 1).T).T, seed)
    return Statistics(tuple(blocks), len(batches.images), damping, len(picked), error)


class Moments:
    """Running second moments of one layer's gradients.

    Args:
        num_tasks: Number of tasks K.
    """

    def __init__(self, num_tasks: int) -> None:
        self.curvature: Any = 0.0
        self.target: Any = 0.0
        self.scores: Any = 0.0
        self.num_tasks = num_tasks

    def add(self, layer: Layer, number: int, looks: Sequence[Look]) -> Tensor:
        """Add a batch.

        Args:
            layer: The layer.
            number: Its number in the looks.
            looks: What each task's network showed.

        Returns:
            Each image's part of the trace of J*_k, shape (K, B).
        """
        sets = sum(len(labels.own) for labels in looks[0].labels.values())
        images = max(1, PIECE // (sets * own_matrix(layer.modules[0]).numel()))
        rows = [slice(start, start + images) for start in range(0, len(looks[0].logits), images)]
        return torch.cat([self._add_images(layer, number, looks, each) for each in rows], 1)

    def sum_processes(self) -> None:
        """Add what the other processes saw."""
        self.curvature, self.target, self.scores = map(summed, (self.curvature, self.target, self.scores))

    def _add_images(self, layer: Layer, number: int, looks: Sequence[Look], rows: slice) -> Tensor:
        curvature: list[Tensor] = []
        target: list[Tensor] = []
        weighted, norms = [], []
        for k, look in enumerate(looks):
            gradients = layer.gradients(k, look.inputs[number][rows], look.arriving[number][:, rows])  # (R, B, P)
            for name, sums in (("curvature", curvature), ("target", target)):
                part, weights = gradients[look.sets(name)].square(), look.labels[name].weights[:, rows]
                sums.append(weights.flatten() @ part.flatten(0, 1))
                if name == "target":
                    norms.append((weights * part.sum(-1)).sum(0))
            weights = look.labels["scores"].weights[:, rows, None]
            weighted.append((gradients[look.sets("scores")] * weights).flatten(0, 1))
        self.curvature = self.curvature + torch.stack(curvature)
        self.target = self.target + torch.stack(target)
        pairs = [[(first * second).sum(0) for second in weighted] for first in weighted]
        self.scores = self.scores + torch.stack([torch.stack(row) for row in pairs])
        return torch.stack(norms)


def _find_eigenbases(layers: Sequence[Layer], looks: Iterator[list[Look]]) -> None:
    """Give each layer that has Kronecker factors the eigenbasis of theirs, over all tasks, H and J* together."""
    factors = {i: KroneckerFactors(layer) for i, layer in enumerate(layers) if multiplies_patches(layer.modules[0])}
    for look in looks:
        for i, each in factors.items():
            for k, shown in enumerate(look):
                for name in ("curvature", "target"):
                    each.add(k, shown.inputs[i], shown.arriving[i][shown.sets(name)], shown.labels[name].weights)
    for i, each in factors.items():
        layers[i].coordinates = each.coordinates()


def _gather(
    number: int, layers: Sequence[Layer], moments: Sequence[Moments], replicates: Sequence[list[list[torch.nn.Module]]]
) -> BlockStatistics:
    """The statistics of one block: its layers' side by side."""
    own = [i for i, layer in enumerate(layers) if layer.block == number]

    def joined(tensors: list[Tensor]) -> Tensor:
        return torch.cat(tensors, -1).cpu()

    found = [joined([layers[i].parameters(other[i]) for i in own]) for other in replicates]
    return BlockStatistics(
        curvature=joined([moments[i].curvature for i in own]),
        scores=joined([moments[i].scores for i in own]),
        target=joined([moments[i].target for i in own]),
        optimum=joined([layers[i].parameters(layers[i].modules) for i in own]),
        replicates=torch.stack(found) if found else None,
    )
