"""The blocks are those of the protocol's CIFAR ResNets: same sizes, same function as a plain one written here."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osdtw_models.cifar import CifarResNet
from osdtw_models.network import OsdtwNet


class PlainBlock(nn.Module):
    def __init__(self, in_planes, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.widens = in_planes != planes

    def forward(self, x):
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if self.widens:
            x = F.avg_pool2d(x, 1, stride=2)  # a window of one pixel: takes every other one
            quarter = x.new_zeros(x.shape[0], x.shape[1] // 2, *x.shape[2:])
            x = torch.cat([quarter, x, quarter], dim=1)
        return (out + x).relu()


class PlainResNet32(nn.Module):
    """ResNet-32 for CIFAR with a single classifier (He et al. 2016, option A)."""

    def __init__(self, num_classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = nn.Sequential(*(PlainBlock(16, 16, 1) for _ in range(5)))
        self.layer2 = nn.Sequential(PlainBlock(16, 32, 2), *(PlainBlock(32, 32, 1) for _ in range(4)))
        self.layer3 = nn.Sequential(PlainBlock(32, 64, 2), *(PlainBlock(64, 64, 1) for _ in range(4)))
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


def our_name(plain_name, shared_depth):
    """Name of a plain tensor in a network of one task."""
    layer, rest = plain_name.split(".", 1)
    if layer == "linear":
        return f"decoders.0.classifier.{rest}"
    number = 1
    if layer.startswith("layer"):
        place, rest = rest.split(".", 1)
        number = 2 + 5 * (int(layer[-1]) - 1) + int(place)
    else:
        rest = plain_name
    return f"{'encoder' if number <= shared_depth else 'decoders.0'}.block{number}.{rest}"


def single_task(num_classes, shared_depth=-1, depth=32, width=16):
    tasks = [list(range(num_classes))]
    return OsdtwNet(CifarResNet(depth, width), num_classes, shared_depth=shared_depth, task_classes=tasks)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shared_depth", [0, 7, 16])
def test_one_task_is_a_plain_resnet32(shared_depth, training):
    plain = PlainResNet32(10).double()
    for name, values in plain.state_dict().items():
        if values.is_floating_point():
            values.uniform_(0.5, 1.5) if name.endswith("var") else values.normal_(0.1, 0.2)
    net = single_task(10, shared_depth).double()
    weights = {our_name(name, shared_depth): values for name, values in plain.state_dict().items()}
    net.load_state_dict({"class_position": torch.arange(10), **weights})
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(net.train(training)(images), plain.train(training)(images), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("depth", "width", "num_classes", "expected"),
    [  # LDAM-DRW's resnet_cifar.py
        (20, 16, 10, 269_722),
        (32, 16, 10, 464_154),
        (32, 16, 100, 470_004),
        (32, 64, 10, 7_386_186),
        (32, 64, 100, 7_409_316),
        (44, 16, 10, 658_586),
        (56, 16, 10, 853_018),
        (110, 16, 10, 1_727_962),
    ],
)
def test_plain_networks_have_the_known_numbers_of_parameters(depth, width, num_classes, expected):
    network = single_task(num_classes, depth=depth, width=width)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(("depth", "num_blocks"), [(14, 7), (20, 10), (32, 16)])
def test_blocks_run_in_order_and_announce_their_shapes(depth, num_blocks):
    backbone = CifarResNet(depth)
    assert backbone.num_blocks == num_blocks
    pieces = backbone.pieces(in_chans=5)
    maps, x = {}, torch.randn(2, 5, 32, 32)
    for number, block in enumerate(pieces.blocks, 1):
        x = maps[number] = block(x)
    assert len(maps) == num_blocks
    assert x.shape[1] == backbone.num_features == pieces.num_features
    announced = [(level.block, level.channels, 32 // level.reduction) for level in pieces.levels]
    last_of_stage = [1 + (stage + 1) * (num_blocks - 1) // 3 for stage in range(3)]
    assert announced == [(number, maps[number].shape[1], maps[number].shape[2]) for number in last_of_stage]
    assert [(width, size) for _, width, size in announced] == [(16, 32), (32, 16), (64, 8)]


def test_stages_of_other_widths_pad_what_is_new_on_both_sides_alike():
    backbone = CifarResNet(14, widths=(6, 8, 14))
    net = OsdtwNet(backbone, num_classes=3, task_classes=[[0, 1, 2]]).eval()
    assert [info["num_chs"] for info in net.feature_info] == [6, 8, 14]
    assert backbone.num_features == net.num_features == 14
    block, x = net.encoder.block6, torch.rand(2, 8, 4, 4)  # opens the last stage
    torch.nn.init.zeros_(block.conv2.weight)
    shortcut = block(x)
    assert shortcut.shape == (2, 14, 2, 2)
    assert torch.equal(shortcut[:, 3:11], x[:, :, ::2, ::2])
    assert not shortcut[:, :3].any()
    assert not shortcut[:, 11:].any()
    assert CifarResNet(14).stage_widths == CifarResNet(14, widths=(16, 32, 64)).stage_widths


@pytest.mark.parametrize("widths", [(16, 32), (16, 24, 47), (16, 8, 64), (0, 2, 4)])
def test_widths_that_no_shortcut_joins_are_refused(widths):
    with pytest.raises(ValueError, match=r"none narrower than the one before, in even steps"):
        CifarResNet(20, widths=widths)
