"""Per-block statistics of the trained tasks, diagonal (theory.md sections 2 and 5).

Layout, for one block with P parameters and K tasks::

    curvature  (K, P)      H_k: training curvature, E[c_y g^2] with the label drawn from the training posterior
    scores     (K, K, P)   E[c_k g_k  c_l g_l] with the real label, one label for both tasks:
                           S_k on the diagonal, the cross-task covariance C_kl off it
    target     (K, P)      J*_k: Fisher of the balanced target, label drawn from the unadjusted posterior
    optimum    (K, P)      parameters of task k after stage 1

g is the gradient of one image's loss; expectations are over the training images (H, S) or over images with
every class weighing the same (J*). Classifiers are private in every plan: a constant, left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from osdtw_models.network import OsdtwNet
from osdtw_training.data import Batches
from osdtw_training.objectives import TaskObjective

CHUNK = 32


@dataclass(frozen=True)
class BlockStatistics:
    """Statistics of one block; shapes as in the layout above."""

    curvature: Tensor
    scores: Tensor
    target: Tensor
    optimum: Tensor


@dataclass(frozen=True)
class Statistics:
    """Statistics of all blocks.

    Args:
        blocks: One entry per block, the stem first.
        num_images: Training images N that the task losses are means over.
        damping: Curvature added by early stopping and weight decay: 1 / sum of stage-1 learning rates + decay.
    """

    blocks: tuple[BlockStatistics, ...]
    num_images: int
    damping: float


def measure(
    network: OsdtwNet,
    objectives: Sequence[TaskObjective],
    batches: Batches,
    samples: int,
    damping: float,
    seed: int = 0,
) -> Statistics:
    """Statistics of the task networks in one pass over a stratified sub-sample, without augmentation.

    Args:
        network: Network that shares nothing: decoder k is the whole network of task k.
        objectives: Loss of each task.
        batches: Training images.
        samples: Images to use, spread evenly over the classes as far as they reach.
        damping: See `Statistics`.
        seed: Seed of the sub-sample and of the drawn labels.

    Returns:
        The statistics, float32.
    """
    counts = torch.tensor(batches.images.counts(), dtype=torch.float64)
    picked = stratified(batches.images.labels, samples, seed)
    chosen = Batches(batches.images.subset(picked), picked, batches.recipe)
    taken = torch.tensor(chosen.images.counts(), dtype=torch.float64)
    # Weights that turn the sub-sample's mean into the training mean and into the class-balanced mean.
    device = batches.recipe.device
    to_training = (counts / counts.sum() / taken).float().to(device)
    to_target = (1 / len(counts) / taken).float().to(device)
    generator = torch.Generator().manual_seed(seed)
    sums = [_Sums(network, k) for k in network.tasks]
    cross: dict[str, Tensor] = {}
    network.eval()
    # Chunks of equal size: a last one of a single image would take another, slower path through vmap.
    chunks = -(-len(picked) // CHUNK)
    for images, labels in chosen.plain(-(-len(picked) // chunks)):
        scores = []
        for task, objective in zip(sums, objectives, strict=True):
            with torch.no_grad():
                logits = network.forward_task(images, task.number)
            trained = _draw(logits + objective.offsets, generator)
            balanced = _draw(logits, generator)
            weights = objective.class_weights[labels]
            train_mean, target_mean = to_training[labels], to_target[labels]
            own = objective.label_map[labels]
            task.add("curvature", task.gradients(images, trained, objective.offsets), train_mean * weights)
            task.add("target", task.gradients(images, balanced, None), target_mean)
            real = task.gradients(images, own, objective.offsets)
            scores.append({name: weights.view(-1, *[1] * (g.ndim - 1)) * g for name, g in real.items()})
        for k, first in enumerate(scores):
            for m, second in enumerate(scores):
                for name in first:
                    value = torch.einsum("b,b...->...", train_mean, first[name] * second[name])
                    key = f"{k}.{m}.{name}"
                    cross[key] = cross[key] + value if key in cross else value
    blocks = tuple(_gather(sums, cross, f"block{i}.") for i in range(1, network.backbone.num_blocks + 1))
    return Statistics(blocks, int(counts.sum()), damping)


def stratified(labels: Tensor, samples: int, seed: int) -> list[int]:
    """Indices of a sub-sample spread evenly over the classes: small classes whole, large ones capped alike.

    Args:
        labels: Class of each image, shape (N,).
        samples: Images wanted; at least one per class is taken.
        seed: Seed of the draw.

    Returns:
        Ascending indices.
    """
    stream = np.random.default_rng([seed, 2])
    of_class = [stream.permutation((labels == c).nonzero().flatten().numpy()) for c in range(int(labels.max()) + 1)]
    cap = 1
    while sum(min(len(c), cap + 1) for c in of_class) <= samples and cap < max(map(len, of_class)):
        cap += 1
    return sorted(int(i) for indices in of_class for i in indices[:cap])


class _Sums:
    """Gradients of one task by block parameter, and their running weighted squares."""

    def __init__(self, network: OsdtwNet, number: int) -> None:
        self.number = number
        prefix = f"decoders.{number}."
        task = _TaskNetwork(network, number)
        self.parameters = {
            name.removeprefix(f"network.{prefix}"): value.detach()
            for name, value in task.named_parameters()
            if name.startswith(f"network.{prefix}block")
        }
        self.sums: dict[str, dict[str, Tensor]] = {"curvature": {}, "target": {}}

        def loss(parameters: dict[str, Tensor], image: Tensor, label: Tensor, offsets: Tensor) -> Tensor:
            named = {f"network.{prefix}{name}": value for name, value in parameters.items()}
            logits = functional_call(task, named, (image.unsqueeze(0),))
            return F.cross_entropy(logits + offsets, label.unsqueeze(0))

        self.per_image = vmap(grad(loss), in_dims=(None, 0, 0, None))

    def gradients(self, images: Tensor, labels: Tensor, offsets: Tensor | None) -> dict[str, Tensor]:
        """Gradient of each image's task loss by parameter name: shape (B, *parameter)."""
        shift = torch.zeros(()) if offsets is None else offsets
        # Without no_grad the classifier, which is no argument of the gradient, would keep every graph alive.
        with torch.no_grad():
            result: dict[str, Tensor] = self.per_image(self.parameters, images, labels, shift)
        return result

    def add(self, kind: str, gradients: dict[str, Tensor], weights: Tensor) -> None:
        """Add the weighted sum of squared gradients, weights of shape (B,)."""
        for name, g in gradients.items():
            value = torch.einsum("b,b...->...", weights, g.square())
            self.sums[kind][name] = self.sums[kind][name] + value if name in self.sums[kind] else value


class _TaskNetwork(nn.Module):
    """One task of a network as a module of its own."""

    def __init__(self, network: OsdtwNet, number: int) -> None:
        super().__init__()
        self.network = network
        self.number = number

    def forward(self, images: Tensor) -> Tensor:
        return self.network.forward_task(images, self.number)


def _draw(logits: Tensor, generator: torch.Generator) -> Tensor:
    """One label per image from the softmax of its logits: shape (B,)."""
    return torch.multinomial(logits.softmax(-1).cpu(), 1, generator=generator).flatten().to(logits.device)


def _gather(sums: Sequence[_Sums], cross: dict[str, Tensor], prefix: str) -> BlockStatistics:
    """Flatten the tensors of one block's parameters into vectors."""
    names = [name for name in sums[0].parameters if name.startswith(prefix)]

    def flat(tensors: dict[str, Tensor], before: str = "") -> Tensor:
        return torch.cat([tensors[before + name].flatten() for name in names]).cpu()

    tasks = range(len(sums))
    return BlockStatistics(
        curvature=torch.stack([flat(task.sums["curvature"]) for task in sums]),
        scores=torch.stack([torch.stack([flat(cross, f"{k}.{m}.") for m in tasks]) for k in tasks]),
        target=torch.stack([flat(task.sums["target"]) for task in sums]),
        optimum=torch.stack([flat(task.parameters) for task in sums]),
    )
