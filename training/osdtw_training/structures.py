"""Coordinates in which a layer's statistics are taken to be diagonal (theory.md section 5).

A layer's parameters are a matrix (rows, columns). *Diagonal* takes the parameters as they are. *EKFAC* turns them into
the eigenvectors of the two Kronecker factors, average outer products of what enters the layer and of what comes back
to its output, and measures every second moment anew in there: traces are exact, as in any orthonormal coordinates.
(The eigenvalues' products, plain K-FAC, are no measure: their traces are several times off.) One basis serves all
tasks and statistics; damping, a multiple of the identity, looks the same in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from torch import Tensor


class Structure(Enum):
    """What is neglected inside a block."""

    DIAGONAL = "diagonal"
    """Everything between two parameters."""
    EKFAC = "ekfac"
    """Everything between two coordinates of the layer's Kronecker eigenbasis (George et al. 2018)."""


@dataclass(frozen=True)
class Coordinates:
    """Orthonormal coordinates of one layer, and the scale of its filters.

    Args:
        rows: Eigenvectors on the side of the output channels, shape (rows, rows); none = as they are.
        columns: Eigenvectors on the side of the inputs, shape (columns, columns); none = as they are.
    """

    rows: Tensor | None = None
    columns: Tensor | None = None

    def turn(self, matrices: Tensor) -> Tensor:
        """Parameters or gradients, shape (..., rows, columns), in these coordinates."""
        if self.rows is None or self.columns is None:
            return matrices
        return self.rows.T @ matrices @ self.columns
