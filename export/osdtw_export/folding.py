"""Batch norm -> the convolution before it.

Which convolution that is, is seen in a run: names tell it in one family and not in the next. torch's exporter folds,
too, but has folded wrongly before (pytorch#166797), and packing needs convolutions alone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from timm.layers import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norm(model: nn.Module, images: Tensor) -> None:
    """Fold every batch norm into the convolution whose output it takes, in place; activations inside stay.

    Args:
        model: A network in eval mode.
        images: Images to run it on, shape (B, C, H, W); their values do not matter.
    """
    convs = _sources(model, images)
    norms = defaultdict(set)
    for norm, conv in convs.items():
        norms[conv].add(norm)
    changed: dict[nn.Module, nn.Module] = {}
    for norm, conv in convs.items():
        if len(norms[conv]) == 1:
            assert isinstance(norm, nn.BatchNorm2d)
            changed[conv] = fuse_conv_bn_eval(conv, norm)
            changed[norm] = norm.act if isinstance(norm, BatchNormAct2d) else nn.Identity()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child in changed:
                setattr(parent, name, changed[child])


@torch.no_grad()
def _sources(model: nn.Module, images: Tensor) -> dict[nn.Module, nn.Conv2d]:
    """The convolution that feeds each batch norm; norms fed by several are left out."""
    found: dict[nn.Module, set[nn.Module | None]] = defaultdict(set)

    def mark(conv: nn.Module, _: Any, output: Tensor) -> None:
        output._made_by = conv  # type: ignore[attr-defined]

    def look(norm: nn.Module, inputs: tuple[Tensor]) -> None:
        found[norm].add(getattr(inputs[0], "_made_by", None))

    hooks = []
    for module in model.modules():
        # Subclasses may compute their weights or outputs in another way.
        if type(module) is nn.Conv2d:
            hooks.append(module.register_forward_hook(mark))
        elif type(module) in (nn.BatchNorm2d, BatchNormAct2d):
            hooks.append(module.register_forward_pre_hook(look))
    model(images)
    for hook in hooks:
        hook.remove()
    lone = {norm: next(iter(convs)) for norm, convs in found.items() if len(convs) == 1}
    return {norm: conv for norm, conv in lone.items() if isinstance(conv, nn.Conv2d)}
