"""Responses against the networks themselves: moved, their batch norm recalibrated, in float64."""

import copy

import pytest
import torch
from torch import nn

from osdtw_models.cifar import CifarResNet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import fisher, observer, responses, sampling, secants
from osdtw_training.batches import Batches
from osdtw_training.layers import block_layers
from osdtw_training.objectives import task_objectives
from osdtw_training.observer import FisherKind
from osdtw_training.responses import measure
from osdtw_training.sampling import stratified

PARTITION = ClassPartition(((1, 0), (2, 3)))
COUNTS = [9, 5, 3, 1]


@pytest.fixture
def problem(monkeypatch, noise, tiny):
    """Task networks, two replicates of them, objectives and images, in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(sampling, "CHUNK", 4)
    torch.set_default_dtype(torch.float64)
    networks = [OsdtwNet(CifarResNet(8), 4, shared_depth=0, task_classes=PARTITION.to_lists()) for _ in range(3)]
    for network in networks[1:]:  # near the first one, as replicates are
        for parameter, first in zip(network.parameters(), networks[0].parameters(), strict=True):
            parameter.data = first.data + 0.1 * parameter.data
    images = noise(labels=[c for c, n in enumerate(COUNTS) for _ in range(n)])
    batches = Batches(images, list(range(18)), tiny(img_size=8))
    yield networks[0].eval(), networks[1:], task_objectives(PARTITION, COUNTS), batches
    torch.set_default_dtype(torch.float32)


def recalibrated_logits(network, task, images, weights):
    """Logits with every batch norm set, layer after layer, to the weighted moments of these images."""
    network = copy.deepcopy(network).eval()

    def recalibrate(norm, inputs):
        x = inputs[0]
        w = weights.view(-1, 1, 1, 1)
        mean = (w * x).sum((0, 2, 3)) / (x.shape[2] * x.shape[3])
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((w * (x - mean.view(-1, 1, 1)) ** 2).sum((0, 2, 3)) / (x.shape[2] * x.shape[3]))

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(recalibrate)
    with torch.no_grad():
        return network.forward_task(images, task)


def test_logits_change_as_those_of_the_moved_and_recalibrated_network(problem):
    network, _, _, batches = problem
    images, _ = next(batches.plain())
    weights = torch.rand(18)
    weights = weights / weights.sum()
    layers = block_layers(network)
    directions = [0.05 * torch.randn(2, *layer.own(0).shape) for layer in layers]
    found = secants.logit_changes(network, 1, layers, directions, images, weights)
    base = recalibrated_logits(network, 1, images, weights)
    for number in range(network.num_blocks):
        for d in range(2):
            moved = copy.deepcopy(network)
            for layer, direction in zip(layers, directions, strict=True):
                if layer.block == number + 1:
                    module = moved.decoders[1].get_submodule(layer.name)
                    shift(module, layer, direction[d])
            expected = (recalibrated_logits(moved, 1, images, weights) - base) / secants.STEP
            # A filter's length does not matter but through the little number under batch norm's root.
            torch.testing.assert_close(found[number, d], expected, rtol=1e-3, atol=1e-5)


def shift(module, layer, direction):
    """Half a direction further, from the common length; parameters in the order of a layer's matrix."""
    values = layer.own(1) + secants.STEP * direction
    if isinstance(module, nn.Conv2d):
        module.weight.data.copy_(values.view_as(module.weight))
    else:
        module.weight.data.copy_(values[:, 0])
        module.bias.data.copy_(values[:, 1])


def test_slopes_and_gram_are_built_of_the_same_labels(problem, monkeypatch):
    """Gram matrices of a linear layer's features, and slopes of the logit changes, image by image."""
    network, replicates, objectives, batches = problem
    kept, changes = [], []
    look, change = responses.Observer.look, responses.logit_changes
    monkeypatch.setattr(responses, "logit_changes", lambda *args: changes.append(change(*args)) or changes[-1])
    monkeypatch.setattr(responses.Observer, "look", lambda *args: kept.append(look(*args)) or kept[-1])
    found = measure(network, objectives, batches, 12, 0.1, replicates)
    images = found.samples
    assert images == len(stratified(batches.images.labels, 12, 0))
    assert found.slopes.shape == (2, 4, 3, images)
    assert found.gram.shape == (2, 5, images, images)
    for k in range(2):
        labels = torch.cat([looks[k].labels["target"].own[0] for looks in kept])
        weights = torch.cat([looks[k].labels["target"].weights[0] for looks in kept])
        logits = torch.cat([looks[k].logits for looks in kept])
        features = torch.cat([looks[k].inputs[-1] for looks in kept])  # what enters the classifier
        pull = weights.sqrt()[:, None] * (logits.softmax(-1) - nn.functional.one_hot(labels, logits.shape[1]))
        torch.testing.assert_close(found.gram[k, -1], (pull @ pull.T) * (features @ features.T + 1))
        torch.testing.assert_close(found.slopes[k], (changes[k] * pull).sum(-1))


def test_gram_matrices_of_every_label_have_the_traces_of_exact_ones(problem, monkeypatch):
    """Each label drawn for all images in turn, and weighed by its chance: what a draw gives on average."""
    network, replicates, objectives, batches = problem
    kept, look = [], responses.Observer.look
    monkeypatch.setattr(responses.Observer, "look", lambda *args: kept.append(look(*args)) or kept[-1])
    traces = torch.zeros(2)
    for label in range(3):  # two classes and "none"
        kept.clear()
        monkeypatch.setattr(observer, "draw", lambda logits, uniform: torch.full((len(logits),), label))  # noqa: B023
        gram = measure(network, objectives, batches, 12, 0.1, replicates).gram[:, :-1]
        each = gram.diagonal(dim1=-2, dim2=-1).sum(1)  # (tasks, images)
        chances = torch.stack([torch.cat([looks[k].logits for looks in kept]).softmax(-1)[:, label] for k in range(2)])
        traces += (chances * each).sum(1)
    exact = fisher.measure(network, objectives, batches, 12, 0.1, kind=FisherKind.EXACT)
    torch.testing.assert_close(traces, sum(block.target.sum(1) for block in exact.blocks))


def test_directions_are_the_displacement_and_the_noises(problem):
    network, replicates, objectives, batches = problem
    found = measure(network, objectives, batches, 8, 0.1, [replicates[0], replicates[0]])
    assert not found.slopes[:, :, 1:].any()  # replicates alike: no noise
    assert found.slopes[:, :, 0].any()


def test_images_are_those_of_the_stratified_sample_in_random_order(problem, monkeypatch):
    network, replicates, objectives, batches = problem
    seen = []
    original = responses.weighted_batches
    monkeypatch.setattr(responses, "weighted_batches", lambda b, picked: seen.extend(picked) or original(b, picked))
    measure(network, objectives, batches, 10, 0.1, replicates)
    assert sorted(seen) == stratified(batches.images.labels, 10, 0)
    assert seen != sorted(seen)


def test_what_does_not_fit_into_memory_is_refused(problem, monkeypatch):
    network, replicates, objectives, batches = problem
    monkeypatch.setattr(responses, "MOST_BYTES", 1e3)
    with pytest.raises(ValueError, match=r"lower search\.samples, or set search\.structure to 'diagonal'"):
        measure(network, objectives, batches, 10, 0.1, replicates)
