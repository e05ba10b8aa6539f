"""The names that timm knows: one entry point per architecture, one tag per released checkpoint.

timm has no plug-in discovery: ``import osdtw_models`` runs this file, and from then on
``timm.create_model("osdtw_resnet32", pretrained=True)`` works. Each name is ``osdtw_`` and timm's name of the backbone
(or the protocol's, for CIFAR). Released checkpoints are folders in ``weights/`` (see `osdtw_models.releases`), on the
Hub once they are published; their plan (widths, shared depth, tasks, fusion, calibration) is the default of a
pretrained model. Where nothing is said, fusion is "raw", and the tasks share all stages but the last (three quarters
of a ViT's blocks): there the field's multi-branch networks part, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from timm.models import generate_default_cfgs, register_model

from osdtw_models.building import build, build_from_timm, photo_cfg, saved_args
from osdtw_models.cifar import STAGES, CifarResNet
from osdtw_models.network import OsdtwNet
from osdtw_models.releases import weight_sources

CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)
VIT_LEVELS = 3
OURS = {
    "classifier": ("decoders.0.classifier", "decoders.1.classifier"),
    "paper_ids": "arXiv:2605.24969",
}


def _cifar(release: str = "") -> dict[str, Any]:
    """timm's pretrained config of a 32x32 network; ``release`` names a folder of ``weights/``."""
    cfg: dict[str, Any] = {
        **OURS,
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
        "first_conv": "encoder.block1.conv1",
        "license": "apache-2.0",
    }
    return {**cfg, **weight_sources(release)} if release else cfg


def _photo(timm_name: str) -> dict[str, Any]:
    """The same of a network over a backbone of timm's."""
    return {**OURS, "num_classes": 1000, **photo_cfg(timm_name)}


default_cfgs = generate_default_cfgs(
    {
        "osdtw_resnet14": _cifar(),
        "osdtw_resnet20": _cifar(),
        "osdtw_resnet32.cifar100_lt_if100": _cifar("osdtw_resnet32.cifar100_lt_if100"),
        "osdtw_resnet32.cifar100_lt_if50": _cifar("osdtw_resnet32.cifar100_lt_if50"),
        "osdtw_resnet32.cifar100_lt_if10": _cifar("osdtw_resnet32.cifar100_lt_if10"),
        "osdtw_resnet32_w64": _cifar(),
        "osdtw_resnet44": _cifar(),
        "osdtw_resnet56": _cifar(),
        "osdtw_resnet110": _cifar(),
        "osdtw_resnet10": _photo("resnet18"),
        "osdtw_resnet18": _photo("resnet18"),
        "osdtw_resnet34": _photo("resnet34"),
        "osdtw_resnet50": _photo("resnet50"),
        "osdtw_resnet101": _photo("resnet101"),
        "osdtw_resnet152": _photo("resnet152"),
        "osdtw_resnext50_32x4d": _photo("resnext50_32x4d"),
        "osdtw_convnext_tiny": _photo("convnext_tiny"),
        "osdtw_convnext_small": _photo("convnext_small"),
        "osdtw_convnext_base": _photo("convnext_base"),
        "osdtw_vit_small_patch16_224": _photo("vit_small_patch16_224"),
        "osdtw_vit_base_patch16_224": _photo("vit_base_patch16_224"),
        "osdtw_vit_base_patch16_clip_224": _photo("vit_base_patch16_clip_224"),
        "osdtw_timm": _photo("resnet50"),
    }
)


def _build_cifar(
    name: str, backbone: CifarResNet, pretrained: bool, widths: Sequence[int] | None = None, **kwargs: Any
) -> OsdtwNet:
    """A CIFAR ResNet, its stages of other ``widths`` than the name's if any are given, or its weights have others."""
    saved = saved_args(name, pretrained, kwargs)
    kept = replace(backbone, widths=(saved or {}).get("widths"))
    wanted = kept if widths is None else replace(backbone, widths=widths)
    if pretrained and saved and wanted.stage_widths != kept.stage_widths:
        raise ValueError(
            f"The weights of {name} have the widths {list(kept.stage_widths)}, not {list(wanted.stage_widths)}; leave "
            "widths out, or start from scratch."
        )
    return build(name, wanted, pretrained, STAGES, **kwargs)


@register_model
def osdtw_resnet14(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-14: 7 blocks, 5 shared by default."""
    return _build_cifar("osdtw_resnet14", CifarResNet(14), pretrained, **kwargs)


@register_model
def osdtw_resnet20(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-20: 10 blocks, 7 shared by default."""
    return _build_cifar("osdtw_resnet20", CifarResNet(20), pretrained, **kwargs)


@register_model
def osdtw_resnet32(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-32: 16 blocks, 11 shared by default."""
    return _build_cifar("osdtw_resnet32", CifarResNet(32), pretrained, **kwargs)


@register_model
def osdtw_resnet32_w64(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-32 of four times the width: 16 blocks, 11 shared by default."""
    return _build_cifar("osdtw_resnet32_w64", CifarResNet(32, width=64), pretrained, **kwargs)


@register_model
def osdtw_resnet44(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-44: 22 blocks, 15 shared by default."""
    return _build_cifar("osdtw_resnet44", CifarResNet(44), pretrained, **kwargs)


@register_model
def osdtw_resnet56(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-56: 28 blocks, 19 shared by default."""
    return _build_cifar("osdtw_resnet56", CifarResNet(56), pretrained, **kwargs)


@register_model
def osdtw_resnet110(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-110: 55 blocks, 37 shared by default."""
    return _build_cifar("osdtw_resnet110", CifarResNet(110), pretrained, **kwargs)


@register_model
def osdtw_resnet10(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNet-10 (stages of one basic block): 5 blocks, 4 shared by default."""
    return build_from_timm("osdtw_resnet10", "resnet18", pretrained, fixed={"layers": (1, 1, 1, 1)}, **kwargs)


@register_model
def osdtw_resnet18(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNet-18: 9 blocks, 7 shared by default."""
    return build_from_timm("osdtw_resnet18", "resnet18", pretrained, **kwargs)


@register_model
def osdtw_resnet34(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNet-34: 17 blocks, 14 shared by default."""
    return build_from_timm("osdtw_resnet34", "resnet34", pretrained, **kwargs)


@register_model
def osdtw_resnet50(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNet-50: 17 blocks, 14 shared by default."""
    return build_from_timm("osdtw_resnet50", "resnet50", pretrained, **kwargs)


@register_model
def osdtw_resnet101(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNet-101: 34 blocks, 31 shared by default."""
    return build_from_timm("osdtw_resnet101", "resnet101", pretrained, **kwargs)


@register_model
def osdtw_resnet152(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNet-152: 51 blocks, 48 shared by default."""
    return build_from_timm("osdtw_resnet152", "resnet152", pretrained, **kwargs)


@register_model
def osdtw_resnext50_32x4d(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ResNeXt-50 (32x4d): 17 blocks, 14 shared by default."""
    return build_from_timm("osdtw_resnext50_32x4d", "resnext50_32x4d", pretrained, **kwargs)


@register_model
def osdtw_convnext_tiny(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ConvNeXt-T: 19 blocks, 16 shared by default."""
    return build_from_timm("osdtw_convnext_tiny", "convnext_tiny", pretrained, **kwargs)


@register_model
def osdtw_convnext_small(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ConvNeXt-S: 37 blocks, 34 shared by default."""
    return build_from_timm("osdtw_convnext_small", "convnext_small", pretrained, **kwargs)


@register_model
def osdtw_convnext_base(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ConvNeXt-B: 37 blocks, 34 shared by default."""
    return build_from_timm("osdtw_convnext_base", "convnext_base", pretrained, **kwargs)


@register_model
def osdtw_vit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ViT-S/16: 13 blocks, 10 shared by default."""
    return build_from_timm("osdtw_vit_small_patch16_224", "vit_small_patch16_224", pretrained, VIT_LEVELS, **kwargs)


@register_model
def osdtw_vit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ViT-B/16: 13 blocks, 10 shared by default."""
    return build_from_timm("osdtw_vit_base_patch16_224", "vit_base_patch16_224", pretrained, VIT_LEVELS, **kwargs)


@register_model
def osdtw_vit_base_patch16_clip_224(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """ViT-B/16 as CLIP has it: 13 blocks, 10 shared by default."""
    return build_from_timm(
        "osdtw_vit_base_patch16_clip_224", "vit_base_patch16_clip_224", pretrained, VIT_LEVELS, **kwargs
    )


@register_model
def osdtw_timm(pretrained: bool = False, backbone: str = "resnet50", **kwargs: Any) -> OsdtwNet:
    """Any model of timm's that can be cut, by its name; the name of networks that `decouple` made."""
    return build_from_timm("osdtw_timm", backbone, pretrained, 3, named=True, **kwargs)
