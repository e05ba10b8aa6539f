"""EKFAC statistics against curvlinops, an independent implementation; the coordinates are orthonormal."""

import pytest
import torch
from curvlinops import EKFACLinearOperator, KFACLinearOperator
from torch import nn

from osdtw_models.cifar import CifarResNet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import kronecker, sampling
from osdtw_training.batches import Batches
from osdtw_training.fisher import measure
from osdtw_training.gradients import multiplies_patches, patches, per_image, positions
from osdtw_training.layers import Layer, block_layers
from osdtw_training.objectives import task_objectives
from osdtw_training.observer import FisherKind
from osdtw_training.structures import Structure


@pytest.fixture
def network():
    network = OsdtwNet(CifarResNet(8), 3, shared_depth=0, task_classes=[[0, 1, 2]], dtype=torch.float64).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network


class OneTask(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, images):
        return self.network.forward_task(images, 0)


def test_traces_and_norms_are_those_of_curvlinops(network, noise, tiny, monkeypatch):
    """Three classes of equal size, one task: every weight is 1 / n, there are no offsets, H = J* = the exact Fisher."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(sampling, "CHUNK", 5)
    images = noise(labels=[0, 1, 2] * 4)
    batches = Batches(images, list(range(12)), tiny(img_size=8))
    objectives = task_objectives(ClassPartition.single(3), [4, 4, 4])
    found = measure(network, objectives, batches, 12, 0.1, kind=FisherKind.EXACT, structure=Structure.EKFAC)
    pixels, labels = next(batches.plain())
    layers = [layer for layer in block_layers(network) if multiplies_patches(layer.modules[0])]
    weights = [layer.modules[0].weight for layer in layers]
    data = [(pixels, labels)]
    arguments = {"fisher_type": "type-2", "check_deterministic": False}
    theirs = EKFACLinearOperator(OneTask(network), nn.CrossEntropyLoss(), weights, data, **arguments)
    plain = KFACLinearOperator(OneTask(network), nn.CrossEntropyLoss(), weights, data, **arguments)
    ours = torch.cat([convolutions(block, number, layers) for number, block in enumerate(found.blocks, 1)])
    assert float(ours.sum()) == pytest.approx(float(theirs.trace), rel=1e-8)
    assert float(ours.norm()) == pytest.approx(float(theirs.frobenius_norm), rel=1e-6)
    assert abs(float(plain.trace) / float(ours.sum()) - 1) > 0.05  # the reason why plain K-FAC is not offered


def convolutions(block, number, layers):
    """Curvature of a block's convolutions; batch norms follow each and have two columns."""
    sizes = [layer.modules[0].weight for layer in layers if layer.block == number]
    parts, start = [], 0
    for weight in sizes:
        parts.append(block.curvature[0, start : start + weight.numel()])
        start += weight.numel() + 2 * len(weight)
    assert start == block.curvature.shape[1]
    return torch.cat(parts)


def test_the_coordinates_are_orthonormal_and_diagonalise_the_factors():
    layer = Layer("block1.fc", [nn.Linear(3, 2, dtype=torch.float64)], None)
    factors = kronecker.KroneckerFactors(layer)
    inputs, arriving = torch.randn(50, 3, dtype=torch.float64), torch.randn(4, 50, 2, dtype=torch.float64)
    factors.add(0, inputs, arriving, torch.ones(4, 50, dtype=torch.float64))
    found = factors.coordinates()
    for basis, factor in ((found.rows, factors.outputs), (found.columns, factors.inputs)):
        torch.testing.assert_close(basis.T @ basis, torch.eye(len(basis), dtype=torch.float64))
        turned = basis.T @ factor @ basis
        torch.testing.assert_close(turned, turned.diagonal().diag(), atol=1e-10, rtol=0)
    weights = torch.randn(2, 4, dtype=torch.float64)
    assert float(found.turn(weights).norm()) == pytest.approx(float(weights.norm()))


LAYERS = {
    "convolution": (nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 6, 6)),
    "dilated": (nn.Conv2d(3, 4, 3, dilation=2, bias=False), (3, 6, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (4, 5, 5)),
    "batch norm": (nn.BatchNorm2d(3).eval(), (3, 4, 4)),
    "layer norm": (nn.LayerNorm(5), (6, 5)),
    "linear": (nn.Linear(5, 2), (5,)),
    "linear over tokens": (nn.Linear(5, 2), (6, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_of_each_image_are_those_of_autograd(name):
    layer, shape = LAYERS[name]
    layer = layer.double()
    inputs = torch.randn(3, *shape, dtype=torch.float64)
    with torch.no_grad():
        arriving = torch.randn(2, *layer(inputs).shape, dtype=torch.float64)
    found = per_image(layer, inputs, arriving)
    for r in range(2):
        for i in range(3):
            layer.zero_grad()
            layer(inputs[i : i + 1]).backward(arriving[r, i : i + 1])
            rows = len(layer.weight)
            expected = layer.weight.grad.reshape(rows, -1)
            if layer.bias is not None:
                expected = torch.cat([expected, layer.bias.grad[:, None]], 1)
            torch.testing.assert_close(found[r, i], expected)
    if multiplies_patches(layer):
        assert patches(layer, inputs).shape[-1] == positions(layer, arriving).shape[-1]
