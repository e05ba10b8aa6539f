"""timm's own models as backbones: by name, or one that is there already."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torch

from osdtw_models.backbone import Pieces
from osdtw_models.cutting import cut
from osdtw_models.doors import first_line


@dataclass(frozen=True)
class TimmBackbone:
    """A model of timm's by its name.

    Args:
        name: timm's name, "resnet50"; with a tag, "resnet50.a1_in1k", where weights are wanted.
        fixed: Arguments of timm's model that belong to the name: ResNet-10 is a ResNet-18 of other layers.
        args: Arguments of timm's model that the user gave, besides those of `pieces`.
        named: Whether the name must be told to build the backbone again.
        pretrained: Whether to start from timm's weights.
        overlay: Entries over timm's pretrained config, such as the ``file`` of the weights.
    """

    name: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    named: bool = False
    pretrained: bool = False
    overlay: Mapping[str, Any] = field(default_factory=dict)

    def pieces(
        self,
        in_chans: int = 3,
        img_size: tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Pieces:
        """Create the model and cut it, see `osdtw_models.backbone.Backbone`.

        Returns:
            The pieces.

        Raises:
            FileNotFoundError: If its weights are wanted and cannot be had.
            ValueError: If they are in a file that is not safetensors.
        """
        file = self.overlay.get("file")
        if file is not None and Path(file).suffix != ".safetensors":
            raise ValueError(f"{file} is no safetensors file; other files of weights are pickles, which can run code.")
        wanted = {"img_size": img_size, "drop_path_rate": drop_path_rate or None, "device": device, "dtype": dtype}
        arguments = {**self.fixed, **{k: v for k, v in wanted.items() if v is not None}, **self.args}
        create = partial(timm.create_model, self.name, in_chans=in_chans, num_classes=0, **arguments)
        if not self.pretrained:
            return cut(create())
        try:
            model = create(pretrained=True, pretrained_cfg_overlay=dict(self.overlay) or None)
        except Exception as error:  # no network, no such file, weights of another network: timm has many ways to say no
            raise FileNotFoundError(
                f"timm's weights of {self.name} could not be loaded ({first_line(error)}); go online once, name a file "
                "of them (pretrained_cfg_overlay={'file': ...}), or start from scratch (backbone_pretrained=False)."
            ) from error
        return cut(model)

    def model_args(self) -> dict[str, Any]:
        """Arguments of timm's model, and its name where the registered name says none."""
        told = {"backbone": self.name} if self.named else {}
        return {**told, **({"backbone_args": dict(self.args)} if self.args else {})}


@dataclass(frozen=True)
class GivenBackbone:
    """A model that is there already, with its weights.

    Args:
        model: The model; it stays as it is.
    """

    model: Any

    def pieces(
        self,
        in_chans: int = 3,
        img_size: tuple[int, int] | None = None,
        drop_path_rate: float = 0.0,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> Pieces:
        """Cut a copy of the model, whose channels, image size and stochastic depth it keeps.

        Returns:
            The pieces, where the model is unless told otherwise.
        """
        return cut(copy.deepcopy(self.model).to(device=device, dtype=dtype))

    def model_args(self) -> dict[str, Any]:
        """What `osdtw_timm` must be told to build such a model again.

        Returns:
            timm's name of the model and the arguments that it was created with.

        Raises:
            ValueError: If one of them is no value of JSON, such as a class of layers.
        """
        told: dict[str, Any] = getattr(self.model, "_model_args", {})
        own = {name: value for name, value in told.items() if name not in ("num_classes", "in_chans", "img_size")}
        for name, value in own.items():
            try:
                json.dumps(value)
            except TypeError as error:
                raise ValueError(
                    f"The model was created with {name}={value!r}, which no config.json can hold; create it by names "
                    f'and numbers, as in act_layer="gelu".'
                ) from error
        backbone = {"backbone": self.model.pretrained_cfg["architecture"]}
        return {**backbone, "backbone_args": own} if own else backbone
