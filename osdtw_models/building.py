"""A registered name and the user's arguments -> a network, through timm's builder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg, get_pretrained_cfg, is_model, resolve_pretrained_cfg

from osdtw_models.backbone import Backbone
from osdtw_models.checkpoint import convert_checkpoint
from osdtw_models.class_counts import checked_counts
from osdtw_models.hub import fetch
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_models.releases import WEIGHTS, released_args
from osdtw_models.timm_backbone import TimmBackbone

# What says in timm's pretrained config where weights come from, and what the images must be like for them.
SOURCES = ("file", "url", "hf_hub_id", "hf_hub_filename", "state_dict", "source")
PREPARATION = ("input_size", "fixed_input_size", "pool_size", "interpolation", "crop_pct", "mean", "std")


def build(name: str, backbone: Backbone, pretrained: bool, levels: int, **kwargs: Any) -> OsdtwNet:
    """Build a registered network.

    Args:
        name: Registered name.
        backbone: What to cut.
        pretrained: Whether to load the released weights of the name, or those that timm found for it.
        levels: Feature levels that ``features_only`` gives if nobody says which: the last ones.
        **kwargs: Arguments of timm's builder and of `OsdtwNet`.

    Returns:
        The network.

    Raises:
        ValueError: If weights are wanted that do not exist.
    """
    if kwargs.pop("backbone_pretrained", False):
        raise ValueError(f"timm has no weights of the backbone of {name}; start from scratch.")
    if hasattr(kwargs.get("task_classes"), "tolist"):  # of arrays, too
        kwargs["task_classes"] = kwargs["task_classes"].tolist()
    if kwargs.get("class_counts") is not None:
        kwargs["class_counts"] = checked_counts(kwargs["class_counts"])  # an array compares element-wise
    if "num_classes" not in kwargs:  # who says how often each class is, or which task it is in, has said how many
        if kwargs.get("task_classes") is not None:
            kwargs["num_classes"] = ClassPartition(kwargs["task_classes"]).num_classes
        elif kwargs.get("class_counts") is not None:
            kwargs["num_classes"] = len(kwargs["class_counts"])
    saved = saved_args(name, pretrained, kwargs)
    if saved:
        own = backbone.model_args()  # are in the backbone already
        kwargs = _under_users_arguments({key: value for key, value in saved.items() if key not in own}, kwargs)
    kwargs.setdefault("shared_depth", None)
    if pretrained:
        kwargs["pretrained_cfg_overlay"] = _fetched(name, kwargs)
    model: OsdtwNet = build_model_with_cfg(
        OsdtwNet,
        name,
        pretrained,
        backbone=backbone,
        feature_cfg={"out_indices": levels, "feature_cls": "getter"},
        pretrained_filter_fn=convert_checkpoint,
        **kwargs,
    )
    tell_size(model)
    return model


def saved_args(name: str, pretrained: bool, kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Arguments that the wanted weights were saved with: those that timm found beside them, or a release's.

    Args:
        name: Registered name.
        pretrained: Whether weights are wanted.
        kwargs: Arguments of timm's builder.

    Returns:
        The arguments; None if nothing is known of them.
    """
    cfg, saved = kwargs.get("pretrained_cfg"), kwargs.get("pretrained_model_args")
    if pretrained and saved is None and not isinstance(cfg, dict):
        return released_args(f"{name}.{cfg or getattr(get_pretrained_cfg(name), 'tag', '')}")
    return saved


def _fetched(name: str, kwargs: dict[str, Any]) -> dict[str, Any] | None:
    """Weights that lie on the Hub, fetched: timm itself would take a pickle where there is nothing else, unchecked.

    Returns:
        Changes of timm's pretrained config: the user's own, and the file.

    Raises:
        FileNotFoundError: If the repository has no safetensors.
    """
    overlay = kwargs.get("pretrained_cfg_overlay")
    cfg = resolve_pretrained_cfg(name, kwargs.get("pretrained_cfg"), overlay)
    if not cfg.hf_hub_id or (cfg.source != "hf-hub" and (cfg.file or cfg.state_dict)):
        return overlay
    file = fetch(cfg.hf_hub_id, kwargs.get("cache_dir")) / WEIGHTS
    if not file.is_file():
        raise FileNotFoundError(f"hf-hub:{cfg.hf_hub_id} has no {WEIGHTS}, and no other weights are opened.")
    return {**(overlay or {}), "file": str(file), "source": ""}


def tell_size(model: Any) -> None:
    """Let a network of one image size say in its config which size that is, not which its name has by default."""
    size = model._traits.get("img_size")
    if size is not None:
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (model.in_chans, *size)}


def build_from_timm(
    name: str,
    timm_name: str,
    pretrained: bool,
    levels: int = 4,
    fixed: dict[str, Any] | None = None,
    named: bool = False,
    backbone_pretrained: bool | str = False,
    backbone_args: dict[str, Any] | None = None,
    **kwargs: Any,
) -> OsdtwNet:
    """Build a registered network over one of timm's models.

    Args:
        name: Registered name.
        timm_name: timm's name of the backbone.
        pretrained: See `build`.
        levels: See `build`.
        fixed: Arguments of timm's model that belong to the name.
        named: Whether ``timm_name`` is an argument of the user.
        backbone_pretrained: Start from timm's weights of the backbone, or of one of its tags; where they come from,
            ``pretrained_cfg_overlay`` may say. Never saved: a saved network has its own weights.
        backbone_args: More arguments of timm's model.
        **kwargs: See `build`.

    Returns:
        The network.

    Raises:
        ValueError: If two kinds of weights are asked for at once, or timm has none of this backbone; if other widths
            are asked for.
    """
    if kwargs.pop("widths", None) is not None:
        raise ValueError(f"{name} is one of timm's models, whose widths are fixed; leave widths out.")
    overlay = dict(kwargs.pop("pretrained_cfg_overlay", None) or {})
    weights = {}
    if backbone_pretrained:
        if pretrained:
            raise ValueError("pretrained and backbone_pretrained are two kinds of weights; choose one of them.")
        weights = {key: overlay.pop(key) for key in SOURCES if key in overlay}
        if fixed and not weights:
            raise ValueError(f"timm has no weights of the backbone of {name}; start from scratch.")
    if isinstance(backbone_pretrained, str):
        timm_name = f"{timm_name}.{backbone_pretrained}"
    if timm_name != name.removeprefix("osdtw_") and not fixed and not isinstance(kwargs.get("pretrained_cfg"), dict):
        overlay = {**photo_cfg(timm_name), **overlay}
    backbone = TimmBackbone(timm_name, fixed or {}, backbone_args or {}, named, bool(backbone_pretrained), weights)
    return build(name, backbone, pretrained, levels, pretrained_cfg_overlay=overlay or None, **kwargs)


def photo_cfg(timm_name: str) -> dict[str, Any]:
    """Pretrained config of a network over a backbone of timm's: images as that backbone's own weights want them.

    Args:
        timm_name: timm's name, with or without tag.

    Returns:
        Entries of timm's pretrained config.

    Raises:
        ValueError: If timm has no such model.
    """
    if not is_model(timm_name):
        raise ValueError(f"timm has no model {timm_name!r}; timm.list_models() lists all.")
    cfg = get_pretrained_cfg(timm_name).to_dict()  # type: ignore[union-attr]
    known = {key: cfg[key] for key in PREPARATION if cfg.get(key) is not None}
    return {**known, "first_conv": f"encoder.block1.{cfg['first_conv']}"}


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
    old = ClassPartition(saved["task_classes"])
    old_classes = old.num_classes
    num_classes = given.get("num_classes") or old_classes
    if num_classes != old_classes:
        plan.pop("class_counts", None)
        plan.pop("logit_offsets", None)
        plan.pop("calibration", None)
    if "task_classes" not in given and (num_classes != old_classes or "class_counts" in given):
        plan["task_classes"] = old.renewed(num_classes, given.get("class_counts")).to_lists()
    return {**plan, **given}
