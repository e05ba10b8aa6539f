"""The options of ``osdtw-train``: those of the run, and every field of the recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro import conf

from osdtw_training.recipe import Recipe


@dataclass(frozen=True)
class TrainOptions:
    """What the command line of ``osdtw-train`` decides."""

    recipe: Annotated[Recipe, conf.arg(name="")]
    output: Annotated[Path | None, conf.arg(metavar="DIR")] = None
    """Run folder (default: runs/ and the name of the recipe, or of the data folder)."""
    resume: Annotated[bool, conf.FlagCreatePairsOff] = False
    """Go on with the run in the run folder after its last finished epoch."""
    debug: Annotated[bool, conf.FlagCreatePairsOff] = False
    """Show the traceback of an error."""
