"""Packed decoders are the same function, in every family that can be packed; the others say why not."""

import copy

import pytest
import torch
from families import SIZE, ZOO, plain, randomise, zoo
from timm.layers import BatchNormAct2d
from torch import nn

from osdtw_export.folding import fold_batch_norm
from osdtw_export.pack import Packed, merge, pack
from osdtw_export.shortcuts import ConvolvedShortcut, convolve_shortcuts
from osdtw_models import create_model, decouple

CIFAR = "osdtw_resnet14"
THREE = [[9, 1], [0, 2, 4, 6], [3, 5, 7, 8]]
PACKABLE = (CIFAR, "osdtw_resnet10", "osdtw_resnet50", "regnet", "efficientnet", "resnet-d")
CHANNELS_LAST = ("osdtw_vit_small_patch16_224", "averaging vit", "swin", "mixer")


def cifar(**arguments):
    return randomise(create_model(CIFAR, **{"num_classes": 10, **arguments})).eval()


OPEN = {"task_classes": THREE, "open_none": True, "fusion": "mean"}


def network(family, depth, **arguments):
    torch.manual_seed(0)
    if family == CIFAR:
        return cifar(shared_depth=depth, **arguments)
    return zoo(family, shared_depth=depth) if family in ZOO else decouple(plain(family), depth)


def folded(model, images):
    model = copy.deepcopy(model)
    fold_batch_norm(model, images)
    convolve_shortcuts(model)
    return model


def assert_same(model, packing, size=SIZE):
    """Packed against the untouched network, in float64; returns what was packed."""
    model, images = model.double(), torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected = model.forward_outputs(images)
        task_logits, *found = pack(folded(model, images), packing, images)
        for ours, theirs in zip(task_logits(images), expected, strict=True):
            assert (theirs[0] - theirs[1]).abs().max() > 0  # the images matter
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    return task_logits, *found


@pytest.mark.parametrize("packing", ["none", "grouped", "dense"])
@pytest.mark.parametrize("depth", [0, 3, -1])
@pytest.mark.parametrize("family", PACKABLE)
def test_every_convolutional_family_computes_the_same(family, depth, packing):
    _, *found = assert_same(network(family, depth), packing)
    assert found == [packing, ""]


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        ("osdtw_convnext_tiny", "it has a LayerNorm2d in its decoders"),
        *((family, "its maps have their channels last") for family in CHANNELS_LAST),
    ],
)
def test_other_families_stay_unpacked_and_say_why(family, reason):
    model, images = network(family, 3), torch.randn(2, 3, SIZE, SIZE)
    task_logits, *found = pack(model, "grouped", images)
    assert found == ["none", reason]
    for ours, theirs in zip(task_logits(images), model.forward_outputs(images), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_classifiers_alone_are_packed_in_a_family_whose_blocks_are_not():
    _, *found = assert_same(network("osdtw_convnext_tiny", -1), "grouped")
    assert found == ["grouped", ""]


@pytest.mark.parametrize("packing", ["grouped", "dense"])
@pytest.mark.parametrize(
    "changes",
    [
        {"task_classes": THREE, "shared_depth": 4, "fusion": "valid"},
        {"task_classes": THREE, "shared_depth": -1},
        {**OPEN, "shared_depth": 3},
        {"global_pool": "max"},
        {"normalise_features": True},
        {"normalise_features": True, "shared_depth": -1},
    ],
)
def test_tasks_poolings_and_necks_of_every_kind(packing, changes):
    _, found, _ = assert_same(cifar(**changes), packing, 32)
    assert found == packing


def test_a_packed_network_has_the_convolutions_of_the_plain_one_and_one_classifier():
    images = torch.randn(2, 3, 32, 32)
    plain = folded(cifar(task_classes=[list(range(10))]), images)
    packed, *_ = pack(folded(cifar(task_classes=THREE, shared_depth=3), images), "grouped", images)

    def number(kind, model):
        return sum(type(module) is kind for module in model.modules())

    assert number(nn.Conv2d, packed) == number(nn.Conv2d, plain)
    assert number(nn.Linear, packed) == 1
    assert number(nn.BatchNorm2d, packed) == 0
    classifier = next(module for module in packed.modules() if type(module) is nn.Linear)
    assert (classifier.in_features, classifier.out_features) == (3 * 64, 3 + 5 + 5) == classifier.weight.shape[::-1]


def test_grouped_convolutions_cost_the_multiply_adds_of_the_decoders_and_dense_ones_k_times_as_many():
    images = torch.randn(2, 3, 32, 32)
    model = folded(cifar(task_classes=THREE, shared_depth=0), images)

    def weights(network):
        return sum(module.weight.numel() for module in network.modules() if type(module) is nn.Conv2d)

    separate = weights(model)
    assert weights(pack(model, "grouped", images)[0]) == separate
    assert weights(pack(model, "dense", images)[0]) == 3 * separate


def test_one_task_has_nothing_to_pack():
    model = folded(cifar(task_classes=[list(range(10))]), torch.randn(2, 3, 32, 32))
    assert pack(model, "grouped", torch.randn(2, 3, 32, 32))[1:] == ("none", "there is one task only")


def test_blocks_that_mix_channels_in_their_own_code_are_found_out():
    class Reversing(nn.Sequential):
        def forward(self, x):
            return super().forward(x).flip(1)

    model, images = folded(cifar(shared_depth=3), torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    for branch in model.branches:
        branch.block7 = Reversing(branch.block7)
    assert pack(model, "grouped", images)[1:] == ("none", "its blocks mix channels")


def test_blocks_that_mix_channels_a_little_are_found_out_too():
    class Blurring(nn.Sequential):
        def forward(self, x):
            x = super().forward(x)
            return x + 1e-3 * x.flip(1)

    model, images = folded(cifar(shared_depth=3), torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    for branch in model.branches:
        branch.block7 = Blurring(branch.block7)
    assert pack(model, "grouped", images)[1:] == ("none", "its blocks mix channels")


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("options", [{}, {"affine": False}, {"track_running_stats": False}])
@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
def test_batch_norms_that_no_convolution_takes_are_put_side_by_side(kind, options, number):
    norms = [randomise(nn.Sequential(kind(4, **options))).eval() for _ in range(number)]
    images = torch.randn(2, number * 4, 3, 3)
    expected = [norm(part) for norm, part in zip(norms, images.chunk(number, 1), strict=True)]
    torch.testing.assert_close(merge(norms, dense=False)(images), torch.cat(expected, 1))


def test_decoders_that_differ_are_not_packed():
    model, images = folded(cifar(shared_depth=3), torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    model.branches[1].block7.conv1 = nn.Conv2d(64, 64, 1)
    assert pack(model, "grouped", images)[1:] == ("none", "its decoders differ")


@pytest.mark.parametrize("longer", [0, 1])
def test_decoders_of_different_lengths_are_not_packed(longer):
    model, images = folded(cifar(shared_depth=3), torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    model.branches[longer].block7 = nn.Sequential(model.branches[longer].block7, nn.ReLU())
    model.branches[1 - longer].block7 = nn.Sequential(model.branches[1 - longer].block7)
    assert pack(model, "grouped", images)[1:] == ("none", "its decoders differ")


@torch.no_grad()
def test_large_logits_may_differ_by_what_rounding_makes_of_them(monkeypatch):
    exact = Packed.forward  # some processors round alike in both
    monkeypatch.setattr(Packed, "forward", lambda self, x: [logits * (1 + 1e-6) for logits in exact(self, x)])
    model, images = folded(cifar(shared_depth=3), torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    for branch in model.branches:
        branch.classifier.weight *= 1e5
    assert pack(model, "dense", images)[1:] == ("dense", "")


def test_classifiers_of_another_kind_are_not_packed():
    model, images = folded(cifar(shared_depth=3), torch.randn(2, 3, 32, 32)), torch.randn(2, 3, 32, 32)
    model.branches[0].classifier = nn.Linear(64, 6, bias=False)
    assert pack(model, "grouped", images)[1:] == ("none", "its classifiers are no linear layers")


def test_packing_leaves_the_network_as_it_is():
    images = torch.randn(2, 3, 32, 32)
    model = folded(cifar(shared_depth=3), images)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    Packed(model, dense=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", [CIFAR, "osdtw_resnet50", "regnet", "efficientnet", "resnet-d"])
def test_folding_leaves_no_batch_norm_and_the_same_function(family):
    model, images = network(family, 3).double(), torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    rewritten = folded(model, images)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in rewritten.modules())
    torch.testing.assert_close(rewritten(images), model(images), rtol=1e-10, atol=1e-10)


def test_a_batch_norm_of_two_convolutions_and_one_without_stay():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
            self.shared, self.first = nn.BatchNorm2d(4), nn.BatchNorm2d(3)

        def forward(self, x):
            x = self.first(x)
            return self.shared(self.a(x)) + self.shared(self.b(x))

    model, images = randomise(Odd()).eval(), torch.randn(2, 3, 5, 5)
    before = model(images)
    fold_batch_norm(model, images)
    assert isinstance(model.shared, nn.BatchNorm2d)
    assert isinstance(model.first, nn.BatchNorm2d)
    assert torch.equal(model(images), before)


def test_a_convolved_shortcut_takes_every_other_pixel_and_pads_channels_half_before_half_after():
    block = next(m for m in folded(cifar(), torch.randn(2, 3, 32, 32)).modules() if isinstance(m, ConvolvedShortcut))
    x = torch.arange(2 * 16 * 4 * 4, dtype=torch.float32).view(2, 16, 4, 4)
    expected = torch.zeros(2, 32, 2, 2)
    for channel in range(16):
        for row in range(2):
            for column in range(2):
                expected[:, 8 + channel, row, column] = x[:, channel, 2 * row, 2 * column]
    assert torch.equal(block.shortcut(x), expected)
