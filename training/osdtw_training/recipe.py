"""What one run is: a frozen dataclass whose every field has a default, checked when it is made."""

from __future__ import annotations

from dataclasses import dataclass

from osdtw_training.recipe_checks import check_fields
from osdtw_training.recipe_fields import RecipeFields


@dataclass(frozen=True)
class Recipe(RecipeFields):
    """Everything that decides a run's result."""

    def __post_init__(self) -> None:
        check_fields(self)
