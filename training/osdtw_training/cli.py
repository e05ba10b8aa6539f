"""The doors: ``osdtw-train``, ``osdtw-search`` and ``osdtw-report``."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from osdtw_models.doors import Parser, need, run_door

if TYPE_CHECKING:
    from osdtw_training.recipe import Recipe
    from osdtw_training.runs import Run

MODULES = ("tyro", "sklearn", "pyarrow", "matplotlib", "jinja2", "tqdm", "torchvision")

TRAIN_HELP = """\
Train a network by a recipe: usage osdtw-train RECIPE [options], or osdtw-train --data DATA [options].

RECIPE is a TOML file or the name of a packaged recipe ({recipes}).
Every field of the recipe is an option that overrides it.

examples:
  osdtw-train digits_lt                                   a small long-tailed problem, a minute
  osdtw-train --data birds --output runs/birds            your own folder of class folders: photographs
  osdtw-train --data birds --class-weights auto --eval-metric balanced_acc    weigh rare classes, keep the best epoch
  osdtw-train small_images --data stamps                  small pictures, 32x32, from scratch
  osdtw-train --data train.csv --test-list test.csv       lists of images: "path,class" or "path label" on each line
  osdtw-train cifar100_lt_strong --data-dir ~/cifar100    the recipe of the released weights
  osdtw-train imagenet_lt --data-dir ~/imagenet           ImageNet-LT by its published lists, which lie in the folder
  osdtw-train cifar100_lt --shared-depth 11 --task-weights 0.5 0.5     skip the search
  osdtw-train --output runs/cifar100_lt --resume          go on after the last finished epoch

The run folder then holds model.safetensors and config.json (osdtw-export, osdtw-eval and osdtw-predict take the
folder), report.html (start there), results.json, results.csv, plan.json, metrics.jsonl, and figures.
"""


def train(argv: Sequence[str] | None = None) -> int:
    """``osdtw-train``: recipe -> run folder.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code.
    """
    return run_door("osdtw-train", _train, argv)


def search(argv: Sequence[str] | None = None) -> int:
    """``osdtw-search``: plan again from the statistics of a run.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code.
    """
    return run_door("osdtw-search", _search, argv)


def report(argv: Sequence[str] | None = None) -> int:
    """``osdtw-report``: the page, the table and the pictures of finished runs, made anew.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code.
    """
    return run_door("osdtw-report", _report, argv)


def _train(argv: list[str]) -> None:
    need("training", *MODULES)
    import tyro

    from osdtw_training.options import TrainOptions
    from osdtw_training.recipe_files import packaged_recipes, read_recipe

    name, rest = (argv[0], argv[1:]) if argv and not argv[0].startswith("-") else (None, argv)
    begun = _value_of(rest, "--output")
    if name is None and "--resume" in rest and begun and (Path(begun) / "recipe.json").is_file():
        recipe = _begun_recipe(Path(begun))
    elif name is None and not {"--data", "-h", "--help"} & {word.partition("=")[0] for word in rest}:
        raise ValueError(
            f"No recipe given; name one of {', '.join(packaged_recipes())}, a TOML file, or --data FOLDER."
        )
    else:
        recipe = read_recipe(name or "folder")

    options = tyro.cli(
        TrainOptions,
        prog="osdtw-train [RECIPE]",
        description=TRAIN_HELP.format(recipes=", ".join(packaged_recipes())),
        default=TrainOptions(recipe),
        args=rest,
    )

    from osdtw_models.datasets import short_name
    from osdtw_training import distributed
    from osdtw_training.pipeline import run_recipe
    from osdtw_training.report import PAGE

    named = options.recipe.name if name else short_name(options.recipe.data)
    folder = options.output or Path("runs") / named
    try:
        result = run_recipe(options.recipe, folder, options.resume)
    except BaseException as error:
        if (folder / "recipe.json").is_file():
            error.add_note(f"go on after the last finished epoch with: osdtw-train --output {folder} --resume")
        raise
    if not distributed.first():
        return
    split = "test" if "test" in result.results else "holdout"
    figures = {k: v for k, v in result.results.get(split, {}).items() if isinstance(v, float)}
    print(f"On the {split} images: " + ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))
    print(f"Report: {result.folder / PAGE}")
    print(f"Run folder: {result.folder}   next: osdtw-export --onnx {result.folder}")


def _search(argv: list[str]) -> None:
    parser = Parser(
        "osdtw-search",
        "Search shared depth and task weights again with the statistics of a run folder; only --check reads images.",
        "example:\n  osdtw-search runs/cifar100_lt --damping 10",
    )
    parser.add_argument("run", metavar="RUN", type=Path, help="run folder of osdtw-train, after stage 1")
    parser.add_argument("--shared-depth", type=int, metavar="D", help="search the weights at this depth only")
    parser.add_argument("--task-weights", type=float, nargs="+", metavar="W", help="search the depths at these weights")
    parser.add_argument("--points", type=int, metavar="N", help="weights on the grid (default: the recipe's)")
    parser.add_argument("--damping", type=float, metavar="X", help="factor on the damping (default: the recipe's)")
    parser.add_argument(
        "--check",
        type=int,
        metavar="N",
        help="also merge the N best depths, refit their decoders once and compare held-out losses; reads the images",
    )
    options = parser.parse_args(argv)
    need("training", *MODULES)

    from osdtw_training import figures, planning
    from osdtw_training import report as page

    run = _begun_run(options.run)
    recipe = _begun_recipe(options.run)
    asked = {"weights": options.points, "damping": options.damping}
    grid = dataclasses.replace(recipe.search, **{name: value for name, value in asked.items() if value is not None})
    weights = None if options.task_weights is None else tuple(options.task_weights)
    recipe = dataclasses.replace(recipe, search=grid, shared_depth=options.shared_depth, task_weights=weights)
    with run.held():
        planning.plan_from_statistics(run, recipe)
        print(planning.table(run))
        if options.check:
            _check(run, recipe, options.check)
        finished = run.has("results.json")
        for file in page.write(run) if finished else figures.draw(run):
            print(f"Wrote {file}")
    if finished:
        print("The network in this folder keeps the plan it was trained with (results.json).")


def _report(argv: list[str]) -> None:
    parser = Parser(
        "osdtw-report",
        "Write report.html, results.csv and the pictures of finished runs anew, from their folders alone: after others "
        "were trained beside them, whose results the page then shows too.",
        "example:\n  osdtw-report runs/*/",
    )
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+", help="run folder of osdtw-train")
    options = parser.parse_args(argv)
    need("training", *MODULES)

    from osdtw_training import report as page

    for run in [_begun_run(folder) for folder in options.runs]:
        print(f"Report: {page.write(run)[-1]}")


def _check(run: Run, recipe: Recipe, number: int) -> None:
    """Add held-out losses of the best plans to ``plan.json``."""
    from osdtw_training import planning, store
    from osdtw_training.checking import check_plans
    from osdtw_training.data import load_data

    statistics, _ = store.load(run)
    plan = planning.find(statistics, recipe)
    rows = check_plans(recipe, load_data(recipe), run, statistics, plan, number)
    run.write_json("plan.json", {**run.read_json("plan.json"), "check": rows})


def _begun_run(folder: Path) -> Run:
    """A run folder that is there already."""
    from osdtw_training.runs import Run

    if not (folder / "recipe.json").is_file():
        raise FileNotFoundError(f"{folder} is not a run folder; give one that osdtw-train wrote.")
    return Run(folder, resume=True)


def _begun_recipe(folder: Path) -> Recipe:
    """The recipe of a run folder."""
    from osdtw_training.recipe import Recipe
    from osdtw_training.runs import Run
    from osdtw_training.values import from_values

    recipe = from_values(Recipe, Run(folder, resume=True).read_json("recipe.json"))
    assert isinstance(recipe, Recipe)
    return recipe


def _value_of(words: Sequence[str], option: str) -> str | None:
    """Value of an option among command-line words, given as two words or with "="."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None


if __name__ == "__main__":
    sys.exit(train())
