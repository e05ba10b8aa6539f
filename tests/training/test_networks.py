"""Networks between the stages: the same function at another cut, averaged encoders, fresh batch-norm statistics."""

import copy

import pytest
import torch
from torch import nn

from osdtw_models.partition import ClassPartition
from osdtw_training.batches import Batches
from osdtw_training.networks import at_depth, average_encoder, new_network, recalibrate_batch_norm, split_classifier

PARTITION = ClassPartition(((4, 0), (2, 1, 3)))
BLOCKS = 7
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def randomise(network):
    """No batch norm or bias stays at its first value, where mistakes do not show."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.bias)
    return network.eval()


@pytest.fixture
def make(tiny):
    def make(depth=-1, partition=PARTITION, **arguments):
        return randomise(new_network(tiny(), partition, depth, **arguments))

    return make


@pytest.fixture
def images():
    return torch.randn(6, 3, 16, 16)


def same(first, second):
    return all(torch.equal(value, second.state_dict()[key]) for key, value in first.state_dict().items())


def test_initial_weights_depend_on_the_seed_alone(tiny):
    first = new_network(tiny(), PARTITION, 3)
    torch.randn(7)
    assert same(first, new_network(tiny(), PARTITION, 3))
    assert not same(first, new_network(tiny(seed=1), PARTITION, 3))


@pytest.mark.parametrize("depth", [0, 3, BLOCKS])
def test_a_shallower_cut_is_the_same_function(make, tiny, images, depth):
    offsets = [[0.5, -1.0, 2.0], [0.1, 0.2, 0.3, -0.4]]
    network = make(logit_offsets=offsets)
    other = at_depth(network, tiny(), depth).eval()
    assert other.shared_depth == depth
    assert [len(d.block_names) for d in other.decoders] == [BLOCKS - depth] * 2
    torch.testing.assert_close(other(images), network(images), rtol=0, atol=0)


@pytest.mark.parametrize("depth", [0, 3, BLOCKS])
@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.8)])
def test_averaging_equal_task_networks_changes_nothing(make, tiny, images, depth, weights):
    network, other = make(), make(depth)
    average_encoder(other, at_depth(network, tiny(), 0), weights)
    torch.testing.assert_close(other(images), network(images), **CLOSE)


def test_an_averaged_encoder_is_the_weighted_mean_and_the_decoders_are_the_tasks_own(make):
    tasks, network = make(0), make(3)
    average_encoder(network, tasks, (0.25, 0.75))
    state = tasks.state_dict()
    for key, value in network.state_dict().items():
        part, name = key.split(".", 1) if "." in key else (key, "")
        if part == "decoders":
            assert torch.equal(value, state[key])
        elif value.is_floating_point():
            mean = 0.25 * state[f"decoders.0.{name}"] + 0.75 * state[f"decoders.1.{name}"]
            torch.testing.assert_close(value, mean)
    assert any(key.startswith("encoder.block3.") for key in network.state_dict())


def test_a_split_classifier_keeps_the_logits_of_own_classes(make, images):
    plain, network = make(partition=ClassPartition.single(5)), make()
    split_classifier(plain, network)
    expected = plain(images)
    for k, task in enumerate(PARTITION.tasks):
        logits = network.forward_task(images, k)
        other = [c for c in range(5) if c not in task]
        torch.testing.assert_close(logits[:, :-1], expected[:, task], **CLOSE)
        mean = expected[:, other].mean(1) + torch.tensor(len(other)).log()
        torch.testing.assert_close(logits[:, -1], mean, **CLOSE)


def test_equal_logits_give_none_the_mass_of_all_other_classes(make, images):
    plain, network = make(partition=ClassPartition.single(5)), make()
    with torch.no_grad():
        for parameter in plain.decoders[0].classifier.parameters():
            parameter.copy_(parameter[:1].expand_as(parameter))
    split_classifier(plain, network)
    for k, task in enumerate(PARTITION.tasks):
        none = network.forward_task(images, k).softmax(1)[:, -1]
        torch.testing.assert_close(none, torch.full((6,), 1 - len(task) / 5), **CLOSE)


@pytest.mark.parametrize("depth", [0, 3, BLOCKS])
def test_batch_norm_is_that_of_the_images_and_nothing_else_changes(make, tiny, noise, depth):
    network = make(depth)
    batches = Batches(noise(number=30, side=16), list(range(30)), tiny())
    before = copy.deepcopy(network)
    expected = copy.deepcopy(network).train()
    norms = [module for module in expected.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0  # the running statistics become those of the last batch: here of all images
    with torch.no_grad():
        expected(next(batches.epoch(7))[0])
    recalibrate_batch_norm(network, batches, 7)
    assert not network.training
    for key, value in network.state_dict().items():
        if "running" in key:
            torch.testing.assert_close(value, expected.state_dict()[key], **CLOSE)
        elif "num_batches" not in key:
            assert torch.equal(value, before.state_dict()[key])
    assert {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
