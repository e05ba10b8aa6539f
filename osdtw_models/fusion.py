"""Task logits -> class scores: the fusion rules of theory.md Prop 2, as pure functions.

Layout. ``task_logits`` is a list of K tensors; entry k has shape (B, n_k + 1), its last column is "none".
Every rule returns scores of shape (B, C) in task order (the own classes of task 0, then of task 1, ...);
the softmax over them is the fused posterior. With one task there is nothing to fuse: its logits come back.
Experts, tasks with every class each, have no "none": rule "mean" averages their logits. So it does where "none" is
open and each task has an output for every class; `close` takes their logarithmic sum for what "none" says.

Offsets. A task trained with logit offsets ``log m`` but without "none" weights (Prop 8 (ii)) gives the
training posterior only on ``z + log m``; with ``offsets`` every rule uses that posterior for what depends on
"none" and then divides each class by its ``m``. Without offsets the logits are balanced already (Prop 8 (i)).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FUSION_RULES = ("raw", "valid", "pool", "mean")


def fuse(task_logits: list[Tensor], rule: str = "raw", offsets: list[Tensor] | None = None) -> Tensor:
    """Fuse task logits by the named rule.

    Args:
        task_logits: K tensors of shape (B, n_k + 1), "none" last; for K = 1 and for experts of shape (B, C).
        rule: One of `FUSION_RULES`; "mean" is that of experts.
        offsets: Optional log-offsets ``log m`` of each task, K tensors of shape (n_k + 1,).

    Returns:
        Class scores in task order, shape (B, C).

    Raises:
        ValueError: If the rule is unknown, or is "pool" with more than two tasks.
    """
    if rule not in FUSION_RULES:
        raise ValueError(f"Unknown fusion rule {rule!r}; choose one of {', '.join(FUSION_RULES)}.")
    if len(task_logits) == 1:
        return task_logits[0]
    if rule == "valid":
        return fuse_valid(task_logits, offsets)
    if rule == "pool":
        return fuse_pool(task_logits, offsets)
    if rule == "mean":
        return fuse_mean(task_logits)
    return fuse_raw(task_logits, offsets)


def close(outputs: Tensor, own: int) -> Tensor:
    """What a task with an open "none" says of its classes and of "none".

    Args:
        outputs: Its logits, shape (B, C), own classes first.
        own: Number n_k of own classes.

    Returns:
        Logits of shape (B, n_k + 1), "none" last: the logarithm of the others' sum.
    """
    return torch.cat([outputs[:, :own], torch.logsumexp(outputs[:, own:], 1, keepdim=True)], dim=1)


def calibrate(
    task_logits: list[Tensor], temperatures: Tensor, biases: Tensor, sizes: Sequence[int] | None
) -> list[Tensor]:
    """Temperature and group bias of each task: z / T, and b more for the task's own classes than for "none".

    A temperature (Guo et al. 2017) mends how sure a task is; the bias mends how readily it claims an image.

    Args:
        task_logits: K tensors of shape (B, n_k + 1), or (B, C) without "none" or with an open one.
        temperatures: Positive, shape (K,).
        biases: Shape (K,).
        sizes: Number n_k of own classes of each task, which stand first; None where there is no "none": biases are
            then without effect.

    Returns:
        Calibrated logits of the same shapes.
    """
    scaled = [logits / temperatures[k] for k, logits in enumerate(task_logits)]
    if sizes is None:
        return scaled
    return [torch.cat([z[:, :n] + biases[k], z[:, n:]], 1) for k, (z, n) in enumerate(zip(scaled, sizes, strict=True))]


def fuse_raw(task_logits: list[Tensor], offsets: list[Tensor] | None = None) -> Tensor:
    """RAW: each task's full softmax, "none" dropped; exact at exact tasks (Prop 2).

    Args:
        task_logits: K tensors of shape (B, n_k + 1).
        offsets: Optional ``log m`` per task; then the scores are log q_k(y|x) - log m_y (Prop 8 (ii)).

    Returns:
        Scores log q_k(y | x), shape (B, C), in task order; they sum to one only after a softmax.
    """
    scores = []
    for k, logits in enumerate(task_logits):
        if offsets is None:
            scores.append(torch.log_softmax(logits, dim=-1)[:, :-1])
        else:
            scores.append(torch.log_softmax(logits + offsets[k], dim=-1)[:, :-1] - offsets[k][:-1])
    return torch.cat(scores, dim=-1)


def fuse_valid(task_logits: list[Tensor], offsets: list[Tensor] | None = None) -> Tensor:
    """VALID: condition the product of the task models on "exactly one task is not none" (Prop 2).

    Exact under the factorised model, but counts the group evidence once per task: not Bayes at exact tasks.

    Args:
        task_logits: K tensors of shape (B, n_k + 1).
        offsets: Optional ``log m`` per task.

    Returns:
        Scores z_y - z_none (less log m_none with offsets), shape (B, C), in task order.
    """
    scores = []
    for k, logits in enumerate(task_logits):
        none = logits[:, -1:] if offsets is None else logits[:, -1:] + offsets[k][-1]
        scores.append(logits[:, :-1] - none)
    return torch.cat(scores, dim=-1)


def fuse_pool(task_logits: list[Tensor], offsets: list[Tensor] | None = None) -> Tensor:
    """POOL: average the two tasks' log-odds of the group, keep each task's conditional (Prop 2).

    Exact at exact tasks; its KL error is at most the sum of the task errors. Stated for two tasks only.

    Args:
        task_logits: Two tensors of shape (B, n_k + 1).
        offsets: Optional ``log m`` per task (the form of Prop 8 (ii)).

    Returns:
        Scores, shape (B, C), in task order.

    Raises:
        ValueError: If there are not exactly two tasks.
    """
    if len(task_logits) != 2:
        raise ValueError(
            f"Fusion rule 'pool' averages two opinions on one group and is defined for 2 tasks, not "
            f"{len(task_logits)}; use 'raw'."
        )
    scores, evidence = [], []
    for k, logits in enumerate(task_logits):
        adjusted = logits if offsets is None else logits + offsets[k]
        own = torch.logsumexp(adjusted[:, :-1], dim=-1, keepdim=True)
        scores.append(logits[:, :-1] - own)
        evidence.append(own - adjusted[:, -1:])  # log-odds of "in group k", by task k
    half_log_odds = (evidence[0] - evidence[1]) / 2
    return torch.cat([scores[0] + half_log_odds, scores[1]], dim=-1)


def fuse_mean(task_logits: list[Tensor]) -> Tensor:
    """MEAN: the mean of the experts' logits, a product of their posteriors (Wang et al. 2021, RIDE).

    Log-offsets change nothing: without "none" an expert's logits are balanced without them.

    Args:
        task_logits: K tensors of shape (B, C).

    Returns:
        Scores, shape (B, C).
    """
    return torch.stack(task_logits).mean(0)
