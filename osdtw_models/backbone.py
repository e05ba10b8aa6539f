"""A backbone is an ordered list of blocks that can be cut after any of them.

Block 1 is the stem, then comes one block per residual or transformer block. What follows the last block is no block: a
norm before pooling and a neck after it, which every decoder owns, as it owns its classifier.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from osdtw_models.pooling import Layout


def block_number(name: str) -> int:
    """Number of the block that a parameter belongs to ("encoder.block3.conv1.weight": 3), 0 outside all blocks."""
    found = re.search(r"\bblock(\d+)\.", name)
    return int(found.group(1)) if found else 0


@dataclass(frozen=True)
class Level:
    """A place that feature maps can be taken from.

    Args:
        block: Number of the block whose output it is.
        channels: Channels of that output.
        reduction: How many times smaller than the image it is.
    """

    block: int
    channels: int
    reduction: int


@dataclass
class Pieces:
    """A backbone in pieces.

    Args:
        blocks: Blocks 1 (the stem) to L.
        levels: Where feature maps can be taken, the last block last.
        num_features: Features after pooling and neck.
        default_depth: Shared depth if nobody says one.
        first_conv: Name of the first convolution inside block 1, as timm adapts it to other channels.
        norm: What follows the last block before pooling.
        neck: What follows pooling before the classifier.
        layout: Order of the dimensions of what runs between the blocks.
        prefix_tokens: Tokens before those of the image (a class token).
        pool: Pooling if nobody says one.
        initialised: Whether the blocks come as they shall be; if not, the network gives them their first values.
        undecayed: Parameters that take no weight decay, by name: "block1.pos_embed".
    """

    blocks: list[nn.Module]
    levels: list[Level]
    num_features: int
    default_depth: int
    first_conv: str
    norm: nn.Module = field(default_factory=nn.Identity)
    neck: nn.Module = field(default_factory=nn.Identity)
    layout: Layout = Layout.NCHW
    prefix_tokens: int = 0
    pool: str = "avg"
    initialised: bool = True
    undecayed: frozenset[str] = frozenset()


class Backbone(Protocol):
    """What a network is built of."""

    def pieces(
        self,
        in_chans: int = 3,
        img_size: tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Pieces:
        """Build all of it once.

        Args:
            in_chans: Channels of the images.
            img_size: Height and width of the images, for backbones of one image size only.
            drop_path_rate: Stochastic depth, for backbones that have it.
            device: Device of the parameters.
            dtype: Type of the parameters.

        Returns:
            The pieces.
        """

    def model_args(self) -> dict[str, Any]:
        """What the registered name must be told besides to build this backbone again; JSON-ready."""
