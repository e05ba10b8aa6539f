"""Feature maps level by level, against the maps of `forward_features` and of networks cut off by timm."""

import copy

import pytest
import torch

from osdtw_models import create_model

TASKS = [[[0, 1, 2, 3]], [[0, 1], [3, 2]], [[0], [1, 3], [2]]]
pytestmark = pytest.mark.parametrize(("shared_depth", "tasks"), [(d, t) for d in (0, 2, 3, 5, 7) for t in TASKS])
LAST_BLOCKS = (3, 5, 7)


@pytest.fixture
def arguments(shared_depth, tasks):
    return {"num_classes": 4, "shared_depth": shared_depth, "task_classes": tasks}


@pytest.fixture
def network(arguments):
    return create_model("osdtw_resnet14", **arguments).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16)


def test_levels_are_the_maps_after_the_last_block_of_each_stage(network, images, shared_depth, tasks):
    found = {}
    for name, module in network.named_modules():
        if name.rpartition(".")[2] in {f"block{number}" for number in LAST_BLOCKS}:
            module.register_forward_hook(lambda _, __, out, name=name: found.setdefault(name, out))
    final, levels = network.forward_intermediates(images)
    for number, level, info in zip(LAST_BLOCKS, levels, network.feature_info, strict=True):
        if number <= shared_depth:
            expected = found[f"encoder.block{number}"]
        else:
            expected = torch.cat([found[f"decoders.{k}.block{number}"] for k in range(len(tasks))], 1)
        assert torch.equal(level, expected)
        assert level.shape[1:] == (info["num_chs"], 16 // info["reduction"], 16 // info["reduction"])
    assert torch.equal(final, network.forward_features(images))


@pytest.mark.parametrize("level", [0, 1, 2])
def test_one_level_alone_is_the_same_without_the_blocks_above(network, images, level):
    levels = network.forward_intermediates(images, intermediates_only=True)
    taken = network.forward_intermediates(images, [level], stop_early=True, intermediates_only=True)
    assert len(taken) == 1
    assert torch.equal(taken[0], levels[level])
    last = network.forward_intermediates(images, 1, intermediates_only=True)
    assert torch.equal(last[0], levels[2])


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_pruned_network_ends_at_the_level_and_uses_all_its_parameters(network, images, level):
    before = network.forward_intermediates(images, intermediates_only=True)[level]
    pruned = copy.deepcopy(network)
    assert pruned.prune_intermediate_layers([level]) == [level]
    assert torch.equal(pruned.forward_features(images), before)
    assert torch.equal(pruned(images), before)
    assert torch.equal(pruned.forward_intermediates(images, [level], intermediates_only=True)[0], before)
    assert pruned.num_features == before.shape[1]
    pruned.train()(images).sum().backward()
    assert all(p.grad is not None for p in pruned.parameters())


def test_keeping_everything_changes_nothing(network, images):
    before, features = network(images), network.num_features
    assert network.prune_intermediate_layers(3, prune_head=False) == [0, 1, 2]
    assert torch.equal(network(images), before)
    assert network.num_features == features


def test_features_only_is_timms(arguments, network, images):
    getter = create_model("osdtw_resnet14", features_only=True, **arguments)
    getter.model.load_state_dict(network.state_dict(), strict=False)
    maps, expected = getter.eval()(images), network.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(one, other) for one, other in zip(maps, expected, strict=True))
    assert getter.feature_info.channels() == [each.shape[1] for each in maps]
    assert getter.feature_info.reduction() == [1, 2, 4]
    first = create_model("osdtw_resnet14", features_only=True, out_indices=(0,), **arguments)
    assert [each.shape[1] for each in first(images)] == [maps[0].shape[1]]


def test_other_formats_are_refused(network, images):
    with pytest.raises(ValueError, match="choose 'NCHW' or 'NLC'"):
        network.forward_intermediates(images, output_fmt="NHWC")
