"""The fields of a recipe, each with a default, and what follows from their values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from osdtw_training.recipe_tables import Joint, Peer, Refit, Schedule, Search, Warmup

TWO_STAGES = ("crt", "lws", "mislas", "bags")


@dataclass(frozen=True)
class RecipeFields:
    """A recipe whose values nobody has checked; see `osdtw_training.recipe.Recipe`."""

    name: str = "unnamed"
    """Name of the recipe; its file's name if the file states none."""
    method: Literal[
        "osdtw",
        "cross_entropy",
        "focal",
        "class_balanced",
        "balanced_softmax",
        "logit_adjustment",
        "logit_adjustment_post_hoc",
        "ldam_drw",
        "crt",
        "lws",
        "tau_norm",
        "ncm",
        "mislas",
        "bags",
        "ride",
        "sade",
        "nbn",
        "mfm",
    ] = "osdtw"
    """Training method; all methods share one engine."""
    model: str = "osdtw_resnet20"
    """Registered architecture."""
    widths: tuple[int, ...] | None = None
    """Stage widths of a CIFAR ResNet; none = the model's."""
    backbone_weights: str = "none"
    """What training starts from: "none" (random values), "timm" (timm's weights of the backbone, fetched once), or a
    safetensors file of them."""
    data: str = "digits"
    """"digits", "cifar10", "cifar100", "imagenet_lt", "places_lt", "inaturalist2018", a list of training images (.txt,
    .csv), a name that timm knows ("torch/...", "hfds/...") or a folder of class folders."""
    data_dir: str | None = None
    """For CIFAR: folder of parquet files in the Hub's layout, or torchvision's folder; none = the Hub. For lists: the
    folder that their paths start from; none = the list's own. For timm's names: what timm calls root."""
    test_list: str | None = None
    """List of test images, where data is a list."""
    val_list: str | None = None
    """List of validation images, where data is a list: they are held out, and all training images trained on."""
    class_names: str | None = None
    """File with the name of one class a line, for lists that have numbers only."""
    broken: Literal["leave_out", "error"] = "leave_out"
    """Image files that cannot be read: left out, named and counted; or an error. Nothing is put in their place."""
    imbalance_factor: float | None = None
    """Largest over smallest class after sub-sampling by the protocol's profile; none = take the data as it is."""
    holdout: float = 0.05
    """Part of each class's training images kept for decisions (rounded down: tiny classes keep all). Where the data
    have validation images beside test images, those are kept instead; 0 = none."""
    holdout_least: int = 0
    """Images kept of every class that has more, however small the part: 1 puts every class that can on both sides."""
    img_size: int | None = None
    """Side of the images in pixels; none = the model's."""
    mean: tuple[float, float, float] | None = None
    """Channel means that images are normalised with (pixels in 0 to 1); none = the model's."""
    std: tuple[float, float, float] | None = None
    """Channel standard deviations; none = the model's."""
    crop: Literal["padded", "resized"] = "padded"
    """"padded": small images, held in memory, random crops from the padded image; "resized": photographs, read from
    their files every epoch, random parts of them scaled to size (timm's training transform)."""
    crop_pad: int = 4
    """Padding of "padded" crops, in pixels."""
    crop_scale: tuple[float, float] = (0.08, 1.0)
    """Smallest and largest part of a photograph that a "resized" crop takes."""
    color_jitter: float = 0.0
    """How far brightness, contrast and saturation of a photograph are changed at most, each way; 0 = not at all."""
    flip: bool = True
    """Random horizontal flips."""
    cutout: int = 0
    """Side of a random grey square (Cutout), in pixels; 0 = none."""
    auto_augment: bool = False
    """Change colours and geometry by AutoAugment's policy (Cubuk et al. 2019) for CIFAR ("padded") or ImageNet."""
    cutmix: Literal["none", "instance", "balanced"] = "none"
    """Paste a random box of another "padded" image into some images, labels in proportion (CutMix): of any image, or
    of every class as often (CMO: rare things before the backgrounds of frequent ones)."""
    cutmix_part: float = 0.5
    """Part of the images that get such a box."""
    num_tasks: int = 2
    """Tasks of equal class count, most frequent first."""
    head_threshold: int | None = None
    """Two tasks instead: head = classes with more training images than this."""
    fusion: Literal["raw", "valid", "pool", "mean"] = "raw"
    """How task posteriors become one (theory.md Prop 2); "mean" belongs to an open "none" (Prop 9)."""
    open_none: bool = False
    """Each task tells the classes behind its "none" apart, too: a second opinion on every class."""
    open_share: float = 1.0
    """Part that telling them apart has of the loss of an image that is "none" to a task, 0 to 1."""
    none_weights: bool = True
    """True: weight "none" samples by class (Prop 8 (i)); False: offsets at test time (Prop 8 (ii))."""
    none_clip: float = 10.0
    """"none" weights are clipped at this multiple of their median."""
    calibrate: bool = False
    """Fit a temperature per task (one of all where fusion is "mean") on the held-out images, and a group bias where
    every class has some; they are saved with the network."""
    shared_depth: int | None = None
    """Shared blocks; none = the search decides."""
    task_weights: tuple[float, ...] | None = None
    """Weights of the tasks in joint training, sum 1; none = the search decides."""
    sampler: Literal["instance", "balanced"] = "instance"
    """"instance": every image once an epoch; "balanced": as many draws, every class as likely."""
    eval_metric: Literal["last", "balanced_acc", "top1", "macro_f1", "nll"] = "last"
    """Which epoch of the last stage counts: the last, or the best of them by a figure of the held-out images."""
    class_weights: str = "none"
    """Factor on each image's loss by class: "none"; "auto": inverse to how often its class is shown; or a CSV or JSON
    file of class names and weights. Only ratios matter: the mean over what is shown becomes 1."""
    seed: int = 0
    """Seed of the initial weights, the sub-samples, the order of images and their augmentation."""
    batch_size: int = 128
    """Images per step."""
    weight_decay: float = 5e-4
    """L2 penalty on convolutions and classifiers."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """"adamw" is what transformers want. The search takes its damping from SGD's rates, so give the plan with it."""
    momentum: float = 0.9
    """Nesterov momentum of "sgd"."""
    ema: float = 0.0
    """Decay of the running average of weights and of batch-norm statistics that every stage ends with, as timm's
    ModelEmaV3 takes it, from the stage's start; 0 = none."""
    accumulate: int = 1
    """Micro-batches that a batch is split into, one after the other: less memory, the same gradients, but batch norm
    (and what a peer computes over a batch: mixup, BAGS' draws, LDAM's weights) sees micro-batches."""
    grad_checkpointing: bool = False
    """Recompute each block in the backward pass: less memory, the same result, a third more time."""
    compile: bool = False
    """Compile each block with torch.compile (needs a C++ compiler); results then differ in the last bits."""
    amp: Literal["none", "bfloat16", "float16"] = "none"
    """Type of the forward pass; bfloat16 is faster where the processor has it. "float16", with its loss scaled, is for
    GPUs that have no bfloat16."""
    threads: int = 1
    """CPU threads of each process; 0 = all, shared by the processes of a machine."""
    workers: int = 0
    """Processes that read photographs ahead; the result does not depend on them."""
    device: str = "cpu"
    """Torch device."""
    peer: Peer = field(default_factory=Peer)
    """Hyper-parameters of the peers."""
    train: Schedule = field(default_factory=Schedule)
    """The first stage of all methods but OSDTW; the second of two-stage peers is ``refit``."""
    warmup: Warmup = field(default_factory=Warmup)
    """Stage 0: the common warm-up."""
    tasks: Schedule = field(default_factory=Schedule)
    """Stage 1: each task alone (costs K passes per epoch)."""
    search: Search = field(default_factory=Search)
    """Statistics and search."""
    joint: Joint = field(default_factory=Joint)
    """Stage 2: weighted joint training."""
    refit: Refit = field(default_factory=Refit)
    """Stage 3: decoders on the frozen encoder."""

    @property
    def searched(self) -> bool:
        """Whether the search decides on depth or weights."""
        return self.method == "osdtw" and (self.shared_depth is None or self.task_weights is None)

    @property
    def holds_out(self) -> bool:
        """Whether training images are kept for decisions."""
        return bool(self.holdout or self.holdout_least)

    def result_stage(self) -> str:
        """The stage whose network is the run's result."""
        if self.method == "osdtw":
            return "refit" if self.refit.decoders == "refit" and self.refit.epochs else "joint"
        return "refit" if self.method in TWO_STAGES and self.refit.epochs else "train"

    def passes(self) -> int:
        """Passes over the training images in all stages, each task of stage 1 and its replicates counted."""
        if self.method != "osdtw":
            return self.train.epochs + (self.refit.epochs if self.method in TWO_STAGES else 0)
        refit = self.refit.epochs if self.refit.decoders == "refit" else 0
        # Two halves of the images make one more pass.
        tasks = self.num_tasks * self.tasks.epochs * (2 if self.searched and self.search.replicates else 1)
        return self.warmup.epochs + tasks + self.joint.epochs + refit
