"""Shortcuts without parameters -> constant convolutions.

"Option A" takes every other pixel and pads new channels with zeros: many small nodes that ONNX Runtime can neither
fuse nor keep in its fast layout. A 1x1 convolution of the same stride whose weights are zeros and ones is the same
function, costs next to nothing, and the addition behind it becomes part of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osdtw_models.cifar import BasicBlock


class ConvolvedShortcut(nn.Module):
    """A `osdtw_models.cifar.BasicBlock` that halves the resolution, its shortcut a convolution.

    Args:
        block: The block, its batch norms folded.
    """

    def __init__(self, block: BasicBlock) -> None:
        super().__init__()
        self.conv1, self.bn1, self.conv2, self.bn2 = block.conv1, block.bn1, block.conv2, block.bn2
        in_chs, out_chs = block.conv1.in_channels, block.conv2.out_channels
        self.shortcut = nn.Conv2d(in_chs, out_chs, 1, block.stride, bias=False)
        weight = torch.zeros_like(self.shortcut.weight, dtype=block.conv1.weight.dtype)
        weight[range(block.pad_chs, block.pad_chs + in_chs), range(in_chs)] = 1
        self.shortcut.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


def convolve_shortcuts(model: nn.Module) -> None:
    """Replace every block with such a shortcut, in place.

    Args:
        model: A network.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BasicBlock) and child.stride > 1:
                setattr(parent, name, ConvolvedShortcut(child))
