"""What a network costs at every shared depth, before anyone trains it: parameters and multiply-adds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from osdtw_models.decoder import Decoder
from osdtw_models.network import OsdtwNet


class Amount(TypedDict):
    """Parameters, or multiply-adds per image: of the encoder, of each decoder with norm and classifier, and of all."""

    shared: int
    tasks: list[int]
    total: int


class Cost(TypedDict):
    """Cost of a network that shares ``shared_depth`` blocks; ``ratio``: its multiply-adds to its own blocks' once."""

    shared_depth: int
    parameters: Amount
    multiply_adds: Amount
    ratio: float


@dataclass(frozen=True)
class _Part:
    """One block, or what follows the last one."""

    parameters: int
    multiply_adds: int


def cost(model: OsdtwNet, shared_depth: int | None = None, img_size: int | None = None) -> Cost:
    """Cost of a network at its own shared depth or at another one.

    Multiply-adds are those of convolutions, linear layers and attention, as torch's own counter has them; the plain
    backbone is the same blocks once, of the same widths, with one classifier over all classes and no "none".

    Args:
        model: The network; it is neither run nor changed.
        shared_depth: Shared depth to tell the cost of, 0 to L; the network's own by default.
        img_size: Side of the images in pixels; by default that of the network's pretrained config.

    Returns:
        The cost for one image.

    Raises:
        ValueError: If the depth is out of range.
    """
    depth = model.shared_depth if shared_depth is None else shared_depth
    blocks, heads, plain_head = _parts(model, img_size)
    if not 0 <= depth <= len(blocks):
        raise ValueError(f"shared_depth is {depth}; choose 0 (nothing shared) to {len(blocks)} (all blocks).")
    plain = _sum([*blocks, plain_head]).multiply_adds
    encoder, private = _sum(blocks[:depth]), blocks[depth:]
    decoders = [_sum([*private, head]) for head in heads]
    total = _sum([encoder, *decoders])
    return {
        "shared_depth": depth,
        "parameters": {
            "shared": encoder.parameters,
            "tasks": [part.parameters for part in decoders],
            "total": total.parameters,
        },
        "multiply_adds": {
            "shared": encoder.multiply_adds,
            "tasks": [part.multiply_adds for part in decoders],
            "total": total.multiply_adds,
        },
        "ratio": total.multiply_adds / plain,
    }


def costs(model: OsdtwNet, img_size: int | None = None) -> list[Cost]:
    """Cost at every shared depth 0 .. L, see `cost`.

    Args:
        model: The network; it is neither run nor changed.
        img_size: Side of the images in pixels; by default that of the network's pretrained config.

    Returns:
        One cost per depth.
    """
    return [cost(model, depth, img_size) for depth in range(model.num_blocks + 1)]


@torch.no_grad()
def _parts(model: OsdtwNet, img_size: int | None) -> tuple[list[_Part], list[_Part], _Part]:
    """Every block, what follows them in every task, and in the plain backbone, on the meta device."""
    size = (img_size, img_size) if img_size else getattr(model, "pretrained_cfg", {}).get("input_size", (3, 32, 32))[1:]
    shapes = copy.deepcopy(model).to("meta").eval()
    weight = next(shapes.parameters())
    x = torch.empty(1, model.in_chans, *size, device="meta", dtype=weight.dtype)
    blocks = []
    for block in [*shapes.encoder, *shapes.branches[0].block_list()]:
        part, x = _count(block, x)
        blocks.append(part)
    # The network's own heads, then the one that a plain backbone has, with one classifier over all classes.
    branches = shapes.branches
    classifiers = [branch.classifier for branch in branches]
    plain: nn.Module = nn.Identity()
    if model.num_classes:
        plain = nn.Linear(model.decoder_features, model.num_classes, device="meta", dtype=weight.dtype)
    pairs = [*zip(branches, classifiers, strict=True), (branches[0], plain)]
    heads = [_head(branch, classifier, x, model.decoder_features) for branch, classifier in pairs]
    return blocks, heads[:-1], heads[-1]


def _head(branch: Decoder, classifier: nn.Module, x: Tensor, features: int) -> _Part:
    """Cost of what follows the last block; pooling multiplies nothing."""
    norm, _ = _count(branch.norm, x)
    neck, pooled = _count(branch.neck, x.new_empty(1, features))
    return _sum([norm, neck, _count(classifier, pooled)[0]])


def _count(module: nn.Module, x: Tensor) -> tuple[_Part, Tensor]:
    """Cost of a module, and what comes out of it."""
    with FlopCounterMode(display=False) as counter:
        out: Tensor = module(x)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return _Part(parameters, counter.get_total_flops() // 2), out


def _sum(parts: Sequence[_Part]) -> _Part:
    return _Part(sum(part.parameters for part in parts), sum(part.multiply_adds for part in parts))
