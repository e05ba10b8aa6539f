"""Cross-entropy on the images as they are: what every gain in the field is counted from."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from osdtw_models.network import OsdtwNet
from osdtw_training.data import LongTailedData
from osdtw_training.methods.single import each_cross_entropy, train_plain
from osdtw_training.recipe import Recipe
from osdtw_training.runs import Run


def train(
    recipe: Recipe,
    data: LongTailedData,
    run: Run,
    judge: Callable[[OsdtwNet, Tensor], Tensor] | None = None,
) -> OsdtwNet:
    """Train the plain backbone by cross-entropy; ``judge``: see `train_plain`."""
    return train_plain(recipe, data, run, each_cross_entropy, judge=judge)
