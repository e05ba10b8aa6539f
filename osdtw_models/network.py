"""The network: one shared encoder, one decoder per task, fused class logits.

``shared_depth`` = d cuts the backbone's L blocks: blocks 1..d are the encoder, shared by all tasks; each
decoder owns a copy of blocks d+1..L, of what follows them, and a linear classifier over its classes and "none" (last;
where "none" is open, all other classes). Blocks keep their number in their name, ``encoder.block3`` or
``decoders.0.block8``, so that a checkpoint can be read at another depth by renaming keys. The model speaks timm's
protocol: one tensor of fused logits (B, C) comes out.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, cast

import torch
from timm.layers import SelectAdaptivePool2d
from timm.models import checkpoint_seq
from torch import Tensor, nn

from osdtw_models.backbone import Backbone
from osdtw_models.class_counts import checked_counts
from osdtw_models.decoder import Decoder
from osdtw_models.features import FeatureLevels
from osdtw_models.fused_tasks import FusedTasks, check_fusion, refuse_other_tasks
from osdtw_models.partition import ClassPartition
from osdtw_models.pooling import TokenPool, UnitLength, make_pool
from osdtw_models.protocol import TimmProtocol


class OsdtwNet(FeatureLevels, FusedTasks, TimmProtocol):
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
        open_none: Whether each task tells the classes behind its "none" apart, too (theory.md Prop 9).
        fusion: "raw", "valid" or "pool" (theory.md Prop 2); "mean" for experts and for an open "none", and for them
            alone.
        logit_offsets: Per task the log-offsets it was trained with, "none" last (Prop 8 (ii)); none by default.
        calibration: Per task a temperature and a group bias, [[T, b], ...], see `osdtw_models.fusion.calibrate`;
            fitted on held-out images. They act when logits are fused; those of `forward_tasks` are without.
        normalise_features: Whether features are scaled to length 1 before the classifiers, which then see cosines.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: If an argument is out of range or does not fit ``num_classes``.
    """

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
        open_none: bool = False,
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
        self.head_drop = nn.Dropout(drop_rate)
        self.shared_depth = depth
        self.fusion = fusion
        self.grad_checkpointing = False
        self.normalise_features = normalise_features
        self.layout, self.prefix_tokens = pieces.layout, pieces.prefix_tokens
        # A network without classifiers still has its tasks: they decide how many decoders there are.
        self.class_counts = None if class_counts is None else checked_counts(class_counts)
        listed = (
            ClassPartition(cast("Any", task_classes)).num_classes if task_classes else len(self.class_counts or (0, 1))
        )
        self.partition = ClassPartition.resolve(
            num_classes or listed, task_classes, self.class_counts, open_none=open_none
        )
        check_fusion(fusion, self.partition)
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
        self.global_pool = make_pool(
            pieces.pool if global_pool is None else global_pool, num_classes, self.layout, self.prefix_tokens
        )
        self._set_tasks(self.partition, device)
        self._register_offsets(logit_offsets, device, dtype)
        self.set_calibration(calibration)
        self.register_load_state_dict_pre_hook(refuse_other_tasks)  # type: ignore[no-untyped-call]
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
    def branches(self) -> list[Decoder]:
        """The decoders, typed."""
        return [cast("Decoder", decoder) for decoder in self.decoders]

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
        return self.close(self.forward_outputs(x))

    def forward_outputs(self, x: Tensor) -> list[Tensor]:
        """What every task's classifier gives, what `fuse` takes: `forward_tasks`, but (B, C) if "none" is open."""
        return self._classify(self._necks(self.global_pool(self.forward_features(x))))

    def forward_task(self, x: Tensor, task: int) -> Tensor:
        """Outputs of one task, shape (B, n_k + 1) or (B, C), without running the other decoders."""
        return self.forward_decoder(self.forward_encoder(x), task)

    def forward_encoder(self, x: Tensor) -> Tensor:
        """Shared feature maps after block d."""
        if self.grad_checkpointing:
            return checkpoint_seq(self.encoder, x)
        return self.encoder(x)

    def forward_decoder(self, shared: Tensor, task: int) -> Tensor:
        """Outputs of one task from the shared feature maps, shape (B, n_k + 1) or (B, C)."""
        decoder = self.branches[task]
        pooled = decoder.neck(self.global_pool(self._decode(decoder, shared)))
        return decoder.classifier(self.head_drop(pooled))

    def _decode(self, decoder: Decoder, shared: Tensor) -> Tensor:
        if self.grad_checkpointing:
            return decoder.norm(checkpoint_seq(decoder.block_list(), shared))
        return decoder.forward_features(shared)

    def _necks(self, pooled: Tensor) -> list[Tensor]:
        parts = pooled.chunk(len(self.decoders), dim=1)
        return [decoder.neck(parts[k]) for k, decoder in enumerate(self.branches)]  # torch.fx cannot zip

    def _classify(self, features: list[Tensor]) -> list[Tensor]:
        kept = [self.head_drop(each) for each in features]
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
            ValueError: If there are fewer classes than decoders, or no decoders any more, or the pooling does not fit.
        """
        wanted = self.global_pool.pool_type if global_pool is None else global_pool
        pool = make_pool(wanted, num_classes, self.layout, self.prefix_tokens)
        weight = next(self.parameters())
        if num_classes:
            if not len(self.decoders):
                raise ValueError("This network was cut down to its encoder; create it anew to give it classes.")
            self._set_tasks(self.partition.renewed(num_classes), weight.device)
            self._register_offsets(None)
            self.set_calibration(None)
        self.global_pool = pool
        self.num_classes = num_classes
        self.class_counts = None
        for k, decoder in enumerate(self.branches):
            outputs = self.partition.output_sizes[k]
            decoder.classifier = nn.Identity()
            if num_classes:
                place: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
                decoder.classifier = nn.Linear(self.decoder_features, outputs, **place).train(self.training)
                _init(decoder.classifier)


def _init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
