"""How feature maps lie in memory, family by family, and how they are pooled."""

from __future__ import annotations

from enum import Enum

import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from timm.layers.pool1d import global_pool_nlc
from torch import Tensor, nn


class Layout(Enum):
    """Order of the dimensions of feature maps."""

    NCHW = "NCHW"
    """Images, channels, height, width: convolutional networks."""
    NHWC = "NHWC"
    """Channels last: Swin."""
    NLC = "NLC"
    """Images, tokens, channels: ViT, MLP-Mixer."""

    @property
    def channels(self) -> int:
        """The dimension of the channels."""
        return 1 if self is Layout.NCHW else -1

    def maps(self, x: Tensor, height: int, width: int, prefix_tokens: int = 0) -> Tensor:
        """Feature maps of any layout as (B, channels, height, width), without tokens that stand for no place."""
        if self is Layout.NCHW:
            return x
        if self is Layout.NLC:
            x = x[:, prefix_tokens:].unflatten(1, (height, width))
        return x.permute(0, 3, 1, 2).contiguous()


class TokenPool(nn.Module):
    """Pool tokens to one vector: ViT's class token, or the mean or maximum over the image's own tokens.

    Args:
        pool_type: "token", "avg", "max", or "" for none.
        prefix_tokens: Tokens before those of the image.
    """

    def __init__(self, pool_type: str, prefix_tokens: int) -> None:
        super().__init__()
        self.pool_type = pool_type
        self.prefix_tokens = prefix_tokens

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, C) -> (B, C)."""
        return global_pool_nlc(x, pool_type=self.pool_type, num_prefix_tokens=self.prefix_tokens)


class UnitLength(nn.Module):
    """Features scaled to length 1."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C) -> (B, C)."""
        return F.normalize(x)


def make_pool(pool_type: str, num_classes: int, layout: Layout, prefix_tokens: int) -> SelectAdaptivePool2d | TokenPool:
    """The pooling of a network.

    Args:
        pool_type: "avg" or "max"; "token" where there is a class token; "" for none, without classifiers only.
        num_classes: Number of classes; 0 = no classifiers.
        layout: Layout of the feature maps.
        prefix_tokens: Tokens before those of the image.

    Returns:
        A module with ``pool_type`` that maps feature maps to (B, channels).

    Raises:
        ValueError: If there is no such pooling.
    """
    known = ("token", "avg", "max") if prefix_tokens else ("avg", "max")
    if pool_type not in (*known, "") or (not pool_type and num_classes):
        named = " or ".join((", ".join(map(repr, known[:-1])), repr(known[-1])))
        raise ValueError(f"global_pool is {pool_type!r}; choose {named} ('' only without classifiers, num_classes=0).")
    if layout is Layout.NLC:
        return TokenPool(pool_type, prefix_tokens)
    return SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type), input_fmt=layout.value)
