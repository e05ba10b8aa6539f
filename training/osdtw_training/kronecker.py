"""Kronecker factors of a layer's Fisher information: what its eigenbasis is found from (theory.md section 5)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from osdtw_training.distributed import summed, take_from_first
from osdtw_training.gradients import patches, positions
from osdtw_training.layers import Layer, own_matrix
from osdtw_training.structures import Coordinates


class KroneckerFactors:
    """Running sums of a layer's two Kronecker factors, over all tasks.

    Args:
        layer: The layer.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.inputs: Any = 0.0
        self.outputs: Any = 0.0

    def add(self, task: int, inputs: Tensor, arriving: Tensor, weights: Tensor) -> None:
        """Add a batch.

        Args:
            task: Number of the task.
            inputs: What went in, shape (B, ...).
            arriving: Gradients at the output, shape (R, B, ...).
            weights: Weight of each, shape (R, B).
        """
        module = self.layer.modules[task]
        read, back = patches(module, inputs), positions(module, arriving)  # (B, columns, Q), (R, B, rows, Q)
        if self.layer.length is not None:
            back = back * (own_matrix(module).norm(dim=-1, keepdim=True) / self.layer.length)
        total = weights.sum(0)
        self.inputs = self.inputs + torch.einsum("b,bip,bjp->ij", total, read, read)
        self.outputs = self.outputs + torch.einsum("rb,rbip,rbjp->ij", weights, back, back)

    def coordinates(self) -> Coordinates:
        """Eigenvectors of both factors, summed over processes."""
        factors = (summed(factor).double() for factor in (self.outputs, self.inputs))
        rows, columns = (torch.linalg.eigh(factor)[1] for factor in factors)
        take_from_first([rows, columns])  # eigenvectors are known up to their signs
        return Coordinates(rows.to(self.outputs.dtype), columns.to(self.inputs.dtype))
