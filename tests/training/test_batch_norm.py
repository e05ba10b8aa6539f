"""Batch norm over all processes: with one process it is torch's own (with several, see test_distributed.py)."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn

from osdtw_training.batch_norm import _forward, global_batch_norm


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, BatchNormAct2d])
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_gradients_and_statistics_are_those_of_torch(kind, momentum, layout):
    torch.manual_seed(0)
    norm = kind(5, momentum=momentum).double()
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    other = copy.deepcopy(norm)
    for _ in range(2):
        images = (3 + 2 * torch.randn(4, 5, 3, 2, dtype=torch.float64)).contiguous(memory_format=layout)
        own, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
        found, expected = _forward(norm, own), other(theirs)
        torch.testing.assert_close(found, expected)
        pull = torch.randn_like(found)
        found.backward(pull)
        expected.backward(pull)
        torch.testing.assert_close(own.grad, theirs.grad)
    torch.testing.assert_close([p.grad for p in norm.parameters()], [p.grad for p in other.parameters()])
    torch.testing.assert_close(norm.state_dict(), other.state_dict())
    assert torch.equal(_forward(norm.eval(), images), norm(images))


def test_half_precision_goes_in_and_comes_out():
    torch.manual_seed(0)
    norm, other = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    images = torch.randn(8, 4, 5, 5).bfloat16()
    own, theirs = images.clone().requires_grad_(), images.clone().requires_grad_()
    found, expected = _forward(norm, own), other(theirs)
    assert found.dtype == torch.bfloat16
    pull = torch.randn(8, 4, 5, 5).bfloat16()
    found.backward(pull)
    expected.backward(pull)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(own.grad, theirs.grad, atol=0.02, rtol=0.02)
    torch.testing.assert_close(norm.running_var, other.running_var)


def test_alone_a_network_keeps_its_own_batch_norm():
    network = nn.Sequential(nn.BatchNorm2d(2))
    with global_batch_norm(network):
        assert "forward" not in vars(network[0])
