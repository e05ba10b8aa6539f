"""The network: one shared encoder, one decoder per task, fused class logits.

``shared_depth`` = d cuts the backbone's L blocks: blocks 1..d are the encoder, shared by all tasks; each
decoder owns a copy of blocks d+1..L, of what follows them, and a linear classifier over its classes and "none"
(last). Blocks keep their number in their name, ``encoder.block3`` or ``decoders.0.block8``, so that a checkpoint can
be read at another depth by renaming keys. The model speaks timm's protocol: one tensor of fused logits (B, C) comes
out.
"""

from __future__ import annotations

import copy
import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.fx import symbolic_trace

from osdtw_models.backbone import Backbone, Level, block_number
from osdtw_models.decoder import Decoder
from osdtw_models.features import FeatureLevels
from osdtw_models.fusion import FUSION_RULES, calibrate, fuse
from osdtw_models.partition import ClassPartition
from osdtw_models.pooling import TokenPool, UnitLength, make_pool

OWN_ARGS = (
    *("shared_depth", "task_classes", "fusion", "class_counts", "logit_offsets"),
    *("calibration", "normalise_features"),
)


class OsdtwNet(FeatureLevels):
    """Shared encoder, one decoder per task, fused logits in the original class order.

    Args:
        backbone: What to cut.
        num_classes: Number of classes C; 0 leaves the classifiers out and returns pooled features.
        in_chans: Channels of the input images.
        global_pool: Pooling before the classifiers: "avg", "max", "token" where there is a class token; the backbone's
            own by default; "" with ``num_classes=0`` returns maps.
        drop_rate: Dropout before the classifiers.
        drop_path_rate: Stochastic depth, where the backbone has it.
        img_size: Height and width (or side) of the images, for backbones of one image size.
        shared_depth: Number of leading blocks that all tasks share, 0 to L; -1 counts as L, None is the backbone's
            default.
        class_counts: Training images per class (length C); the most frequent half becomes the head task.
        task_classes: Explicit tasks, one list of classes each; overrides ``class_counts``. One list with
            every class gives the plain backbone, the same list several times gives experts.
        fusion: "raw", "valid" or "pool" (theory.md Prop 2); "mean" for experts, and for them alone.
        logit_offsets: Per task the log-offsets it was trained with, "none" last (Prop 8 (ii)); none by default.
        calibration: Per task a temperature and a group bias, [[T, b], ...], see `osdtw_models.fusion.calibrate`;
            fitted on held-out images. They act when logits are fused; those of `forward_tasks` are without.
        normalise_features: Whether features are scaled to length 1 before the classifiers, which then see cosines.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range or does not fit ``num_classes``.
    """

    class_position: Tensor
    global_pool: SelectAdaptivePool2d | TokenPool
    pretrained_cfg: dict[str, Any]  # put there by timm's builder
    _traits: dict[str, Any]  # read by it

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        img_size: int | tuple[int, int] | None = None,
        shared_depth: int | None = -1,
        class_counts: Sequence[int] | None = None,
        task_classes: Sequence[Sequence[int]] | None = None,
        fusion: str = "raw",
        logit_offsets: Sequence[Sequence[float]] | None = None,
        calibration: Sequence[Sequence[float]] | None = None,
        normalise_features: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        place: dict[str, Any] = {"device": device, "dtype": dtype}
        size = (img_size, img_size) if isinstance(img_size, int) else img_size
        pieces = backbone.pieces(in_chans, size, drop_path_rate, **place)
        self.num_blocks = len(pieces.blocks)
        depth = {None: pieces.default_depth, -1: self.num_blocks}.get(shared_depth, shared_depth)
        if depth is None or not 0 <= depth <= self.num_blocks:
            raise ValueError(
                f"shared_depth is {shared_depth}, but this backbone has {self.num_blocks} blocks; "
                f"choose 0 (nothing shared) to {self.num_blocks} (only the classifiers differ)."
            )
        self._backbone_args = backbone.model_args()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.shared_depth = depth
        self.fusion = fusion
        self.grad_checkpointing = False
        self.normalise_features = normalise_features
        self.layout, self.prefix_tokens = pieces.layout, pieces.prefix_tokens
        # A network without classifiers still has its tasks: they decide how many decoders there are.
        self.class_counts = None if class_counts is None else [int(count) for count in class_counts]
        listed = len(set().union(*task_classes)) if task_classes else len(self.class_counts or (0, 1))
        self.partition = ClassPartition.resolve(num_classes or listed, task_classes, self.class_counts)
        _check_fusion(fusion, self.partition)
        self.decoder_features = pieces.num_features
        self.num_features = self.head_hidden_size = pieces.num_features * self.partition.num_tasks
        self.feature_info = [self._all_maps(level) for level in pieces.levels]

        named = [(f"block{number}", block) for number, block in enumerate(pieces.blocks, 1)]
        self.encoder = nn.Sequential(OrderedDict(named[:depth]))
        neck = nn.Sequential(pieces.neck, UnitLength()) if normalise_features else pieces.neck
        own = (OrderedDict(named[depth:]), pieces.norm, neck)
        self.decoders = nn.ModuleList()
        for outputs in self.partition.output_sizes:
            blocks, norm, neck = copy.deepcopy(own) if len(self.decoders) else own
            classifier = nn.Linear(pieces.num_features, outputs, **place) if num_classes else nn.Identity()
            self.decoders.append(Decoder(blocks, norm, neck, classifier))
        self.global_pool = self._make_pool(pieces.pool if global_pool is None else global_pool, num_classes)
        self.register_buffer("class_position", self.partition.class_position.to(device))
        self._register_offsets(logit_offsets, device, dtype)
        self.set_calibration(calibration)
        self.register_load_state_dict_pre_hook(_refuse_other_tasks)  # type: ignore[no-untyped-call]
        self._undecayed = pieces.undecayed
        stem = ["encoder"] if depth else [f"decoders.{k}" for k in self.tasks]
        first = [f"{part}.block1.{pieces.first_conv}" for part in stem]
        self._traits = {"first_conv": first[0] if depth else tuple(first)}
        self._model_args = {}
        self._initialised = pieces.initialised
        self.init_weights()

    def init_weights(self) -> None:
        """Kaiming-normal classifiers; in the CIFAR ResNets the same for every convolution, as in the protocol's."""
        for part in self.get_classifier() if self._initialised else [self]:
            part.apply(_init)

    @property
    def tasks(self) -> range:
        """Task indices 0 .. K-1."""
        return range(self.partition.num_tasks)

    @property
    def branches(self) -> list[Decoder]:
        """The decoders, typed."""
        return [cast("Decoder", decoder) for decoder in self.decoders]

    @property
    def logit_offsets(self) -> list[Tensor] | None:
        """Log-offsets of each task (Prop 8 (ii)), or None where the logits are balanced already."""
        if self._offsets is None:
            return None
        return [self.get_buffer(f"offsets{k}") for k in self.tasks]

    def model_args(self) -> dict[str, Any]:
        """The arguments that rebuild this network, JSON-ready; they travel in ``config.json``."""
        own: dict[str, Any] = {
            "shared_depth": self.shared_depth,
            "task_classes": self.partition.to_lists(),
            "fusion": self.fusion,
            "class_counts": self.class_counts,
            "logit_offsets": self._offsets,
            "calibration": self.calibration,
            "normalise_features": self.normalise_features or None,
        }
        return {**self._backbone_args, **{name: value for name, value in own.items() if value is not None}}

    @property
    def _model_args(self) -> dict[str, Any]:
        """The arguments that timm writes into ``config.json``: the user's, and what this network is now."""
        return {**self._told, **self.model_args()}

    @_model_args.setter
    def _model_args(self, told: dict[str, Any]) -> None:
        # A saved network has weights of its own: whoever loads it shall not fetch the backbone's again.
        self._told = {name: value for name, value in told.items() if name not in (*OWN_ARGS, "backbone_pretrained")}

    # -- forward ---------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Fused class logits.

        Args:
            x: Normalised images, shape (B, in_chans, H, W).

        Returns:
            Logits in the original class order, shape (B, C); their softmax is the fused posterior.
        """
        return self.forward_head(self.forward_features(x))

    def forward_features(self, x: Tensor) -> Tensor:
        """Last feature maps of all decoders, their channels one after another: (B, num_features, H', W') or alike."""
        shared = self.forward_encoder(x)
        if not len(self.decoders):  # pruned down to the encoder
            return shared
        return torch.cat([self._decode(decoder, shared) for decoder in self.branches], dim=self.layout.channels)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool, classify and fuse feature maps of `forward_features`; ``pre_logits`` stops before the classifiers."""
        x = self.global_pool(x)
        if not self.global_pool.pool_type or not len(self.decoders):
            return x
        necks = self._necks(x)
        if pre_logits or not self.num_classes:
            return torch.cat(necks, dim=1)
        return self.fuse(self._classify(necks))

    def forward_tasks(self, x: Tensor) -> list[Tensor]:
        """Logits of every task.

        Args:
            x: Normalised images, shape (B, in_chans, H, W).

        Returns:
            K tensors of shape (B, n_k + 1), "none" last; for one task, and for experts, of shape (B, C).
        """
        return self._classify(self._necks(self.global_pool(self.forward_features(x))))

    def forward_task(self, x: Tensor, task: int) -> Tensor:
        """Logits of one task, shape (B, n_k + 1), without running the other decoders."""
        return self.forward_decoder(self.forward_encoder(x), task)

    def forward_encoder(self, x: Tensor) -> Tensor:
        """Shared feature maps after block d."""
        if self.grad_checkpointing:
            return checkpoint_seq(self.encoder, x)
        return self.encoder(x)

    def forward_decoder(self, shared: Tensor, task: int) -> Tensor:
        """Logits of one task from the shared feature maps, shape (B, n_k + 1)."""
        decoder = self.branches[task]
        pooled = decoder.neck(self.global_pool(self._decode(decoder, shared)))
        return decoder.classifier(F.dropout(pooled, self.drop_rate, self.training))

    def fuse(self, task_logits: list[Tensor]) -> Tensor:
        """Fuse task logits into class logits of the original class order, shape (B, C)."""
        scores = fuse(self.calibrated(task_logits), self.fusion, self.logit_offsets)
        return scores.index_select(1, self.class_position)

    def calibrated(self, task_logits: list[Tensor]) -> list[Tensor]:
        """Task logits as they are fused: with the temperature and group bias of each task, if there are any."""
        if self.calibration is None:
            return task_logits
        fitted = self.get_buffer("temperatures"), self.get_buffer("biases")
        return calibrate(task_logits, *fitted, self.partition.has_none)

    def set_calibration(self, calibration: Sequence[Sequence[float]] | None) -> None:
        """Give every task its temperature and group bias; they travel in ``config.json``.

        Args:
            calibration: Per task [T, b]; None for none.

        Raises:
            ValueError: If there are not two finite numbers per task, the first positive.
        """
        pairs = None if calibration is None else [[float(value) for value in pair] for pair in calibration]
        if pairs is not None:
            finite = all(len(pair) == 2 and 0 < pair[0] < math.inf and math.isfinite(pair[1]) for pair in pairs)
            if not finite or len(pairs) != self.partition.num_tasks:
                raise ValueError(
                    f"calibration is {pairs}; give [temperature, bias] for each of the {self.partition.num_tasks} "
                    "tasks, temperatures above 0."
                )
        self.calibration = pairs
        for name, column in (("temperatures", 0), ("biases", 1)):
            values = None if pairs is None else next(self.parameters()).new_tensor([pair[column] for pair in pairs])
            self.register_buffer(name, values, persistent=False)

    def _decode(self, decoder: Decoder, shared: Tensor) -> Tensor:
        if self.grad_checkpointing:
            return decoder.norm(checkpoint_seq(decoder.block_list(), shared))
        return decoder.forward_features(shared)

    def _necks(self, pooled: Tensor) -> list[Tensor]:
        parts = pooled.chunk(len(self.decoders), dim=1)
        return [decoder.neck(parts[k]) for k, decoder in enumerate(self.branches)]  # torch.fx cannot zip

    def _classify(self, features: list[Tensor]) -> list[Tensor]:
        kept = [F.dropout(each, self.drop_rate, self.training) for each in features]
        return [decoder.classifier(kept[k]) for k, decoder in enumerate(self.branches)]

    # -- timm's protocol -------------------------------------------------------------------------------------

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """The classifiers, one per task."""
        return tuple(decoder.classifier for decoder in self.branches)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network new classes: the first half becomes the head, as without counts; experts stay experts.

        Args:
            num_classes: New number of classes; 0 leaves the classifiers out.
            global_pool: New pooling; None keeps the present one.

        Raises:
            ValueError: If there are fewer classes than decoders, or the pooling does not fit.
        """
        pool = self._make_pool(self.global_pool.pool_type if global_pool is None else global_pool, num_classes)
        weight = next(self.parameters())
        if num_classes:
            self.partition = self.partition.renewed(num_classes)
            self.register_buffer("class_position", self.partition.class_position.to(weight.device))
            self._register_offsets(None)
            self.set_calibration(None)
        self.global_pool = pool
        self.num_classes = num_classes
        self.class_counts = None
        for decoder, outputs in zip(self.branches, self.partition.output_sizes, strict=True):
            decoder.classifier = nn.Identity()
            if num_classes:
                place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
                decoder.classifier = nn.Linear(self.decoder_features, outputs, **place).train(self.training)
                _init(decoder.classifier)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade time for memory: recompute blocks in the backward pass."""
        self.grad_checkpointing = enable

    def __prepare_scriptable__(self) -> nn.Module:
        """What ``torch.jit.script`` compiles: the traced graph; decoders of varying length are not TorchScript."""
        traced = symbolic_trace(self)
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

    def _make_pool(self, pool_type: str, num_classes: int) -> SelectAdaptivePool2d | TokenPool:
        return make_pool(pool_type, num_classes, self.layout, self.prefix_tokens)

    def _all_maps(self, level: Level) -> dict[str, Any]:
        """A level of the backbone as timm lists it: above the cut with the channels of every decoder."""
        copies = self.partition.num_tasks if level.block > self.shared_depth else 1
        return {"num_chs": level.channels * copies, "reduction": level.reduction, "module": f"block{level.block}"}

    def _register_offsets(
        self,
        logit_offsets: Sequence[Sequence[float]] | None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._offsets = None if logit_offsets is None else self.partition.checked_offsets(logit_offsets)
        place: dict[str, Any] = {"device": device, "dtype": dtype or torch.get_default_dtype()}
        for k in self.tasks:
            values = None if self._offsets is None else torch.tensor(self._offsets[k], **place)
            # Not persistent: offsets are arguments of the model and travel in config.json.
            self.register_buffer(f"offsets{k}", values, persistent=False)


def _refuse_other_tasks(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any) -> None:
    """Stop before weights of another partition are loaded: they may fit, and every class would be wrong."""
    network, saved = cast("OsdtwNet", module), state_dict.get(f"{prefix}class_position")
    if saved is None or saved.is_meta or network.class_position.is_meta:
        return
    rows = [state_dict.get(f"{prefix}decoders.{k}.classifier.bias") for k in network.tasks]
    sizes = network.partition.output_sizes
    same_sizes = all(row is None or len(row) == size for row, size in zip(rows, sizes, strict=True))
    if not same_sizes or not torch.equal(saved.cpu(), network.class_position.cpu()):
        raise ValueError(
            "The checkpoint was trained on another partition of the classes into tasks; create the model with the "
            "checkpoint's task_classes (see its config.json)."
        )


def _check_fusion(rule: str, partition: ClassPartition) -> None:
    if rule not in FUSION_RULES:
        raise ValueError(f"Unknown fusion rule {rule!r}; choose one of {', '.join(FUSION_RULES)}.")
    if rule == "pool" and partition.num_tasks > 2:
        raise ValueError(f"fusion 'pool' is defined for 2 tasks, not {partition.num_tasks}; use 'raw'.")
    if partition.num_tasks > 1 and (rule == "mean") != partition.experts:
        raise ValueError(
            f"fusion {rule!r} does not fit these tasks; 'mean' is for tasks with every class each, and only 'mean'."
        )


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
