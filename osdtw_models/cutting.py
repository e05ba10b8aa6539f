"""Where timm's models can be cut, family by family.

A family is a class of timm's, matched exactly: a subclass may run its blocks in another way. Each function takes a
model apart: the blocks go out of it one by one, norm and head too, and what is left of the model is the stem, which
still runs timm's own code (ViT's position embedding, ResNet's pooling).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from timm.models.convnext import ConvNeXt
from timm.models.efficientnet import EfficientNet
from timm.models.mlp_mixer import MlpMixer
from timm.models.regnet import RegNet
from timm.models.resnet import ResNet
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from osdtw_models.backbone import Level, Pieces
from osdtw_models.pooling import Layout


def cut(model: nn.Module) -> Pieces:
    """Take a timm model apart.

    Args:
        model: The model; used up. Its classifier is not among the pieces.

    Returns:
        Its pieces: run one after another, with its pooling, they give the features of the model.

    Raises:
        ValueError: If the blocks of such a model cannot be listed, or it pools in a way of its own.
    """
    taking_apart = FAMILIES.get(type(model))
    if taking_apart is None:
        known = ", ".join(sorted(family.__name__ for family in FAMILIES))
        raise ValueError(
            f"The blocks of a {type(model).__name__} cannot be listed; these families of timm can be cut: {known}."
        )
    body: Any = model
    undecayed = {id(p): n for n, p in body.named_parameters() if n in getattr(body, "no_weight_decay", set)()}
    first_conv = body._traits["first_conv"]
    pieces = taking_apart(body)
    pieces.first_conv = first_conv
    pieces.undecayed = frozenset(
        f"block{number}.{name}"
        for number, block in enumerate(pieces.blocks, 1)
        for name, parameter in block.named_parameters()
        if id(parameter) in undecayed
    )
    return pieces


def _resnet(model: Any) -> Pieces:
    stages = [list(getattr(model, info["module"])) for info in model.feature_info[1:]]
    for info in model.feature_info[1:]:
        setattr(model, info["module"], nn.Sequential())
    pool = model.global_pool.pool_type
    model.reset_classifier(0, "")
    return _staged(model, stages, pool=pool)


def _regnet(model: Any) -> Pieces:
    stages = [list(getattr(model, f"s{number}").children()) for number in range(1, 5)]
    for number in range(1, 5):
        setattr(model, f"s{number}", nn.Sequential())
    norm, model.final_conv = model.final_conv, nn.Identity()
    pool = model.head.global_pool.pool_type
    model.head = _Headless()
    return _staged(model, stages, norm=norm, pool=pool)


def _efficientnet(model: Any) -> Pieces:
    # timm's levels are where the resolution changes; each ends one stage or several.
    ends = [1 + int(info["module"].split(".")[1]) for info in model.feature_info]
    stages = [
        [block for stage in model.blocks[start:end] for block in stage]
        for start, end in zip([0, *ends], ends, strict=False)
    ]
    norm = nn.Sequential(model.conv_head, model.bn2)
    pool = model.global_pool.pool_type
    model.blocks, model.conv_head, model.bn2 = nn.Sequential(), nn.Identity(), nn.Identity()
    model.reset_classifier(0, "")
    return _staged(model, stages, norm=norm, pool=pool)


def _convnext(model: Any) -> Pieces:
    stages = []
    for stage in model.stages:
        blocks = list(stage.blocks)
        if not isinstance(stage.downsample, nn.Identity):
            blocks[0] = nn.Sequential(stage.downsample, blocks[0])
        stages.append(blocks)
    norm, pool = model.norm_pre, model.head.global_pool.pool_type
    neck: nn.Module = nn.Identity()
    if hasattr(model.head, "norm"):  # after pooling, on maps of one pixel
        neck = nn.Sequential(nn.Unflatten(1, (model.num_features, 1, 1)), model.head.norm, nn.Flatten(1))
        if not isinstance(model.head.pre_logits, nn.Identity):
            raise ValueError("This ConvNeXt has a hidden layer before its classifier; create it without one.")
    model.stages, model.norm_pre, model.head = nn.Sequential(), nn.Identity(), _Headless()
    return _staged(model, stages, norm=norm, neck=neck, pool=pool)


def _vision_transformer(model: Any) -> Pieces:
    if model.attn_pool is not None or model.pool_include_prefix:
        raise ValueError(
            "This VisionTransformer pools in a way that decoders have not; create it with global_pool 'token' or 'avg'."
        )
    pieces = _tokens(model, neck=model.fc_norm, pool=model.global_pool)
    pieces.prefix_tokens = model.num_prefix_tokens
    model.fc_norm = nn.Identity()
    return pieces


def _mixer(model: Any) -> Pieces:
    return _tokens(model, neck=nn.Identity(), pool=model.global_pool)


def _swin(model: Any) -> Pieces:
    stages = []
    for stage in model.layers:
        blocks = list(stage.blocks)
        if not isinstance(stage.downsample, nn.Identity):
            blocks[0] = nn.Sequential(stage.downsample, blocks[0])
        stages.append(blocks)
    norm, pool = model.norm, model.head.global_pool.pool_type
    model.layers, model.norm, model.head = nn.Sequential(), nn.Identity(), _Headless()
    pieces = _staged(model, stages, norm=norm, pool=pool)
    pieces.layout = Layout.NHWC
    return pieces


FAMILIES: dict[type[nn.Module], Callable[[Any], Pieces]] = {
    ConvNeXt: _convnext,
    EfficientNet: _efficientnet,
    MlpMixer: _mixer,
    RegNet: _regnet,
    ResNet: _resnet,
    SwinTransformer: _swin,
    VisionTransformer: _vision_transformer,
}


class _Headless(nn.Identity):
    """In place of a head: feature maps come out as they are."""


def _staged(stem: Any, stages: Sequence[Sequence[nn.Module]], **rest: Any) -> Pieces:
    """Pieces of a network of several resolutions; the tasks part after the last stage but one by default."""
    infos = stem.feature_info[-len(stages) :]
    ends = [1 + sum(len(stage) for stage in stages[: number + 1]) for number in range(len(stages))]
    levels = [Level(end, info["num_chs"], info["reduction"]) for end, info in zip(ends, infos, strict=True)]
    blocks = [stem, *(block for stage in stages for block in stage)]
    return Pieces(blocks, levels, stem.num_features, default_depth=ends[-2], first_conv="", **rest)


def _tokens(stem: Any, neck: nn.Module, pool: str) -> Pieces:
    """Pieces of a network of one resolution; three quarters of the blocks are shared by default."""
    blocks, norm = list(stem.blocks), stem.norm
    levels = [Level(i, info["num_chs"], info["reduction"]) for i, info in enumerate(stem.feature_info, 2)]
    stem.blocks, stem.norm = nn.Sequential(), nn.Identity()
    stem.reset_classifier(0, "")
    depth = 1 + len(blocks) * 3 // 4
    return Pieces(
        [stem, *blocks],
        levels,
        stem.num_features,
        default_depth=depth,
        first_conv="",
        norm=norm,
        neck=neck,
        layout=Layout.NLC,
        pool=pool,
    )
