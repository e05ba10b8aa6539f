"""Network -> what its file will say about itself."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import onnx
import safetensors.torch
import timm
import torch
from timm.data import resolve_model_data_config

import osdtw_models
from osdtw_export.metadata import Metadata
from osdtw_models import OsdtwNet


def describe(model: OsdtwNet, source: str, label_names: list[str] | None = None) -> Metadata:
    """Gather what the file will say about itself.

    Args:
        model: The network.
        source: Where its weights come from.
        label_names: Name of each class; by default those of the model's ``pretrained_cfg``, if any.

    Returns:
        The metadata.

    Raises:
        ValueError: If the label names or the preprocessing do not fit the network.
    """
    config = model.pretrained_cfg
    data = resolve_model_data_config(model)
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    return Metadata(
        architecture=config["architecture"],
        source=source,
        task_classes=model.partition.to_lists(),
        label_names=label_names or _own_labels(config, model.num_classes),
        shared_depth=model.shared_depth,
        fusion=model.fusion,
        input_size=(model.in_chans, *data["input_size"][1:]),
        mean=_per_channel(data["mean"], model.in_chans),
        std=_per_channel(data["std"], model.in_chans),
        crop_pct=data["crop_pct"],
        interpolation=data["interpolation"],
        weights_sha256=hashlib.sha256(safetensors.torch.save(weights)).hexdigest(),
        class_counts=model.class_counts,
        versions={package.__name__: str(package.__version__) for package in (osdtw_models, timm, torch, onnx)},
    )


def _own_labels(config: dict[str, Any], num_classes: int) -> list[str] | None:
    """Label names that came with the checkpoint; timm allows a list, or a dict from index to name."""
    if config.get("num_classes") != num_classes:
        return None  # the network got new classes since: the names are those of the old ones
    names = config.get("label_names")
    if isinstance(names, dict):
        if {str(key) for key in names} != {str(c) for c in range(num_classes)}:
            raise ValueError(f"label_names of the checkpoint must name the classes 0 to {num_classes - 1}.")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    return list(names) if names else None


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Preprocessing of a network with other channels than its config: the mean of the known ones, as in timm."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
