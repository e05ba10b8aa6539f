"""The CIFAR ResNets of the long-tailed protocol (LDAM-DRW's ``resnet_cifar.py``).

A 3x3 stem, three stages of ``(depth - 2) / 6`` basic blocks, each twice as wide as the one before (16, 32, 64) unless
other widths are asked for, and shortcuts without parameters ("option A").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from osdtw_models.backbone import Level, Pieces

STAGES = 3


@dataclass(frozen=True)
class CifarResNet:
    """Recipe of a CIFAR ResNet's blocks.

    Args:
        depth: Number of weighted layers, 6 n + 2: 14, 20, 32, 44, 56, 110.
        width: Channels of the first stage; papers that say "ResNet-32" mean 16 or 64, which must be said.
        widths: Channels of all three stages, where they are not to double.

    Raises:
        ValueError: If these widths cannot be built.
    """

    depth: int
    width: int = 16
    widths: Sequence[int] | None = None

    def __post_init__(self) -> None:
        steps = [after - before for before, after in pairwise(self.stage_widths)]
        if len(steps) != STAGES - 1 or min(self.stage_widths) < 1 or any(step < 0 or step % 2 for step in steps):
            raise ValueError(
                f"widths is {list(self.stage_widths)}; give {STAGES}, none narrower than the one before, in even "
                "steps: a shortcut pads new channels with zeros, half before and half after."
            )

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
        return tuple(self.widths or (self.width * 2**stage for stage in range(STAGES)))

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
            return Stem(in_chans, self.stage_widths[0], device=device, dtype=dtype)
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

    def pieces(
        self,
        in_chans: int = 3,
        img_size: tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Pieces:
        """Build all blocks, see `osdtw_models.backbone.Backbone`.

        Returns:
            The pieces; the tasks part after the first two stages by default, where the field's multi-branch networks
            part, too.

        Raises:
            TypeError: If an image size or stochastic depth is asked for.
        """
        if img_size is not None or drop_path_rate:
            raise TypeError("CIFAR ResNets take images of any size and have no stochastic depth; leave both out.")
        ends = [1 + (stage + 1) * self.blocks_per_stage for stage in range(STAGES)]
        return Pieces(
            [self.block(i, in_chans, device, dtype) for i in range(1, self.num_blocks + 1)],
            [Level(end, width, 2**i) for i, (end, width) in enumerate(zip(ends, self.stage_widths, strict=True))],
            num_features=self.num_features,
            default_depth=ends[-2],
            first_conv="conv1",
            initialised=False,
        )

    def model_args(self) -> dict[str, Any]:
        """The widths, if they are not those of the name, which says all the rest."""
        return {} if self.widths is None else {"widths": list(self.widths)}


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
