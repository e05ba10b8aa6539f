"""The tables of a recipe: one per stage, and the peers' hyper-parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """One training phase: linear rise, then a cosine from ``lr`` to ``final_lr``, updated every step."""

    epochs: int = 0
    """Passes over the training images."""
    lr: float = 0.1
    """Highest learning rate."""
    final_lr: float = 0.0
    """Learning rate at the end of the cosine."""
    rise_epochs: float = 0.0
    """Passes over which the rate rises linearly to ``lr``; part of ``epochs``."""
    anneal_epochs: int | None = None
    """Length of the whole cosine where the phase stops on the way down; none = ``epochs``."""


@dataclass(frozen=True)
class Warmup(Schedule):
    """The common start of all tasks (theory.md section 9: one basin)."""

    objective: Literal["balanced_softmax", "tasks"] = "balanced_softmax"
    """"balanced_softmax": the plain backbone on all classes; "tasks": all tasks on one shared encoder."""


@dataclass(frozen=True)
class Joint(Schedule):
    """Stage 2: the shared encoder under the task weights."""

    objective: Literal["tasks", "fused"] = "tasks"
    """"tasks": the tasks' losses, whose sum bounds the error of what they say together (Prop 2); "fused": that error
    itself, the prior-corrected cross-entropy of the fused scores. Refit decoders follow the same."""
    start: Literal["tasks", "scratch"] = "tasks"
    """"tasks": the weighted average of the tasks' encoders, and their decoders; "scratch": what
    backbone_weights says, random values by default, so that decoders part from the first step on."""
    weigh: Literal["encoder", "losses"] = "encoder"
    """"encoder": the task weights act on what reaches the shared blocks; each decoder learns its own task at full
    rate, as in stage 1. "losses": the weighted sum of the losses, as written in the paper; a light task's decoder then
    learns at a lower rate and feels more weight decay."""

    def __post_init__(self) -> None:
        if self.objective == "fused" and self.weigh == "losses":
            raise ValueError('joint.objective "fused" is one loss, it has no weights of its own; weigh the "encoder".')


@dataclass(frozen=True)
class Refit(Schedule):
    """Stage 3: which decoders the assembled network gets (theory.md section 7)."""

    decoders: Literal["refit", "joint", "tasks"] = "refit"
    """"refit": trained again on the frozen encoder; "joint": of stage 2; "tasks": of stage 1."""
    distill: float = 0.0
    """Share of the loss that follows the stage-1 task networks instead of the labels, 0 to 1."""

    def __post_init__(self) -> None:
        if not 0 <= self.distill <= 1:
            raise ValueError(f"refit.distill is {self.distill}; it is a share, 0 to 1.")


@dataclass(frozen=True)
class Search:
    """The proxy's statistics and the grid it searches (theory.md sections 2 to 5)."""

    structure: Literal["refit", "diagonal", "ekfac"] = "refit"
    """What is neglected. "refit": nothing, decoders refit on the encoder (needs replicates); "diagonal": what is
    between two parameters; "ekfac": what is between two coordinates of the layers' Kronecker eigenbases."""
    replicates: bool = True
    """Train the tasks on two halves of the images as well, to know how much of their difference is chance."""
    samples: int = 256
    """Training images in the statistics, drawn evenly over the classes as far as they reach."""
    labels: Literal["monte_carlo", "empirical", "exact"] = "monte_carlo"
    """Labels of the Fishers: drawn from the model, the real ones, or all ("refit" draws)."""
    debias: bool = True
    """Take off the bias what chance alone would show of it (Prop 7)."""
    weights: int = 101
    """Task-weight grid points, evenly spaced in log-odds."""
    damping: float = 1.0
    """Factor on the damping 1 / sum(learning rates) + weight decay."""

    def __post_init__(self) -> None:
        if self.weights < 1 or self.samples < 1 or self.damping <= 0:
            raise ValueError("search.weights (--points) and search.samples must be at least 1, search.damping above 0.")
        if self.structure == "refit" and (not self.replicates or self.labels != "monte_carlo"):
            raise ValueError(
                'search.structure "refit" needs search.replicates and search.labels "monte_carlo"; keep both, or '
                'choose "diagonal" or "ekfac".'
            )


@dataclass(frozen=True)
class Peer:
    """Hyper-parameters of the peers; the defaults are their papers' (see methods/)."""

    gamma: float = 2.0
    """Focal loss: power of 1 - p."""
    beta: float = 0.9999
    """Effective number of images: class-balanced loss, deferred re-weighting."""
    tau: float = 1.0
    """Logit adjustment: factor on the log-prior."""
    margin: float = 0.5
    """LDAM, RIDE: margin of the rarest class."""
    scale: float = 30.0
    """LDAM, RIDE, SADE: factor on the cosines."""
    defer: float = 0.8
    """LDAM, RIDE: part of the epochs before classes are re-weighted."""
    mixup: float = 0.2
    """MiSLAS: both parameters of the Beta distribution that images are mixed by."""
    smooth_head: float = 0.4
    """MiSLAS: label smoothing of the most frequent class."""
    smooth_tail: float = 0.1
    """MiSLAS: label smoothing of the rarest class."""
    reject: int = 8
    """BAGS: images of other groups that are kept per image of a group."""
    diversity: float = 0.2
    """RIDE: factor on the experts' divergence from their mean."""
    spread: float = 0.05
    """RIDE: how far the temperature of a class follows its frequency, 0 to 1."""
    inverse: float = 2.0
    """SADE: factor on the log of the inverse prior."""
    meta: int = 10
    """MFM: images of every class in the balanced set, as far as the smallest class has them."""
    meta_lr: float = 0.1
    """MFM: learning rate of the modulator."""

    def __post_init__(self) -> None:
        for name in ("scale", "mixup", "meta_lr"):
            if getattr(self, name) <= 0:
                raise ValueError(f"peer.{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("gamma", "tau", "margin", "diversity", "inverse", "reject"):
            if getattr(self, name) < 0:
                raise ValueError(f"peer.{name} is {getattr(self, name)}; it must be at least 0.")
        for name in ("defer", "smooth_head", "smooth_tail", "spread"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"peer.{name} is {getattr(self, name)}; it is a part, 0 to 1.")
        if not 0 <= self.beta < 1:
            raise ValueError(f"peer.beta is {self.beta}; give 0 (equal weights) to below 1.")
        if self.meta < 1:
            raise ValueError(f"peer.meta is {self.meta}; the balanced set has at least 1 image of every class.")
