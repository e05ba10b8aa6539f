"""``osdtw-benchmark``: a list of runs, side by side, and the results of those that are finished.

The list is a TOML file: for each run a name, a packaged recipe and the options that change it. A run is the command
``osdtw-train RECIPE OPTIONS`` in a process of its own, so a table's row can be repeated by hand. Runs that share their
first stage name the one to begin with: its checkpoint of that stage is copied, and counted for both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from osdtw_models.doors import Parser, need, run_door
from osdtw_models.files import write_text
from osdtw_training.benchmark_list import Entry, read_list, select
from osdtw_training.benchmark_table import page

EXAMPLES = """\
example:
  osdtw-benchmark benchmarks/cifar100_lt.toml --data-dir ~/cifar100 --runs runs/r20 --jobs 2
"""


def main(argv: Sequence[str] | None = None) -> int:
    """``osdtw-benchmark``: train what is missing of a list and gather the results.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code.
    """
    return run_door("osdtw-benchmark", _main, argv)


def run_all(entries: Sequence[Entry], runs: Path, results: Path, words: Sequence[str], jobs: int) -> list[str]:
    """Train what has no results yet; gather each results file as its run ends.

    Args:
        entries: The runs.
        runs: Folder of the run folders.
        results: Folder of the results files.
        words: Words added to every command, such as the place of the data.
        jobs: Processes side by side.

    Returns:
        Names of the runs that failed; their logs are in ``runs``.
    """
    every = [run for entry in entries for run in entry.runs()]
    waiting = [run for run in every if not (results / f"{run.name}.json").is_file()]
    failed: list[str] = []
    while waiting:
        unfinished = {entry.name for entry in waiting}
        ready = [entry for entry in waiting if entry.begin_with not in unfinished]
        with ThreadPoolExecutor(jobs) as pool:
            done = list(pool.map(partial(_run, runs=runs, results=results, words=words), ready))
        failed += [entry.name for entry, right in zip(ready, done, strict=True) if not right]
        waiting = [entry for entry in waiting if entry not in ready and entry.begin_with not in failed]
    return failed


def _run(entry: Entry, runs: Path, results: Path, words: Sequence[str]) -> bool:
    folder = runs / entry.name
    if not (folder / "results.json").is_file():
        begun = (folder / "recipe.json").is_file()
        if entry.begin_with and not begun and (runs / entry.begin_with / "checkpoints").is_dir():
            _copy_first_stage(runs / entry.begin_with, folder)
        program = [sys.executable, "-m", "osdtw_training.cli", entry.recipe, *entry.options, *words]
        options = ["--name", entry.name, "--output", str(folder), *(["--resume"] if begun else [])]
        with (runs / f"{entry.name}.log").open("a") as log:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            done = subprocess.run([*program, *options], stdout=log, stderr=log, env=environment, check=False)
        print(f"{entry.name}: {'finished' if not done.returncode else f'failed, see {log.name}'}", flush=True)
        if done.returncode:
            return False
    values: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    write_text(results / f"{entry.name}.json", json.dumps({**values, "command": entry.command}, indent=2) + "\n")
    return True


def _copy_first_stage(source: Path, folder: Path) -> None:
    """The first stage's checkpoint and metrics of another run; training takes it as done."""
    lines = [json.loads(line) for line in (source / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    first = lines[0]["stage"]
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source / "checkpoints" / f"{first}.safetensors", folder / "checkpoints" / f"{first}.safetensors")
    own = [json.dumps(line) for line in lines if line["stage"] == first]
    write_text(folder / "metrics.jsonl", "\n".join(own) + "\n")


def _main(argv: list[str]) -> None:
    parser = Parser(
        "osdtw-benchmark",
        "Train a list of runs, a process each, and gather their results; what is finished is not trained again.",
        EXAMPLES,
    )
    add: Callable[..., object] = parser.add_argument
    add("list", metavar="LIST", type=Path, help="TOML file of [[run]] tables: name, recipe, options, begin_with")
    add("--data-dir", metavar="DIR", help="where the data is, for recipes that ask for it")
    add("--runs", metavar="DIR", type=Path, default=Path("runs"), help="folder of the run folders (default: runs)")
    add(
        "--results",
        metavar="DIR",
        type=Path,
        help="folder of the results files (default: results/LIST/ beside the list)",
    )
    add("--jobs", metavar="N", type=int, default=1, help="processes side by side, a thread each (default: 1)")
    add("--table", action="store_true", help="train nothing: write the table of the results that are there")
    add("--only", metavar="NAME", nargs="+", help="runs to train, with all seeds or one (name_seed1) (default: all)")
    options = parser.parse_args(argv)
    if not options.list.is_file():
        raise FileNotFoundError(f"There is no list {options.list}; give a TOML file of [[run]] tables.")
    need("training", "matplotlib")
    from osdtw_training.benchmark_figures import draw

    title, listed = read_list(options.list)
    entries = select(listed, options.only) if options.only else listed
    results = options.results or options.list.parent / "results" / options.list.stem
    words = ["--data-dir", str(Path(options.data_dir).resolve())] if options.data_dir else []
    if not options.table:
        options.runs.mkdir(parents=True, exist_ok=True)
    failed = [] if options.table else run_all(entries, options.runs, results, words, max(1, options.jobs))
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in results.glob("*.json")}
    pictures = [options.list.with_suffix(".png")] if found else []
    for picture in pictures:
        draw(title, listed, found, picture)
    target = options.list.with_suffix(".md")
    write_text(target, page(title, listed, found, [picture.name for picture in pictures]))
    if failed:
        raise ValueError(f"{len(failed)} runs failed ({', '.join(failed)}); their logs are in {options.runs}.")
    number = sum(len(entry.seeds) for entry in listed)
    print(f"{len(found)} of {number} results in {results}, their table in {target}")


if __name__ == "__main__":
    sys.exit(main())
