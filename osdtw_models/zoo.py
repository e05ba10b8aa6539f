"""The names that timm knows: one entry point per architecture, one tag per released checkpoint.

timm has no plug-in discovery: ``import osdtw_models`` runs this file, and from then on
``timm.create_model("osdtw_resnet32", pretrained=True)`` works. Released checkpoints are folders in
``weights/`` named ``architecture.tag``, each with ``model.safetensors`` and timm's ``config.json``; their plan
(shared depth, tasks, fusion) is the default of a pretrained model.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from osdtw_models.backbone import CifarResNet
from osdtw_models.checkpoint import convert_checkpoint
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition

WEIGHTS = Path(__file__).parent / "weights"
CIFAR_MEAN = (0.4914, 0.4822, 0.4465)
CIFAR_STD = (0.2023, 0.1994, 0.2010)


def _cfg(release: str = "") -> dict[str, Any]:
    """timm's pretrained config of a 32x32 network; ``release`` names a folder of `WEIGHTS`."""
    cfg: dict[str, Any] = {
        "num_classes": 100,
        "input_size": (3, 32, 32),
        "pool_size": (8, 8),
        "crop_pct": 1.0,
        "interpolation": "bilinear",
        "mean": CIFAR_MEAN,
        "std": CIFAR_STD,
        "first_conv": "encoder.block1.conv1",
        "classifier": ("decoders.0.classifier", "decoders.1.classifier"),
        "license": "apache-2.0",
        "paper_ids": "arXiv:2605.24969",
    }
    if release:
        cfg["file"] = str(WEIGHTS / release / "model.safetensors")
    return cfg


default_cfgs = generate_default_cfgs(
    {
        "osdtw_resnet14": _cfg(),
        "osdtw_resnet20": _cfg(),
        "osdtw_resnet32.cifar100_lt_if100": _cfg("osdtw_resnet32.cifar100_lt_if100"),
        "osdtw_resnet32_w64": _cfg(),
        "osdtw_resnet44": _cfg(),
        "osdtw_resnet56": _cfg(),
        "osdtw_resnet110": _cfg(),
    }
)


def _create(name: str, backbone: CifarResNet, pretrained: bool, **kwargs: Any) -> OsdtwNet:
    if kwargs.get("class_counts") is not None:
        kwargs["class_counts"] = [int(count) for count in kwargs["class_counts"]]  # an array compares element-wise
    cfg = kwargs.get("pretrained_cfg")
    saved = kwargs.get("pretrained_model_args")
    if pretrained and saved is None and not isinstance(cfg, dict):
        saved = released_args(name, str(cfg) if cfg else None)
    if saved:
        kwargs = _under_users_arguments(saved, kwargs)
    # Deeper than the first two stages the tasks part: where the field's multi-branch networks part, too.
    kwargs.setdefault("shared_depth", 1 + 2 * backbone.blocks_per_stage)
    model: OsdtwNet = build_model_with_cfg(
        OsdtwNet,
        name,
        pretrained,
        backbone=backbone,
        feature_cfg={"out_indices": tuple(range(len(backbone.feature_info()))), "feature_cls": "getter"},
        pretrained_filter_fn=convert_checkpoint,
        **kwargs,
    )
    return model


def _under_users_arguments(saved: dict[str, Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """Put a checkpoint's plan under the arguments of the user.

    timm has copied the plan of a ``config.json`` into ``kwargs`` already, so an argument that equals the saved one
    counts as not given. New classes or counts are split into the checkpoint's number of tasks, for its decoders are
    as many; whether the tasks agree with the checkpoint is checked at loading.

    Returns:
        The arguments to build the network with.
    """
    given = {key: value for key, value in kwargs.items() if key not in saved or value != saved[key]}
    plan = dict(saved)
    old_classes = sum(len(task) for task in saved["task_classes"])
    num_classes = given.get("num_classes") or old_classes
    if num_classes != old_classes:
        plan.pop("class_counts", None)
        plan.pop("logit_offsets", None)
    if "task_classes" not in given and (num_classes != old_classes or "class_counts" in given):
        counts = given.get("class_counts")
        partition = ClassPartition.resolve(num_classes, class_counts=counts, num_tasks=len(saved["task_classes"]))
        plan["task_classes"] = partition.to_lists()
    return {**plan, **given}


def released_args(name: str, tag: str | None = None) -> dict[str, Any] | None:
    """Model arguments of a released checkpoint (its plan), or None if there is none under that name."""
    if tag is None:
        tag = default_cfgs[name].tags[0] if default_cfgs[name].tags else ""
    config = WEIGHTS / f"{name}.{tag}" / "config.json"
    if not config.is_file():
        return None
    args: dict[str, Any] = json.loads(config.read_text())["model_args"]
    return args


@register_model
def osdtw_resnet14(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-14 (7 blocks) as an OSDTW network; the tasks part after 5 blocks by default."""
    return _create("osdtw_resnet14", CifarResNet(14), pretrained, **kwargs)


@register_model
def osdtw_resnet20(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-20 (10 blocks) as an OSDTW network; the tasks part after 7 blocks by default."""
    return _create("osdtw_resnet20", CifarResNet(20), pretrained, **kwargs)


@register_model
def osdtw_resnet32(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-32 (16 blocks) as an OSDTW network; the tasks part after 11 blocks by default."""
    return _create("osdtw_resnet32", CifarResNet(32), pretrained, **kwargs)


@register_model
def osdtw_resnet32_w64(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-32 of four times the width (64, 128, 256 channels); the tasks part after 11 blocks by default."""
    return _create("osdtw_resnet32_w64", CifarResNet(32, width=64), pretrained, **kwargs)


@register_model
def osdtw_resnet44(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-44 (22 blocks) as an OSDTW network; the tasks part after 15 blocks by default."""
    return _create("osdtw_resnet44", CifarResNet(44), pretrained, **kwargs)


@register_model
def osdtw_resnet56(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-56 (28 blocks) as an OSDTW network; the tasks part after 19 blocks by default."""
    return _create("osdtw_resnet56", CifarResNet(56), pretrained, **kwargs)


@register_model
def osdtw_resnet110(pretrained: bool = False, **kwargs: Any) -> OsdtwNet:
    """CIFAR ResNet-110 (55 blocks) as an OSDTW network; the tasks part after 37 blocks by default."""
    return _create("osdtw_resnet110", CifarResNet(110), pretrained, **kwargs)
