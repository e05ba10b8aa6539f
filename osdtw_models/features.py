"""Feature maps from inside the network, level by level, as timm's ``features_only`` and ``forward_intermediates`` ask.

A level is the last block of a stage. Where it is shared there is one map; above the cut there is one per decoder, and
they come concatenated along the channels, in the order of the tasks.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from osdtw_models.backbone import Level
from osdtw_models.decoder import Decoder
from osdtw_models.partition import ClassPartition
from osdtw_models.pooling import Layout


class FeatureLevels(nn.Module):
    """A network whose feature maps can be had level by level; `OsdtwNet` is one."""

    encoder: nn.Sequential
    decoders: nn.ModuleList
    feature_info: list[dict[str, Any]]
    shared_depth: int
    num_features: int
    layout: Layout
    prefix_tokens: int
    partition: ClassPartition

    def _all_maps(self, level: Level) -> dict[str, Any]:
        """A level of the backbone as timm lists it: above the cut with the channels of every decoder."""
        copies = self.partition.num_tasks if level.block > self.shared_depth else 1
        return {"num_chs": level.channels * copies, "reduction": level.reduction, "module": f"block{level.block}"}

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Feature maps of several levels in one pass.

        Args:
            x: Normalised images, shape (B, in_chans, H, W).
            indices: Levels to take: their numbers, or how many of the last; all by default.
            norm: Whether each decoder's norm is put on its own maps; shared maps have none.
            stop_early: Whether blocks above the last wanted level are left out.
            output_fmt: "NCHW"; "NLC" gives the tokens of the images one after another instead.
            intermediates_only: Whether the last feature maps are left out of the result.

        Returns:
            The maps of the levels, each of shape (B, channels, H', W') or (B, H' W', channels); before them, unless
            left out, what ``forward_features`` returns.

        Raises:
            ValueError: If another format is asked for.
        """
        if output_fmt not in ("NCHW", "NLC"):
            raise ValueError(f"output_fmt is {output_fmt!r}; choose 'NCHW' or 'NLC'.")
        height, width = x.shape[-2:]
        wanted, most = feature_take_indices(len(self.feature_info), indices)
        last = self.level_block(most) if stop_early else None
        maps: dict[int, Tensor] = {}
        for number, block in enumerate(self.encoder, 1):
            if last is None or number <= last:
                x = maps[number] = block(x)
        if len(self.decoders) and (last is None or last > self.shared_depth):
            branches = [cast("Decoder", decoder) for decoder in self.decoders]
            parts = [x] * len(branches)
            for place, name in enumerate(branches[0].block_names):
                number = self.shared_depth + 1 + place
                if last is None or number <= last:
                    parts = [branch.get_submodule(name)(part) for branch, part in zip(branches, parts, strict=True)]
                    shown = [b.norm(p) if norm else p for b, p in zip(branches, parts, strict=True)]
                    maps[number] = torch.cat(shown, dim=self.layout.channels)
            x = torch.cat([b.norm(p) for b, p in zip(branches, parts, strict=True)], dim=self.layout.channels)
        taken = []
        for index in wanted:
            reduction = self.feature_info[index]["reduction"]
            found = maps[self.level_block(index)]
            # Upwards: where sides are no multiples, backbones of tokens pad.
            image = self.layout.maps(found, -(-height // reduction), -(-width // reduction), self.prefix_tokens)
            taken.append(image if output_fmt == "NCHW" else image.flatten(2).mT)
        return taken if intermediates_only else (x, taken)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Cut off what lies above the last wanted level.

        Args:
            indices: Levels to keep: their numbers, or how many of the last.
            prune_norm: Whether the decoders' norms go, too.
            prune_head: Whether the classifiers go, too; they go in any case with the blocks that they stand on.

        Returns:
            Numbers of the levels that are kept.
        """
        wanted, most = feature_take_indices(len(self.feature_info), indices)
        last = self.level_block(most)
        if prune_head or most + 1 < len(self.feature_info):
            self.reset_classifier(0, "")
            for decoder in self.decoders:
                branch = cast("Decoder", decoder)
                branch.keep_blocks(max(0, last - self.shared_depth))
                branch.neck = nn.Identity()
                if prune_norm:
                    branch.norm = nn.Identity()
            if last <= self.shared_depth:
                # Nothing is left above the cut: there is one map again, not one per decoder.
                self.encoder = self.encoder[:last]
                self.decoders = nn.ModuleList()
                self.shared_depth = last
            self.num_features = int(self.feature_info[most]["num_chs"])
        return wanted

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network other classifiers."""
        raise NotImplementedError

    def level_block(self, level: int) -> int:
        """Number of the last block of a level: -1 is the last stage, -2 the one before."""
        return int(str(self.feature_info[level]["module"]).removeprefix("block"))
