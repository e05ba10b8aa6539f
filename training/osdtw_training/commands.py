"""A recipe -> the command that trains by it: a packaged recipe and the options in which this one differs."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from osdtw_models.sources.timm_names import is_timm_name
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_files import packaged_recipes, read_recipe

PLACES = ("data_dir",)  # where the data lie is their owner's own affair
STANDARD = "folder"


def train_command(recipe: Recipe) -> str:
    """The command that trains by a recipe.

    Args:
        recipe: The recipe.

    Returns:
        ``osdtw-train NAME`` and an option for every field that is not as in the packaged recipe of that name ("folder"
        where there is none). Files and folders are cut to their last part, and ``--data-dir`` is left out.
    """
    name = recipe.name if recipe.name in packaged_recipes() else STANDARD
    return shlex.join(["osdtw-train", name, *_options(recipe, read_recipe(name))])


def _options(ours: Any, theirs: Any, table: str = "") -> Iterator[str]:
    """Words for the fields in which two dataclasses of one kind differ."""
    for field in dataclasses.fields(ours):
        value, other = getattr(ours, field.name), getattr(theirs, field.name)
        option = f"{table}{field.name.replace('_', '-')}"
        if dataclasses.is_dataclass(value):
            yield from _options(value, other, f"{option}.")
        elif value == other or field.name in PLACES:
            continue
        elif isinstance(value, bool):
            yield f"--{option}" if value else f"--{table}no-{option.removeprefix(table)}"
        else:
            yield from [f"--{option}", *map(_word, value if isinstance(value, tuple) else [value])]


def _word(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, float):
        return str(value).removesuffix(".0")
    called = Path(value).name if isinstance(value, str) and not is_timm_name(value, None) else ""
    return called or str(value)
