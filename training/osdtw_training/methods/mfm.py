"""Meta feature modulator (Wang et al. 2020, arXiv:2008.03428): features scaled and shifted in training, never at test.

From the abstract: parameters that modulate features are learned with the network, under the guidance of a small
balanced set, and a modulator network makes them. Everything else here is this project's inference, for neither the
paper's equations nor its code were at hand. What is modulated are the pooled features, (1 + s) f + t, by a small
perceptron of feature and label; as in Meta-Weight-Net (Shu et al. 2019) the modulator is judged by where a virtual step
of the classifier on modulated features would lead on a balanced batch without modulation. The balanced set is part of
the training images and stays in training: the smallest class has none to spare. The modulator's learning rate, 0.1, is
ours as well; at 1 its bounds are reached within an epoch.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training.batches import Batches
from osdtw_training.class_weights import class_weights, weighted_mean
from osdtw_training.data import LongTailedData
from osdtw_training.engine import fit
from osdtw_training.methods.single import only_classifier, pooled
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run
from osdtw_training.sampling import stratified
from osdtw_training.selection import selection

HIDDEN = 64


class Modulator(nn.Module):
    """From features and labels to scale and shift of every feature, within -1 and 1; 0 at first.

    Args:
        features: Number of features.
        num_classes: Number of classes.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        self.labels = nn.Embedding(num_classes, HIDDEN)
        self.hidden = nn.Linear(features + HIDDEN, HIDDEN)
        self.modulation = nn.Linear(HIDDEN, 2 * features)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D) and (B,) -> scale and shift, (B, D) each."""
        hidden = F.relu(self.hidden(torch.cat([features, self.labels(labels)], 1)))
        scale, shift = torch.tanh(self.modulation(hidden)).chunk(2, 1)
        return scale, shift


Examples = tuple[Tensor, Tensor]
"""Features (B, D) and labels (B,)."""


def meta_step(
    modulator: Modulator,
    classifier: nn.Linear,
    seen: Examples,
    balanced: Examples,
    weights: Tensor,
    step: float,
    rate: float,
) -> None:
    """One step of the modulator down the balanced loss after one virtual step of the classifier.

    Args:
        modulator: Changed.
        classifier: Left as it is.
        seen: Training batch, whose features are modulated.
        balanced: Balanced batch, whose features are not.
        weights: Weight of each class in the training loss, shape (C,).
        step: Length of the virtual step.
        rate: Learning rate of the modulator.
    """
    features, labels = seen
    scale, shift = modulator(features, labels)
    losses = F.cross_entropy(classifier((1 + scale) * features + shift), labels, reduction="none")
    virtual = weighted_mean(losses, labels, weights)
    weight, bias = torch.autograd.grad(virtual, (classifier.weight, classifier.bias), create_graph=True)
    moved = F.linear(balanced[0], classifier.weight - step * weight, classifier.bias - step * bias)
    parameters = list(modulator.parameters())
    gradients = torch.autograd.grad(F.cross_entropy(moved, balanced[1]), parameters)
    with torch.no_grad():
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.sub_(rate * gradient)


@torch.no_grad()
def unseen_features(network: OsdtwNet, images: Tensor) -> Tensor:
    """Pooled features of a batch that batch norm normalises but does not remember, shape (B, D)."""
    statistics = {name: buffer.clone() for name, buffer in network.encoder.named_buffers()}
    maps = functional_call(network.encoder, statistics, (images,))
    return network.forward_head(network.branches[0].forward_features(maps), pre_logits=True).float()


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Train the plain backbone on modulated features; the network that is left has no modulator."""
    number, wanted = len(data.counts), recipe.peer
    network = new_network(recipe, ClassPartition.single(number), start=not run.has_checkpoint("train"))
    body = nn.ModuleList([network.encoder, network.decoders])  # what the engine trains: the modulator it does not
    modulator = Modulator(network.decoder_features, number).to(recipe.device)
    network.add_module("modulator", modulator)  # saved with the stage's checkpoint
    classifier = only_classifier(network)
    batches, balanced = data.train_batches(recipe), balanced_batches(recipe, data)
    weights = class_weights(batches)
    draws: list[Iterator[Examples]] = []

    def before_epoch(epoch: int) -> None:
        draws[:] = [repeated(balanced, epoch, batches.steps)]

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        others, their_labels = next(draws[0])
        unmodulated = unseen_features(network, others)
        features = pooled(network, images).float()
        with torch.autocast(images.device.type, enabled=False):  # differences of differences need all digits
            seen = features.detach(), labels
            found = unmodulated, their_labels
            meta_step(modulator, classifier, seen, found, weights, recipe.train.lr, wanted.meta_lr)
            with torch.no_grad():
                scale, shift = modulator(*seen)
            losses = F.cross_entropy(classifier((1 + scale) * features + shift), labels, reduction="none")
            return weighted_mean(losses, labels, weights)

    chosen = selection(recipe, "train", data.holdout_batches(recipe), network)
    fit("train", network, [body], loss, batches, recipe.train, recipe, run, 0, before_epoch, chosen)
    del network.modulator
    return network


def balanced_batches(recipe: Recipe, data: LongTailedData) -> Batches:
    """As many training images of every class as the smallest has, at most ``[peer] meta``."""
    number = min(*data.counts, recipe.peer.meta)
    picked = stratified(data.train.labels, number * len(data.counts), recipe.seed)
    print(f"Balanced set: {number} images of every class, {len(picked)} in all; they stay in training")
    return Batches(data.train.subset(picked), [data.train_indices[i] for i in picked], recipe)


def repeated(balanced: Batches, epoch: int, steps: int) -> Iterator[Examples]:
    """Batches of the balanced set, in another order and augmentation each time, until an epoch has enough."""
    times = -(-steps // balanced.steps)
    for part in range(times):
        yield from balanced.epoch(epoch * times + part)
