"""Training of OSDTW networks and their peers: ``train`` here, `osdtw-train` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from osdtw_training.pipeline import Result


def train(
    data: str | Path,
    output: str | Path | None = None,
    recipe: str | Path = "folder",
    resume: bool = False,
    **fields: Any,
) -> Result:
    """Train on a data set, as ``osdtw-train`` does.

    Args:
        data: A folder of class folders, a list file, or a data set's name; see `osdtw_models.datasets.read_images`.
        output: Run folder; ``runs/`` and the name of the data by default.
        recipe: A TOML file, or the name of a packaged recipe.
        resume: Go on with the run that is in the folder.
        **fields: Fields of the recipe to change; tables are dictionaries: ``warmup={"epochs": 3}``.

    Returns:
        The run: its folder, the network and the content of ``results.json``.
    """
    from osdtw_models.datasets import short_name
    from osdtw_training.pipeline import run_recipe
    from osdtw_training.recipe_files import changed, read_recipe

    wanted = changed(read_recipe(recipe), {**fields, "data": str(data)})
    return run_recipe(wanted, output or Path("runs") / short_name(str(data)), resume)
