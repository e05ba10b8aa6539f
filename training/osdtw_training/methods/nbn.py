"""NBN, normalising batch normalisation (Bao et al. 2025, arXiv:2501.03122): no channel and no class grows on its own.

In the last stage, the weights and the biases of each batch norm that ends a branch of a block are scaled to one length,
which all of them share and which is learned; the logits pass a batch norm without weights. As in the authors' code
(yuxiangbao/NBN) the length starts at 1, 1e-6 is added to what is divided by, and the loss is cross-entropy. There
weight decay acts on these parameters, too; in this engine it acts on none of batch norm's, nor on the length. A bias
starts at 0, where 1e-6 makes its gradient very large: the first batches decide its direction, there as here.

Afterwards all of it is folded into ordinary batch norms and an ordinary classifier.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from osdtw_models.backbone import block_number
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.class_weights import class_weights, weighted_mean
from osdtw_training.data import LongTailedData
from osdtw_training.distributed import gathered
from osdtw_training.engine import fit
from osdtw_training.methods.single import only_classifier
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.selection import selection

EPSILON = 1e-6


class Normalisation(nn.Module):
    """What is learned besides the network: the shared length, and the statistics of the logits.

    Args:
        num_classes: Number of classes.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.length = nn.Parameter(torch.ones(()))
        self.logits = nn.BatchNorm1d(num_classes, affine=False)


def of_length(values: Tensor, length: Tensor) -> Tensor:
    """The vector scaled to a length; zeros stay zeros."""
    return values / (values.norm() + EPSILON) * length


def closing_norms(network: OsdtwNet) -> list[str]:
    """Names of the batch norms that end a branch of the last stage's blocks: the residual one, or a shortcut's.

    Args:
        network: A network that shares all blocks.

    Returns:
        Names inside the network.

    Raises:
        ValueError: If it has none.
    """
    first = network.level_block(-2)
    found = []
    for place, block in network.encoder.named_children():
        if block_number(f"{place}.") > first:
            norms = [name for name, each in block.named_modules() if isinstance(each, nn.BatchNorm2d)]
            residual = [name for name in norms if "." not in name]
            found += [f"encoder.{place}.{name}" for name in norms if name == residual[-1] or name not in residual]
    if not found:
        raise ValueError("nbn needs blocks that end in batch norm; choose a ResNet as model.")
    return found


def normalised_logits(network: OsdtwNet, images: Tensor) -> Tensor:
    """Logits of the network with its batch norms normalised, shape (B, C); its `Normalisation` rectifies them."""
    logits: Tensor = functional_call(network, _normalised(network), (images,))
    return logits.float()


def rectified_logits(network: OsdtwNet, images: Tensor) -> Tensor:
    """Logits of the network under its `Normalisation`, shape (B, C)."""
    rectified: Tensor = _added(network).logits(normalised_logits(network, images))
    return rectified


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone by cross-entropy, normalised."""
    number = len(data.counts)
    network = new_network(recipe, ClassPartition.single(number), start=not run.has_checkpoint("train"))
    network.add_module("normalisation", Normalisation(number).to(recipe.device))  # saved with the stage's checkpoint
    closing_norms(network)

    batches = data.train_batches(recipe)
    weights, rectify = class_weights(batches), _added(network).logits

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        logits, every = rectify(gathered(normalised_logits(network, images))), gathered(labels)
        return weighted_mean(F.cross_entropy(logits, every, reduction="none"), every, weights)

    holdout = data.holdout_batches(recipe)
    chosen = selection(recipe, "train", holdout, partial(rectified_logits, network))
    fit("train", network, [network], loss, batches, recipe.train, recipe, run, selection=chosen)
    fold_normalisation(network)
    return network


@torch.no_grad()
def fold_normalisation(network: OsdtwNet) -> None:
    """Write what the normalisation does into batch norms and classifier, and take it out of the network."""
    for name, values in _normalised(network).items():
        network.get_parameter(name).copy_(values)
    classifier = only_classifier(network)
    norm = _added(network).logits
    mean, scale = norm.get_buffer("running_mean"), (norm.get_buffer("running_var") + norm.eps).rsqrt()
    classifier.weight.mul_(scale[:, None])
    classifier.bias.sub_(mean).mul_(scale)
    del network.normalisation


def _normalised(network: OsdtwNet) -> dict[str, Tensor]:
    """The parameters that the network is run with instead of its own, by name."""
    names = [f"{norm}.{part}" for norm in closing_norms(network) for part in ("weight", "bias")]
    return {name: of_length(network.get_parameter(name), _added(network).length) for name in names}


def _added(network: OsdtwNet) -> Normalisation:
    added = network.normalisation
    assert isinstance(added, Normalisation)
    return added
