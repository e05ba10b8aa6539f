"""Pure: responses -> error terms when the decoders are refit on the shared encoder (Prop 5), nothing taken as diagonal.

A decoder that is trained on the encoder it gets makes up for much of what the encoder lost. What remains of a change v
of blocks 1 .. d is v' S v with the Schur complement S = J_ff - J_fp J_pp^-1 J_pf (f: encoder, p: decoder). As a least
squares problem over images it is the part of the slopes g_f . v that the decoder's gradients g_p cannot explain, and
needs no matrix but the Gram matrix of the g_p. Decoders have more parameters than there are images and would explain
everything of the images they are fitted to; so what is counted is what they leave unexplained on *other* images: of
each image what a fit to all the others leaves. All depths share the slopes and sums of Gram matrices.
"""

from __future__ import annotations

import torch
from torch import Tensor

from osdtw_training.responses import Responses
from osdtw_training.terms import Terms

# Penalties that a decoder's fit may choose from, in units of the damping: its training stops where that helps.
PENALTIES = (1.0, 30.0, 1000.0)


def error_terms(responses: Responses, weights: Tensor, damping: float = 1.0, debias: bool = True) -> Terms:
    """Error terms of all depths and the given task weightings, decoders refit.

    A shared block is taken to settle at sum_k w_k phi_k, where joint training starts: a training of the usual length
    does not resolve what lies between the tasks by their curvatures (docs/proxy.md). The three terms follow as in
    Prop 4, with the Schur complements in place of the Fishers, and the noise of the replicates in place of V. Decoder
    variance is what the noise of a whole network of its own costs, less what of it an encoder of its own would cost.

    Args:
        responses: Responses of the trained tasks, L blocks.
        weights: Task weightings, shape (G, K).
        damping: Factor on the responses' damping.
        debias: Whether the displacement that noise alone would show is taken off the bias (Prop 7).

    Returns:
        The terms, float64.
    """
    weights = weights.double()
    tasks = responses.num_tasks
    noise = [responses.slopes[k, :, tasks - 1 + k].double().sum(0) for k in range(tasks)]
    alone = 0.5 * torch.stack([each.square() for each in noise]).sum(0)  # (n,)
    nothing = torch.zeros(len(weights), responses.samples, dtype=torch.float64)
    variance, bias, decoder = [nothing], [nothing], [alone]
    for depth in range(1, responses.num_blocks + 1):
        left = torch.stack([unexplained(responses, k, depth, damping) for k in range(tasks)])
        terms = _terms_at(left, weights, debias)
        variance.append(terms[0])
        bias.append(terms[1])
        decoder.append(alone - terms[2])
    stacked = [torch.stack(each) for each in (variance, bias, decoder)]
    units = stacked[0] + stacked[1] + stacked[2][:, None]
    return Terms(weights, stacked[0].sum(-1), stacked[1].sum(-1), stacked[2].sum(-1), units, sampled=True)


def unexplained(responses: Responses, task: int, depth: int, damping: float = 1.0) -> Tensor:
    """What is left of the slopes along moves of blocks 1 .. d after the decoder above has done what it can.

    Args:
        responses: The responses.
        task: Number of the task.
        depth: Number of shared blocks d.
        damping: Factor on the responses' damping.

    Returns:
        Shape (D, n), for moves of all these blocks at once; sums of products over images are the Schur complement.
    """
    slopes = responses.slopes[task, :depth].double().sum(0)
    gram = responses.gram[task, depth:].double().sum(0)
    fits = [left_out(slopes, gram, penalty * damping * responses.damping) for penalty in PENALTIES]
    tried = torch.stack([*fits, slopes])  # a decoder may also stay as it is
    # One fit for all moves: the penalty that leaves least, each move counted in shares of itself.
    total = tried.square().sum(-1)
    return tried[int((total / total[-1].clamp(min=1e-300)).sum(1).argmin())]


def left_out(values: Tensor, gram: Tensor, gamma: float) -> Tensor:
    """Residuals of a ridge regression, each image's from a fit to all other images.

    With K = gram + gamma, the residual of image i is (K^-1 v)_i / (K^-1)_ii: the fit without it need not be made.

    Args:
        values: Values to explain, shape (R, n).
        gram: Gram matrix of the features of the images, shape (n, n).
        gamma: Penalty on the squared length of the coefficients, above 0.

    Returns:
        Values less what their images' features explain, shape (R, n).
    """
    penalised = gram.clone()
    penalised.diagonal().add_(gamma)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(penalised))
    return values @ inverse / inverse.diagonal()


def _terms_at(left: Tensor, weights: Tensor, debias: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Encoder variance (G, n), encoder bias (G, n) and what private encoders would cost (n,), image by image."""
    tasks = len(left)
    displaced, noise = left[:, : tasks - 1], left[:, tasks - 1 :]
    variance = torch.zeros(len(weights), left.shape[-1], dtype=left.dtype)
    bias, private = torch.zeros_like(variance), torch.zeros_like(variance[0])
    for k in range(tasks):
        away = weights - torch.eye(tasks, dtype=left.dtype)[k]  # (G, K)
        variance += 0.5 * (weights @ noise[k]).square()
        bias += 0.5 * (away[:, 1:] @ displaced[k]).square()
        if debias:
            bias -= 0.5 * (away @ noise[k]).square()
        private += 0.5 * noise[k, k].square()
    return variance, bias, private
