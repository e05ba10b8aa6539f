"""How images must be prepared for a recipe's model: what the recipe says, and where it is silent what timm knows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from timm.models import get_pretrained_cfg, list_models

import osdtw_models  # noqa: F401  (registers the names)
from osdtw_training.recipe import Recipe


@dataclass(frozen=True)
class Preparation:
    """What becomes of an image before a network sees it.

    Args:
        img_size: Side in pixels.
        mean: Mean per channel, of pixels scaled to 0 .. 1.
        std: Standard deviation per channel.
        crop_pct: Part of the scaled image's short side that is kept at test time.
        interpolation: "bilinear" or "bicubic".
    """

    img_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_pct: float
    interpolation: str


@cache
def preparation(recipe: Recipe) -> Preparation:
    """The preparation of a recipe.

    Args:
        recipe: Names the model, and what differs from it.

    Returns:
        The preparation.

    Raises:
        ValueError: If the model is not one of ours.
    """
    known = list_models("osdtw_*")
    if recipe.model not in known:
        raise ValueError(f"Unknown model {recipe.model!r}; choose one of {', '.join(known)}.")
    cfg = get_pretrained_cfg(recipe.model)
    assert cfg is not None
    assert cfg.input_size is not None
    return Preparation(
        recipe.img_size or cfg.input_size[-1],
        tuple(recipe.mean or cfg.mean),
        tuple(recipe.std or cfg.std),
        cfg.crop_pct if recipe.crop == "resized" else 1.0,
        cfg.interpolation if recipe.crop == "resized" else "bilinear",
    )
