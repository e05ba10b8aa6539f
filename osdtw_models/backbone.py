"""A backbone is an ordered list of blocks that can be cut after any of them.

Block 1 is the stem, then comes one block per residual block; the classifier is never a block. Here: the
CIFAR ResNets of the long-tailed protocol (LDAM-DRW's ``resnet_cifar.py``): a 3x3 stem, three stages of
``(depth - 2) / 6`` basic blocks, each twice as wide as the one before (16, 32, 64), and shortcuts without parameters
("option A").
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STAGES = 3


def block_number(name: str) -> int:
    """Number of the block that a parameter belongs to ("encoder.block3.conv1.weight": 3), 0 outside all blocks."""
    found = re.search(r"\bblock(\d+)\.", name)
    return int(found.group(1)) if found else 0


@dataclass(frozen=True)
class CifarResNet:
    """Recipe of a CIFAR ResNet's blocks.

    Args:
        depth: Number of weighted layers, 6 n + 2: 14, 20, 32, 44, 56, 110.
        width: Channels of the first stage; papers that say "ResNet-32" mean 16 or 64, which must be said.
    """

    depth: int
    width: int = 16

    @property
    def num_blocks(self) -> int:
        """Number of blocks L: the stem and three stages of residual blocks."""
        return 1 + STAGES * self.blocks_per_stage

    @property
    def blocks_per_stage(self) -> int:
        """Residual blocks in each of the three stages."""
        return (self.depth - 2) // (2 * STAGES)

    @property
    def stage_widths(self) -> tuple[int, ...]:
        """Channels of each stage."""
        return tuple(self.width * 2**stage for stage in range(STAGES))

    @property
    def num_features(self) -> int:
        """Channels of the last block's output."""
        return self.stage_widths[-1]

    def block(
        self, number: int, in_chans: int = 3, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> nn.Module:
        """Build one block, freshly initialised.

        Args:
            number: Block number, 1 (the stem) to ``num_blocks``.
            in_chans: Channels of the input images; used by the stem only.
            device: Device of the parameters.
            dtype: Type of the parameters.

        Returns:
            A module mapping (B, channels in, H, W) to (B, channels out, H / stride, W / stride).
        """
        if number == 1:
            return Stem(in_chans, self.width, device=device, dtype=dtype)
        stage, place = divmod(number - 2, self.blocks_per_stage)
        width = self.stage_widths[stage]
        opens_stage = place == 0 and stage > 0
        return BasicBlock(
            self.stage_widths[stage - 1] if opens_stage else width,
            width,
            stride=2 if opens_stage else 1,
            device=device,
            dtype=dtype,
        )

    def feature_info(self) -> list[dict[str, int | str]]:
        """Channels and down-sampling after the last block of each stage, as timm lists them."""
        return [
            {"num_chs": width, "reduction": 2**stage, "module": f"block{1 + (stage + 1) * self.blocks_per_stage}"}
            for stage, width in enumerate(self.stage_widths)
        ]


class Stem(nn.Module):
    """3x3 convolution, batch norm, ReLU."""

    def __init__(
        self, in_chans: int, out_chs: int, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, out_chs, 3, padding=1, bias=False, device=device, dtype=dtype)
        self.bn1 = nn.BatchNorm2d(out_chs, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H, W)."""
        return F.relu(self.bn1(self.conv1(x)), inplace=True)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut without parameters.

    Where a block halves the resolution, the shortcut takes every other pixel and pads the new channels with
    zeros, half before and half after ("option A" of He et al. 2016).
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        stride: int = 1,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chs, out_chs, 3, stride, padding=1, bias=False, device=device, dtype=dtype)
        self.bn1 = nn.BatchNorm2d(out_chs, device=device, dtype=dtype)
        self.conv2 = nn.Conv2d(out_chs, out_chs, 3, padding=1, bias=False, device=device, dtype=dtype)
        self.bn2 = nn.BatchNorm2d(out_chs, device=device, dtype=dtype)
        self.stride = stride
        self.pad_chs = (out_chs - in_chs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, H, W) -> (B, out, H / stride, W / stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad_chs, self.pad_chs))
        return F.relu(y + x, inplace=True)
