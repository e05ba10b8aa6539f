"""Recipes from TOML files, packaged ones by name, and with some fields changed; strict about keys and types.

A recipe file holds top-level settings and one table per stage (``[warmup]``, ``[tasks]``, ``[joint]``, ``[refit]``,
``[search]``; ``[train]`` for one-stage methods) or for the peers (``[peer]``).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from osdtw_training.recipe import Recipe
from osdtw_training.toml_files import read_toml
from osdtw_training.values import from_values, to_values


def read_recipe(source: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        source: A TOML file, or the name of a packaged recipe ("digits_lt").

    Returns:
        The recipe, its missing fields at their defaults.

    Raises:
        FileNotFoundError: If there is no such file or packaged recipe.
        ValueError: If the file is not TOML, has an unknown key, or a value of the wrong type.
    """
    path = Path(source)
    if not path.is_file():
        packaged = resources.files("osdtw_training") / "recipes" / f"{source}.toml"
        if not packaged.is_file():
            raise FileNotFoundError(f"No recipe {source}; give a TOML file or one of: {', '.join(packaged_recipes())}.")
        path = Path(str(packaged))
    values = {"name": path.stem, **read_toml(path)}
    try:
        recipe = from_values(Recipe, values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    assert isinstance(recipe, Recipe)
    return recipe


def packaged_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("osdtw_training") / "recipes"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def changed(recipe: Recipe, fields: dict[str, Any]) -> Recipe:
    """A recipe with some fields changed, as strictly as one read from a file.

    Args:
        recipe: The recipe.
        fields: New values by name; a dictionary changes fields of a table.

    Returns:
        The changed recipe.
    """
    values = to_values(recipe)
    for name, value in fields.items():
        values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
    result = from_values(Recipe, values)
    assert isinstance(result, Recipe)
    return result
