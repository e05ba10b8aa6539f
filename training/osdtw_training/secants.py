"""How logits change when one block of a network moves, the statistics of batch norm moving with it.

A network whose weights change has its batch norm recalibrated; a gradient in evaluation mode holds the statistics fixed
and charges the weights for shifts that recalibration takes back (theory.md section 9: an order of magnitude). So the
changes are measured: finite differences of the forward pass, every batch norm taking its mean and variance from the
images at hand.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from osdtw_models.network import OsdtwNet
from osdtw_training import distributed
from osdtw_training.layers import Layer, assign

STEP = 0.5  # of a direction's whole length; the logits are linear in it to well beyond


class AdaptedNorm(nn.Module):
    """Batch norm by the weighted mean and variance of the batch.

    Args:
        norm: The batch norm whose scale and shift are used.
        weights: Weight of each image, shape (B,), sum 1.
    """

    def __init__(self, norm: nn.BatchNorm2d, weights: Tensor) -> None:
        super().__init__()
        self.norm = norm
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same, normalised."""
        mean = self.weights @ x.mean((2, 3))
        # The norm reads x once; a square of all of x would be written out first, at twice the time.
        square = torch.linalg.vector_norm(x, dim=(2, 3)).square() / (x.shape[2] * x.shape[3])
        variance = self.weights @ square - mean.square()
        x = F.batch_norm(x, mean, variance, self.norm.weight, self.norm.bias, False, 0.0, self.norm.eps)
        return self.norm.act(x) if isinstance(self.norm, BatchNormAct2d) else x


@torch.no_grad()
def logit_changes(
    network: OsdtwNet,
    task: int,
    layers: Sequence[Layer],
    directions: Sequence[Tensor],
    images: Tensor,
    weights: Tensor,
) -> Tensor:
    """Change of one task's logits along directions, block by block.

    Args:
        network: Network that shares nothing: decoder k is the whole network of task k.
        task: Number of the task.
        layers: The layers of its blocks.
        directions: Of each layer, D directions, shape (D, rows, columns).
        images: Normalised images, shape (B, C, H, W).
        weights: Weight of each image in the statistics of batch norm, shape (B,), sum 1.

    Returns:
        Shape (L, D, B, n_k + 1), per whole length of a direction.
    """
    decoder = copy.deepcopy(network.branches[task])
    own = dict(decoder.named_modules())
    modules = [own[layer.name] for layer in layers]
    for layer, module in zip(layers, modules, strict=True):  # at their common lengths, which changes nothing
        assign(module, layer.own(task))
    for name, norm in own.items():
        if isinstance(norm, nn.BatchNorm2d):
            decoder.get_submodule(name.rpartition(".")[0]).register_module(
                name.rpartition(".")[2], AdaptedNorm(norm, weights)
            )
    blocks: list[nn.Module] = decoder.block_list()

    def logits(x: Tensor, first: int) -> Tensor:
        for block in blocks[first:]:
            x = block(x)
        found: Tensor = decoder.classifier(decoder.neck(network.global_pool(decoder.norm(x))))
        return found

    reached = [images]
    for each in blocks:
        reached.append(each(reached[-1]))
    base = logits(reached[-1], len(blocks))
    changes = torch.zeros(len(blocks), len(directions[0]), *base.shape)
    for number in range(len(blocks)):
        inside = [i for i, layer in enumerate(layers) if layer.block == number + 1]
        for d in range(len(directions[0])):
            # Batch norm needs all images, so processes share the directions, dealt out in turn.
            if (number * len(directions[0]) + d) % distributed.processes() != distributed.number():
                continue
            for i in inside:
                assign(modules[i], layers[i].own(task) + STEP * directions[i][d])
            changes[number, d] = ((logits(reached[number], number) - base) / STEP).cpu()
        for i in inside:
            assign(modules[i], layers[i].own(task))
    return distributed.summed(changes)
