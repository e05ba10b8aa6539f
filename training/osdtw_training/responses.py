"""What every image says about the displacements that were measured: the statistics of `schur` (Prop 5).

Layout, for K tasks, L blocks and n images, with D = 2 K - 1 directions in every block (the displacements
phi_l - phi_0 of the other tasks, then the noise of each task)::

    slopes   (K, L, D, n)        g . v: change of an image's task loss along a direction, batch norm adapting
    gram     (K, L + 1, n, n)    g . g': between the gradients of two images in one block, the classifier last

The loss is that of the balanced target, its label drawn from the task's posterior; rows are weighted so that sums of
squares over images are expectations over images with every class weighing the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.batches import Batches
from osdtw_training.distributed import gathered, share
from osdtw_training.gradients import per_image
from osdtw_training.layers import Layer, block_layers, own_matrix, same_layers
from osdtw_training.objectives import TaskObjective
from osdtw_training.observer import FisherKind, Look, Observer
from osdtw_training.sampling import bootstrap_error, stratified, weighted_batches
from osdtw_training.secants import logit_changes

METRIC = "target"
MOST_BYTES = 12e9


@dataclass(frozen=True)
class Responses:
    """Statistics of all blocks; shapes as in the layout above.

    Args:
        slopes: Gradients along the directions.
        gram: Gradients along one another.
        damping: Curvature added by early stopping and weight decay.
        trace_error: Relative standard error, by bootstrap, of the trace of J*_k over all blocks; the largest of K.
    """

    slopes: Tensor
    gram: Tensor
    damping: float
    trace_error: float = 0.0

    @property
    def num_tasks(self) -> int:
        """Number of tasks K."""
        return self.slopes.shape[0]

    @property
    def num_blocks(self) -> int:
        """Number of blocks L."""
        return self.slopes.shape[1]

    @property
    def samples(self) -> int:
        """Images that were looked at."""
        return self.slopes.shape[-1]


def measure(
    network: OsdtwNet,
    objectives: Sequence[TaskObjective],
    batches: Batches,
    samples: int,
    damping: float,
    replicates: Sequence[OsdtwNet],
    seed: int = 0,
) -> Responses:
    """Responses over a stratified sub-sample, without augmentation.

    Args:
        network: Network that shares nothing: decoder k is the whole network of task k.
        objectives: Loss of each task.
        batches: Training images.
        samples: Images to use, spread evenly over the classes as far as they reach.
        damping: See `Responses`.
        replicates: Two networks like the first, each trained on one half of the images.
        seed: Seed of the sub-sample, its order and the drawn labels.

    Returns:
        The responses, float32 on the CPU, images in random order.

    Raises:
        ValueError: If the gradients do not fit into memory.
    """
    network.eval()
    layers = block_layers(network)
    classifiers = Layer("classifier", list(network.get_classifier()), None)
    picked = torch.tensor(stratified(batches.images.labels, samples, seed))
    picked = picked[torch.randperm(len(picked), generator=torch.Generator().manual_seed(seed))]
    check_memory(sum(p.numel() for p in network.parameters()), len(picked))
    directions = [_directions(layer, i, layers, network, replicates) for i, layer in enumerate(layers)]
    start = share(len(picked)).start
    observer = Observer(network, [*layers, classifiers], objectives, FisherKind.MONTE_CARLO, seed, (METRIC,), start)
    rows, residuals, shown = [], [], []
    for batch in weighted_batches(batches, picked.tolist()):
        looks = observer.look(*batch)
        rows.append(_rows(looks, layers, network))
        residuals.append([look.labels[METRIC].residuals(look.logits)[0] for look in looks])
        shown.append((batch[0], batch[2]))
    images, weights = (gathered(torch.cat(each)) for each in zip(*shown, strict=True))
    slopes = torch.zeros(len(objectives), network.num_blocks, len(directions[0]), len(picked))
    gram = torch.zeros(len(objectives), network.num_blocks + 1, len(picked), len(picked))
    for k in network.tasks:
        changes = logit_changes(network, k, layers, directions, images, weights / weights.sum())
        pulled = gathered(torch.cat([each[k] for each in residuals])).cpu()  # (n, n_k + 1)
        slopes[k] = torch.einsum("ldni,ni->ldn", changes, pulled)
        for i, layer in enumerate([*layers, classifiers]):
            gradients = torch.cat([row.pop((k, i)) for row in rows])  # this process's images, P
            block = layer.block - 1 if layer is not classifiers else -1
            gram[k, block] += gathered(gradients @ gathered(gradients).T).cpu()
    traces = gram[:, :-1].diagonal(dim1=-2, dim2=-1).sum(1)
    return Responses(slopes, gram, damping, bootstrap_error(traces, seed))


def _directions(
    layer: Layer, number: int, layers: Sequence[Layer], network: OsdtwNet, replicates: Sequence[OsdtwNet]
) -> Tensor:
    """Displacements from task 0 and noises of one layer, shape (D, rows, columns)."""
    own = layer.parameters(layer.modules)
    first, second = (layer.parameters(same_layers(layers, other)[number]) for other in replicates)
    return torch.cat([own[1:] - own[0], (first - second) / 2]).view(-1, *own_matrix(layer.modules[0]).shape)


def _rows(looks: Sequence[Look], layers: Sequence[Layer], network: OsdtwNet) -> dict[tuple[int, int], Tensor]:
    """Weighted gradients of a batch by task and layer, the classifier last: each of shape (B, P)."""
    found = {}
    for k, look in enumerate(looks):
        weight = look.labels[METRIC].weights[0].sqrt()[:, None]
        for i, (inputs, arriving) in enumerate(zip(look.inputs, look.arriving, strict=True)):
            if i < len(layers):
                gradients = layers[i].gradients(k, inputs, arriving)
            else:
                gradients = per_image(network.get_classifier()[k], inputs, arriving).flatten(2)
            found[k, i] = weight * gradients[0]
    return found


def check_memory(parameters: int, images: int) -> None:
    """Refuse what would not fit.

    Args:
        parameters: Parameters of all task networks.
        images: Images to look at.

    Raises:
        ValueError: If the gradients of all images would not fit into memory.
    """
    needed = 4 * images * parameters
    if needed > MOST_BYTES:
        raise ValueError(
            f"The gradients of {images} images would take {needed / 1e9:.0f} GB; lower search.samples, or set "
            "search.structure to 'diagonal', which needs no such memory."
        )
