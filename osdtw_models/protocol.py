"""What timm asks of a model besides its forward pass: config.json, layer decay, checkpointing, TorchScript."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from timm.layers import BatchNormAct2d, DropPath
from torch import nn
from torch.fx import GraphModule, Tracer

from osdtw_models.backbone import block_number
from osdtw_models.partition import ClassPartition


class _Tracer(Tracer):
    """Traces all but what does something else in training: a traced branch would stay the one of the traced mode."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, BatchNormAct2d | DropPath) or super().is_leaf_module(m, module_qualified_name)


class TimmProtocol(nn.Module):
    """A network that timm can save, rebuild, decay and script; `OsdtwNet` is one."""

    num_blocks: int
    shared_depth: int
    partition: ClassPartition
    fusion: str
    class_counts: list[int] | None
    calibration: list[list[float]] | None
    normalise_features: bool
    _offsets: list[list[float]] | None
    _backbone_args: dict[str, Any]
    _undecayed: frozenset[str]

    def model_args(self) -> dict[str, Any]:
        """The arguments that rebuild this network, JSON-ready; they travel in ``config.json``."""
        return {**self._backbone_args, **{name: value for name, value in self._own_args().items() if value is not None}}

    def _own_args(self) -> dict[str, Any]:
        """The arguments that depend on what the network is now; None where one is not needed."""
        return {
            "shared_depth": self.shared_depth,
            "task_classes": self.partition.to_lists(),
            "open_none": self.partition.open_none or None,
            "fusion": self.fusion,
            "class_counts": self.class_counts,
            "logit_offsets": self._offsets,
            "calibration": self.calibration,
            "normalise_features": self.normalise_features or None,
        }

    @property
    def _model_args(self) -> dict[str, Any]:
        """The arguments that timm writes into ``config.json``: the user's, and what this network is now."""
        return {**self._told, **self.model_args()}

    @_model_args.setter
    def _model_args(self, told: dict[str, Any]) -> None:
        # A saved network has weights of its own: whoever loads it shall not fetch the backbone's again.
        void = {*self._own_args(), "backbone_pretrained"}
        self._told = {name: value for name, value in told.items() if name not in void}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: recompute blocks in the backward pass."""
        self.grad_checkpointing = enable

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` compiles: the traced graph; decoders of varying length are not TorchScript."""
        traced = GraphModule(self, _Tracer().trace(self))
        for node in traced.graph.nodes:
            node.type = None  # annotations are strings here, which TorchScript cannot read; all are tensors anyway
        traced.recompile()
        return traced

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """Layer of each parameter for layer decay: blocks of one depth share a layer in every decoder."""
        last = self.num_blocks

        def layer(name: str) -> int:
            block = block_number(name)
            if not block:
                return last + 1
            return min(block, self.shared_depth + 1) if coarse else block

        return layer

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that take no weight decay, position embeddings and the like."""
        inside = {name: name[name.find("block") :] for name, _ in self.named_parameters()}
        return {name for name, piece in inside.items() if piece in self._undecayed}
