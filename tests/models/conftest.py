"""What the tests of the models share: a fixed seed and small random networks."""

import pytest
import torch

from osdtw_models.cifar import CifarResNet
from osdtw_models.network import OsdtwNet


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomise(module):
    """Give batch norms and classifiers random values, so that no test passes on zeros and ones."""
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.normal_(part.bias, 0, 0.1)
        elif isinstance(part, torch.nn.Linear):
            torch.nn.init.normal_(part.weight, 0, 0.05)  # no task is too sure for its rule to matter
            torch.nn.init.normal_(part.bias)
    return module


@pytest.fixture
def build():
    """Build a small random network in float64 and evaluation mode: ResNet-14 with 6 classes if not told otherwise."""

    def build(depth=14, **arguments):
        arguments = {"num_classes": 6, "dtype": torch.float64, **arguments}
        return randomise(OsdtwNet(CifarResNet(depth), **arguments)).eval()

    return build


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16, dtype=torch.float64)
