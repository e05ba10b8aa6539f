"""K equal decoders -> one decoder that is K times as wide.

Maps of all tasks lie side by side in the channels, K convolutions become one of K groups (or one dense convolution
whose weights are zero between the tasks), K classifiers one. A GPU then starts as many kernels as for the plain
backbone. What works on each channel by itself need not change; what mixes channels and is no convolution cannot be
packed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from timm.layers import BatchNormAct2d, DropPath, SelectAdaptivePool2d, activations
from torch import Tensor, nn

from osdtw_models import OsdtwNet
from osdtw_models.pooling import Layout

CHANNELWISE = (
    *(nn.Identity, nn.Dropout, DropPath, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, nn.Tanh),
    *(activations.Swish, activations.GELU, activations.Sigmoid, activations.HardSwish, activations.HardSigmoid),
)
BATCH_NORMS = (nn.BatchNorm2d, BatchNormAct2d)
SAME = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
TOLERANCE = 1e-4  # relative to the largest logit


class UnpackableError(ValueError):
    """Decoders that cannot be packed; says why."""


class Separate(nn.Module):
    """Task logits, one decoder after the other.

    Args:
        network: The network.
    """

    def __init__(self, network: OsdtwNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> K tensors (B, outputs)."""
        shared = self.network.forward_encoder(x)
        return [self.network.forward_decoder(shared, k) for k in self.network.tasks]


class Packed(nn.Module):
    """Task logits, all decoders at once.

    Args:
        network: The network; its modules are shared or copied, never changed.
        dense: Whether convolutions are dense instead of grouped.

    Raises:
        UnpackableError: If the decoders cannot be packed.
    """

    def __init__(self, network: OsdtwNet, dense: bool) -> None:
        super().__init__()
        branches = network.branches
        if len(branches) == 1:
            raise UnpackableError("there is one task only")
        if network.layout is not Layout.NCHW:
            raise UnpackableError("its maps have their channels last")
        self.encoder, self.pool = network.encoder, cast("SelectAdaptivePool2d", network.global_pool)
        own = [nn.Sequential(*branch.block_list(), branch.norm) for branch in branches]
        # With nothing but classifiers of their own the tasks share all features: no copies to make.
        self.shares_all = all(type(module) is nn.Identity for module in own[0])
        self.decoder = merge(own, dense)
        self.necks = nn.ModuleList(branch.neck for branch in branches)
        self.plain_necks = all(type(neck) is nn.Identity for neck in self.necks)
        if any(type(branch.classifier) is not nn.Linear or branch.classifier.bias is None for branch in branches):
            raise UnpackableError("its classifiers are no linear layers")
        classifiers = [cast("nn.Linear", branch.classifier) for branch in branches]
        self.sizes = [classifier.out_features for classifier in classifiers]
        self.classifier = _merge_linear(classifiers, shared=self.shares_all and self.plain_necks)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, C, H, W) -> K tensors (B, outputs)."""
        shared = self.encoder(x)
        maps = self.decoder(shared if self.shares_all else torch.cat([shared] * len(self.sizes), dim=1))
        features = self.pool(maps)
        if not self.plain_necks:
            number = len(self.necks)
            parts = [features] * number if self.shares_all else features.chunk(number, dim=1)
            features = torch.cat([neck(part) for neck, part in zip(self.necks, parts, strict=True)], dim=1)
        return list(self.classifier(features).split(self.sizes, dim=1))


@torch.no_grad()
def pack(network: OsdtwNet, packing: str, images: Tensor) -> tuple[nn.Module, str, str]:
    """The network's task logits, packed if that is wanted and possible.

    Args:
        network: The network in eval mode, batch norms folded.
        packing: "none", "grouped" or "dense".
        images: Images on which packed and separate decoders must agree, shape (B, C, H, W).

    Returns:
        A module from images to the K task logits, the packing that it has, and why it is none, "" if that was asked.
    """
    separate = Separate(network)
    if packing == "none":
        return separate, "none", ""
    try:
        packed = Packed(network, packing == "dense").eval()
    except UnpackableError as error:
        return separate, "none", str(error)
    for ours, theirs in zip(separate(images), packed(images), strict=True):
        if not (ours - theirs).abs().max() <= TOLERANCE * max(1.0, ours.abs().max().item()):
            return separate, "none", "its blocks mix channels"
    return packed, packing, ""


def merge(modules: Sequence[nn.Module], dense: bool) -> nn.Module:
    """K equal modules -> one that does to K maps side by side what each of them does to its own.

    Args:
        modules: The K modules.
        dense: Whether convolutions are dense instead of grouped.

    Returns:
        The module.

    Raises:
        UnpackableError: If they differ, or are of a kind that mixes channels.
    """
    first = modules[0]
    if any(type(module) is not type(first) for module in modules):
        raise UnpackableError("its decoders differ")
    if type(first) is nn.Conv2d:
        return _merge_convolutions(cast("Sequence[nn.Conv2d]", modules), dense)
    if isinstance(first, BATCH_NORMS):
        return _merge_norms(cast("Sequence[nn.BatchNorm2d]", modules))
    if isinstance(first, CHANNELWISE):
        return first
    children = [dict(module.named_children()) for module in modules]
    if any(each.keys() != children[0].keys() for each in children):
        raise UnpackableError("its decoders differ")
    leaf = not children[0] and not isinstance(first, nn.Sequential)
    if leaf or first._parameters or first._buffers:
        raise UnpackableError(f"it has a {type(first).__name__} in its decoders")
    # The family's own code runs on: it only finds wider modules inside.
    merged = copy.copy(first)
    merged._modules = {name: merge([each[name] for each in children], dense) for name in children[0]}
    return merged


def _merge_convolutions(convs: Sequence[nn.Conv2d], dense: bool) -> nn.Conv2d:
    first, number = convs[0], len(convs)
    if any(getattr(conv, name) != getattr(first, name) for conv in convs for name in SAME):
        raise UnpackableError("its decoders differ")
    merged = copy.deepcopy(first)
    merged.in_channels, merged.out_channels = number * first.in_channels, number * first.out_channels
    weights = [conv.weight.detach() for conv in convs]
    merged.groups = number * first.groups
    weight = torch.cat(weights)
    if dense and first.groups == 1:
        merged.groups = 1
        weight = weight.new_zeros(merged.out_channels, merged.in_channels, *first.kernel_size)
        for k, each in enumerate(weights):
            rows, columns = k * first.out_channels, k * first.in_channels
            weight[rows : rows + first.out_channels, columns : columns + first.in_channels] = each
    merged.weight = nn.Parameter(weight)
    if first.bias is not None:
        merged.bias = nn.Parameter(torch.cat([cast("Tensor", conv.bias).detach() for conv in convs]))
    return merged


def _merge_norms(norms: Sequence[nn.BatchNorm2d]) -> nn.BatchNorm2d:
    """Batch norms that nothing could be folded into."""
    merged = copy.deepcopy(norms[0])
    merged.num_features = sum(norm.num_features for norm in norms)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if (own := getattr(merged, name)) is not None:
            values = torch.cat([getattr(norm, name).detach() for norm in norms])
            setattr(merged, name, nn.Parameter(values) if isinstance(own, nn.Parameter) else values)
    return merged


def _merge_linear(classifiers: Sequence[nn.Linear], shared: bool) -> nn.Linear:
    """One classifier: of the same features, or block-diagonal."""
    weights = [classifier.weight.detach() for classifier in classifiers]
    weight = torch.cat(weights) if shared else torch.block_diag(*weights)
    merged = nn.Linear(weight.shape[1], weight.shape[0], device=weight.device, dtype=weight.dtype)
    merged.weight = nn.Parameter(weight)
    merged.bias = nn.Parameter(torch.cat([classifier.bias.detach() for classifier in classifiers]))
    return merged
