"""A trained timm model -> an OSDTW network that answers the same, ready for its decoders to part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from osdtw_models.building import tell_size
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_models.timm_backbone import GivenBackbone


def decouple(
    model: nn.Module,
    shared_depth: int | None = None,
    partition: ClassPartition | Sequence[Sequence[int]] | None = None,
    class_counts: Sequence[int] | None = None,
    fusion: str = "valid",
) -> OsdtwNet:
    """Turn a timm model into an OSDTW network, trained weights and all.

    Every decoder starts as a copy of the blocks above the cut and takes its own classes' rows of the classifier, and a
    "none" of zeros. Under "valid" fusion the fused logits are then the model's own: z_y - z_none = z_y (theory.md
    Prop 2). "raw" fusion normalises each task by itself and agrees once "none" is trained.

    Args:
        model: A model that timm created; it stays as it is.
        shared_depth: Shared blocks, 0 to L; by default all stages but the last.
        partition: The tasks; by default from ``class_counts``, or else halves in class order.
        class_counts: Training images per class, length C.
        fusion: "valid", "raw" or "pool".

    Returns:
        The network, in the model's mode, where the model is; saved and loaded as "osdtw_timm".

    Raises:
        ValueError: If the blocks of such a model cannot be listed, timm's factory did not make it, or made it with
            what no config can hold, or the tasks do not fit its classes.
    """
    source: Any = model
    if not (hasattr(source, "pretrained_cfg") and hasattr(source, "_traits")):
        raise ValueError(
            f"This {type(model).__name__} was not made by timm.create_model; make it by that and load its weights."
        )
    network = OsdtwNet(
        GivenBackbone(model),
        num_classes=source.num_classes,
        in_chans=source.in_chans,
        drop_rate=getattr(source, "drop_rate", 0.0),
        shared_depth=shared_depth,
        class_counts=class_counts,
        task_classes=partition.to_lists() if isinstance(partition, ClassPartition) else partition,
        fusion=fusion,
    ).to(next(model.parameters()))
    if source.num_classes:
        rows = source.get_classifier()
        for classes, classifier in zip(network.partition.tasks, network.get_classifier(), strict=True):
            _take_rows(classifier, rows, list(classes))
    config = {key: value for key, value in source.pretrained_cfg.items() if key != "first_conv"}
    # Images are cropped in their centre here: one way for the network, its exported file and the browser.
    named = {"architecture": "osdtw_timm", "tag": "", "num_classes": source.num_classes, "crop_mode": "center"}
    classifiers = tuple(f"decoders.{k}.classifier" for k in network.tasks)
    network.pretrained_cfg = {**config, **named, "classifier": classifiers}
    network._traits = {**source._traits, **network._traits}
    tell_size(network)
    return network.train(model.training)


@torch.no_grad()
def _take_rows(classifier: nn.Module, rows: nn.Module, classes: list[int]) -> None:
    """A task's classifier from the plain one: its own classes' rows, zeros for "none"."""
    given = dict(rows.named_parameters())
    for name, own in classifier.named_parameters():
        own.zero_()
        if name in given:
            own[: len(classes)] = given[name][classes]
