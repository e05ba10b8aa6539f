"""The network: one shared encoder, one decoder per task, fused class logits.

``shared_depth`` = d cuts the backbone's L blocks: blocks 1..d are the encoder, shared by all tasks; each
decoder owns a copy of blocks d+1..L and a linear classifier over its classes and "none" (last). Blocks keep
their number in their name, ``encoder.block3`` or ``decoders.0.block8``, so that a checkpoint can be read at
another depth by renaming keys. The model speaks timm's protocol: one tensor of fused logits (B, C) comes out.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers import SelectAdaptivePool2d
from timm.models import checkpoint_seq
from torch import Tensor, nn
from torch.fx import symbolic_trace

from osdtw_models.backbone import CifarResNet, block_number
from osdtw_models.decoder import Decoder
from osdtw_models.features import FeatureLevels
from osdtw_models.fusion import FUSION_RULES, fuse
from osdtw_models.partition import ClassPartition


class OsdtwNet(FeatureLevels):
    """Shared encoder, one decoder per task, fused logits in the original class order.

    Args:
        backbone: The list of blocks to cut.
        num_classes: Number of classes C; 0 leaves the classifiers out and returns pooled features.
        in_chans: Channels of the input images.
        global_pool: Pooling before the classifiers ("avg" or "max"); "" with ``num_classes=0`` returns maps.
        drop_rate: Dropout before the classifiers.
        shared_depth: Number of leading blocks that all tasks share, 0 to L; -1 counts as L.
        class_counts: Training images per class (length C); the most frequent half becomes the head task.
        task_classes: Explicit tasks, one list of classes each; overrides ``class_counts``. One list with
            every class gives the plain backbone.
        fusion: "raw", "valid" or "pool" (theory.md Prop 2).
        logit_offsets: Per task the log-offsets it was trained with, "none" last (Prop 8 (ii)); none by default.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range or does not fit ``num_classes``.
    """

    class_position: Tensor
    pretrained_cfg: dict[str, Any]  # put there by timm's builder
    _traits: dict[str, Any]  # read by it

    def __init__(
        self,
        backbone: CifarResNet,
        num_classes: int = 100,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        shared_depth: int = -1,
        class_counts: Sequence[int] | None = None,
        task_classes: Sequence[Sequence[int]] | None = None,
        fusion: str = "raw",
        logit_offsets: Sequence[Sequence[float]] | None = None,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        depth = backbone.num_blocks if shared_depth == -1 else shared_depth
        if not 0 <= depth <= backbone.num_blocks:
            raise ValueError(
                f"shared_depth is {shared_depth}, but this backbone has {backbone.num_blocks} blocks; "
                f"choose 0 (nothing shared) to {backbone.num_blocks} (only the classifiers differ)."
            )
        if fusion not in FUSION_RULES:
            raise ValueError(f"Unknown fusion rule {fusion!r}; choose one of {', '.join(FUSION_RULES)}.")
        self.backbone = backbone
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.drop_rate = drop_rate
        self.shared_depth = depth
        self.fusion = fusion
        self.grad_checkpointing = False
        self.head_hidden_size = backbone.num_features
        # A network without classifiers still has its tasks: they decide how many decoders there are.
        self.class_counts = None if class_counts is None else [int(count) for count in class_counts]
        listed = sum(len(task) for task in task_classes) if task_classes else len(self.class_counts or (0, 1))
        self.partition = ClassPartition.resolve(num_classes or listed, task_classes, self.class_counts)
        if fusion == "pool" and self.partition.num_tasks > 2:
            raise ValueError(f"fusion 'pool' is defined for 2 tasks, not {self.partition.num_tasks}; use 'raw'.")
        self.num_features = backbone.num_features * self.partition.num_tasks
        self.feature_info = [self._all_maps(level) for level in backbone.feature_info()]

        place: dict[str, Any] = {"device": device, "dtype": dtype}
        numbers = range(1, backbone.num_blocks + 1)
        self.encoder = nn.Sequential(
            OrderedDict((f"block{i}", backbone.block(i, in_chans, **place)) for i in numbers if i <= depth)
        )
        self.decoders = nn.ModuleList(
            Decoder(
                {f"block{i}": backbone.block(i, in_chans, **place) for i in numbers if i > depth},
                nn.Linear(backbone.num_features, outputs, **place) if num_classes else nn.Identity(),
            )
            for outputs in self.partition.output_sizes
        )
        self.global_pool = _pool(global_pool, num_classes)
        self.register_buffer("class_position", self.partition.class_position.to(device))
        self._register_offsets(logit_offsets, device, dtype)
        self.register_load_state_dict_pre_hook(_refuse_other_tasks)  # type: ignore[no-untyped-call]
        first = "encoder.block1.conv1" if depth else tuple(f"decoders.{k}.block1.conv1" for k in self.tasks)
        self._traits = {"first_conv": first}
        self._model_args = self.model_args()
        self.init_weights()

    def init_weights(self) -> None:
        """Kaiming-normal convolutions and classifiers, as in the protocol's ResNet-32."""
        self.apply(_init)

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
        tasks, optional = self.partition.to_lists(), {"class_counts": self.class_counts, "logit_offsets": self._offsets}
        args = {"shared_depth": self.shared_depth, "task_classes": tasks, "fusion": self.fusion}
        return {**args, **{name: value for name, value in optional.items() if value is not None}}

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
        """Last feature maps of all decoders, one after another: shape (B, num_features, H', W')."""
        shared = self.forward_encoder(x)
        if not len(self.decoders):  # pruned down to the encoder
            return shared
        return torch.cat([self._decode(decoder, shared) for decoder in self.branches], dim=1)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool, classify and fuse feature maps of `forward_features`; ``pre_logits`` stops after pooling."""
        x = self.global_pool(x)
        if pre_logits or not self.num_classes:
            return x
        return self.fuse(self._classify(x))

    def forward_tasks(self, x: Tensor) -> list[Tensor]:
        """Logits of every task.

        Args:
            x: Normalised images, shape (B, in_chans, H, W).

        Returns:
            K tensors of shape (B, n_k + 1), "none" last; for one task a single tensor of shape (B, C).
        """
        return self._classify(self.global_pool(self.forward_features(x)))

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
        pooled = self.global_pool(self._decode(decoder, shared))
        return decoder.classifier(F.dropout(pooled, self.drop_rate, self.training))

    def fuse(self, task_logits: list[Tensor]) -> Tensor:
        """Fuse task logits into class logits of the original class order, shape (B, C)."""
        return fuse(task_logits, self.fusion, self.logit_offsets).index_select(1, self.class_position)

    def _decode(self, decoder: Decoder, shared: Tensor) -> Tensor:
        if self.grad_checkpointing:
            return checkpoint_seq(decoder.block_list(), shared)
        return decoder.forward_features(shared)

    def _classify(self, pooled: Tensor) -> list[Tensor]:
        pooled = F.dropout(pooled, self.drop_rate, self.training)
        parts = pooled.chunk(len(self.decoders), dim=1)
        return [decoder.classifier(parts[k]) for k, decoder in enumerate(self.branches)]  # torch.fx cannot zip

    # -- timm's protocol -------------------------------------------------------------------------------------

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """The classifiers, one per task."""
        return tuple(decoder.classifier for decoder in self.branches)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the network new classes: the first half becomes the head, as without counts.

        Args:
            num_classes: New number of classes; 0 leaves the classifiers out.
            global_pool: New pooling; None keeps the present one.

        Raises:
            ValueError: If there are fewer classes than decoders, or the pooling does not fit.
        """
        pool = _pool(self.global_pool.pool_type if global_pool is None else global_pool, num_classes)
        weight = next(self.parameters())
        if num_classes:
            self.partition = ClassPartition.from_counts([1] * num_classes, num_tasks=len(self.decoders))
            self.register_buffer("class_position", self.partition.class_position.to(weight.device))
            self._register_offsets(None)
        self.global_pool = pool
        self.num_classes = num_classes
        self.class_counts = None
        for decoder, outputs in zip(self.branches, self.partition.output_sizes, strict=True):
            decoder.classifier = nn.Identity()
            if num_classes:
                place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
                decoder.classifier = nn.Linear(self.backbone.num_features, outputs, **place).train(self.training)
                _init(decoder.classifier)
        self._model_args = self.model_args()

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
        last = self.backbone.num_blocks

        def layer(name: str) -> int:
            block = block_number(name)
            if not block:
                return last + 1
            return min(block, self.shared_depth + 1) if coarse else block

        return layer

    def _all_maps(self, level: dict[str, int | str]) -> dict[str, Any]:
        """A level of the backbone as this network has it: above the cut with the channels of every decoder."""
        copies = self.partition.num_tasks if block_number(f"{level['module']}.") > self.shared_depth else 1
        return {**level, "num_chs": int(level["num_chs"]) * copies}

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


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _pool(global_pool: str, num_classes: int) -> SelectAdaptivePool2d:
    if global_pool not in ("avg", "max", "") or (not global_pool and num_classes):
        raise ValueError(
            f"global_pool is {global_pool!r}; choose 'avg' or 'max' ('' only without classifiers, num_classes=0)."
        )
    return SelectAdaptivePool2d(pool_type=global_pool, flatten=bool(global_pool))
