"""The error terms of every plan: what a proxy says, however it came by it."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """Error terms in nats, for depths d = 0 .. L and G task weightings.

    Args:
        weights: Task weightings, shape (G, K), rows sum to 1.
        encoder_variance: Shape (L + 1, G): of blocks 1 .. d when shared.
        encoder_bias: Shape (L + 1, G).
        decoder_variance: Shape (L + 1,): of what every decoder has to itself.
        units: The proxy as a sum over U like parts, shape (L + 1, G, U).
        noise_scale: Factor that the displacement allowed on the sampling noise, see `proxy.noise_scale`.
        sampled: Whether the parts are images, so that their scatter is the error of having looked at a sample.
    """

    weights: Tensor
    encoder_variance: Tensor
    encoder_bias: Tensor
    decoder_variance: Tensor
    units: Tensor
    noise_scale: float = 1.0
    sampled: bool = False

    @property
    def proxy(self) -> Tensor:
        """Sum of the three terms, shape (L + 1, G)."""
        return self.encoder_variance + self.encoder_bias + self.decoder_variance[:, None]

    def standard_error(self, depth: int, column: int) -> Tensor:
        """Standard error of every plan's difference to one plan, from the scatter of the parts: shape (L + 1, G)."""
        apart = self.units - self.units[depth, column]
        return apart.std(-1) * apart.shape[-1] ** 0.5
