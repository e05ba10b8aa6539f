"""MiSLAS (Zhong et al. 2021): mixup, then smoother labels for frequent classes and shifted batch norm.

Mixup with alpha 0.2, smoothing from 0.4 (most frequent class) to 0.1 (rarest) along a sine, and learned scales of the
logits beside the classifier are the paper's for CIFAR-100-LT of imbalance 100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.class_weights import class_weights
from osdtw_training.data import LongTailedData
from osdtw_training.distributed import gathered, share
from osdtw_training.methods.decoupled import Scales, fold_scales, second_stage
from osdtw_training.methods.single import Draws, each_cross_entropy, only_classifier, train_plain
from osdtw_training.networks import recalibrate_batch_norm
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def smoothing(counts: Sequence[int], head: float, tail: float) -> Tensor:
    """Smoothing of each class: ``tail`` for the rarest, rising along a quarter sine to ``head`` (equation 6, concave).

    Args:
        counts: Training images per class, length C.
        head: Smoothing of the most frequent class.
        tail: Smoothing of the rarest class.

    Returns:
        Shape (C,).
    """
    number = torch.tensor(counts, dtype=torch.float64)
    place = (number - number.min()) / max(float(number.max() - number.min()), 1)
    return (tail + (head - tail) * torch.sin(place * math.pi / 2)).float()


def label_aware_loss(logits: Tensor, labels: Tensor, smooth: Tensor) -> Tensor:
    """Cross-entropy with 1 - eps_y on the true class and eps_y spread over the others (equation 5), of each image.

    Args:
        logits: Shape (B, C).
        labels: Shape (B,).
        smooth: Smoothing of each class, shape (C,).

    Returns:
        Shape (B,), in nats.
    """
    missed = -F.log_softmax(logits, -1)
    own = missed.gather(1, labels[:, None]).squeeze(1)
    others = (missed.sum(1) - own) / (logits.shape[1] - 1)
    return (1 - smooth[labels]) * own + smooth[labels] * others


def train(recipe: Recipe, data: LongTailedData, run: Run) -> OsdtwNet:
    """Mixup over ``[train]``, then classifier and scales over ``[refit]`` on class-balanced batches."""
    draws, mixed = Draws(recipe), _Mixed()
    weights = class_weights(data.train_batches(recipe))

    def logits_of(network: OsdtwNet, images: Tensor) -> Tensor:
        mixed.share = draws.beta(recipe.peer.mixup)
        whole = gathered(images)
        mixed.order = draws.permutation(len(whole)).to(images.device)
        others = whole[mixed.order[share(len(whole))]]
        return network.forward_task(mixed.share * images + (1 - mixed.share) * others, 0)

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        other = labels[mixed.order]
        relative = weights[other] / weights[labels]  # the rest belongs to another class, with a weight of its own
        both = each_cross_entropy(logits, labels), relative * each_cross_entropy(logits, other)
        return mixed.share * both[0] + (1 - mixed.share) * both[1]

    network = train_plain(recipe, data, run, loss, logits_of, draws.begin)
    classifier, scales = only_classifier(network), Scales(len(data.counts)).to(recipe.device)
    network.add_module("scales", scales)  # saved with the stage's checkpoint
    smooth = smoothing(data.counts, recipe.peer.smooth_head, recipe.peer.smooth_tail).to(recipe.device)
    balanced = data.train_batches(replace(recipe, sampler="balanced"))
    recalibrate_batch_norm(network, balanced, recipe.train.epochs)  # shifted: the statistics of balanced batches

    def scaled_logits(features: Tensor) -> Tensor:
        return cast("Tensor", scales(classifier(features)))

    criterion = partial(label_aware_loss, smooth=smooth)
    second_stage(recipe, data, run, network, [classifier, scales], scaled_logits, criterion)
    fold_scales(network, classifier)
    return network


class _Mixed:
    """How the present batch was mixed: the share of each image, and whose the rest is."""

    share: float
    order: Tensor
