"""Batch norm in training over the images of all processes, as if one process had them.

torch's SyncBatchNorm does this on GPUs only. Here mean and variance are one exchange in the forward pass and their
gradients one in the backward pass; the heavy work is left to torch's own kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from osdtw_training import distributed


@contextmanager
def global_batch_norm(network: nn.Module) -> Iterator[None]:
    """While it is open, every batch norm of a network that is in training mode sees the images of all processes.

    Args:
        network: The network; names and parameters of its modules stay as they are.

    Yields:
        Nothing.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    norms = norms if distributed.processes() > 1 else []
    for norm in norms:
        norm.forward = partial(_forward, norm)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward


@torch.compiler.disable  # type: ignore[untyped-decorator]  # what processes exchange is no part of a compiled graph
def _forward(norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """(B, C, H, W) -> the same, normalised; the running statistics are updated as by `nn.BatchNorm2d`."""
    if not norm.training:
        return type(norm).forward(norm, x)
    x, mean, variance, count = _Normalised.apply(x, norm.weight, norm.bias, norm.eps)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean, momentum)
    norm.running_var.lerp_(variance * count / (count - 1), momentum)
    return norm.act(norm.drop(x)) if isinstance(norm, BatchNormAct2d) else x


class _Normalised(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The normalised batch; mean, variance and number of values of all processes."""
        exact = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        mean, variance = torch.batch_norm_update_stats(exact, None, None, 0.0)
        count = torch.full_like(mean, x.numel() / x.shape[1])
        variances, means, counts = distributed.stacked(torch.stack([variance, mean, count])).unbind(1)
        count = counts.sum(0)
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean).square())).sum(0) / count
        context.save_for_backward(x, weight, mean, variance, count)
        context.eps = eps
        context.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        """The gradient with mean and variance held fixed, and what flows back through them."""
        x, weight, mean, variance, count = context.saved_tensors
        fixed, scale, shift = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, variance, None, None, False, context.eps, [True, True, True]
        )
        # What flows back through them is an affine function of x by channel (Ioffe and Szegedy 2015): a batch norm.
        all_scale, all_shift = distributed.summed(torch.stack([scale, shift]))
        factor = -weight * (variance + context.eps).rsqrt() / count
        moved = F.batch_norm(x, mean, variance, factor * all_scale, factor * all_shift, False, 0.0, context.eps)
        return fixed + moved, scale, shift, None
