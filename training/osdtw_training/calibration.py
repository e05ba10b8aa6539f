"""Temperatures and group biases of the tasks, fitted on held-out images (Guo et al. 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from osdtw_models.image_set import ImageSet, normalise
from osdtw_models.network import OsdtwNet

# Log-temperatures and biases beyond this need evidence: a handful of held-out images must not move them far.
PRIOR_SCALE = 0.5


def fit_calibration(network: OsdtwNet, images: ImageSet, batch_size: int = 100) -> list[list[float]]:
    """Fit on held-out images; the network itself is not changed.

    Args:
        network: The trained network, in evaluation mode, without calibration.
        images: Held-out images.
        batch_size: Images per pass.

    Returns:
        Per task [temperature, group bias], as `OsdtwNet.set_calibration` takes them.
    """
    return fit_logits(network, task_logits(network, images, batch_size), images.labels)


def task_logits(network: OsdtwNet, images: ImageSet, batch_size: int = 100) -> list[Tensor]:
    """Logits of each task, uncalibrated.

    Args:
        network: The network, in evaluation mode.
        images: N images.
        batch_size: Images per pass.

    Returns:
        One tensor per task, shapes (N, n_k + 1), on the CPU.
    """
    mean, std = network.pretrained_cfg["mean"], network.pretrained_cfg["std"]
    parts = []
    with torch.inference_mode():
        for batch in images.images.split(batch_size):
            parts.append(network.forward_outputs(normalise(batch, mean, std).to(network.class_position.device)))
    return [torch.cat(each).cpu() for each in zip(*parts, strict=True)]


def fit_logits(
    network: OsdtwNet,
    logits: list[Tensor],
    labels: Tensor,
    *,
    biased: bool | None = None,
    shared: bool | None = None,
) -> list[list[float]]:
    """Temperatures and biases of least fused cross-entropy, drawn towards 1 and 0.

    Every class that has images weighs the same within its task, and every task as many times as it has classes: large
    classes are held out more often, and some of the small ones not at all. Where a class has none the biases stay 0:
    those of its task that have some are larger ones, told better, and a bias that suits them costs the small ones.

    Where the fused answer is a mean over the tasks, all share one temperature: it changes no answer, while one for each
    would weigh the tasks against each other, and few held-out images say too little about that.

    Args:
        network: Says how logits are fused.
        logits: Uncalibrated logits of each task, shapes (N, n_k + 1).
        labels: Classes, shape (N,).
        biased: Whether biases are fitted; by default where every class has images.
        shared: Whether one temperature serves all tasks; by default where their mean is the answer.

    Returns:
        Per task [temperature, group bias].
    """
    z, weights = [each.double() for each in logits], image_weights(network, labels)
    biased = len(labels.unique()) == network.num_classes if biased is None else biased
    shared = network.fusion == "mean" if shared is None else shared
    log_temperatures = torch.zeros(1 if shared else len(z), dtype=torch.float64, requires_grad=True)
    biases = torch.zeros(len(z), dtype=torch.float64, requires_grad=True)
    free = [log_temperatures, biases]
    solver = torch.optim.LBFGS(free, max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-9)

    def loss() -> Tensor:
        solver.zero_grad()
        scores = network.fuse_with(z, log_temperatures.exp().expand(len(z)), biases * biased)
        likelihood = (weights * torch.nn.functional.cross_entropy(scores, labels, reduction="none")).sum()
        value = likelihood + torch.cat(free).square().sum() / (2 * PRIOR_SCALE**2 * len(labels))
        value.backward()
        return value

    solver.step(loss)
    return torch.stack([log_temperatures.exp().expand(len(z)), biases], 1).tolist()


def image_weights(network: OsdtwNet, labels: Tensor) -> Tensor:
    """Weight of each held-out image, see `fit_logits`; shape (N,), sum 1."""
    counts = torch.bincount(labels, minlength=network.num_classes).double()
    weights = torch.zeros(network.num_classes, dtype=torch.float64)
    for task in network.partition.tasks:
        seen = [c for c in task if counts[c]]
        for c in seen:
            weights[c] = len(task) / len(seen) / counts[c]
    return weights[labels] / weights[labels].sum()
