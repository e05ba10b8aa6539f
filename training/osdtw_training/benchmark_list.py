"""A list of runs to compare: a TOML file of ``[[run]]`` tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from osdtw_training.recipe_checks import check_name
from osdtw_training.toml_files import read_toml
from osdtw_training.values import from_values


@dataclass(frozen=True)
class Published:
    """What others report of a method: overall accuracy in percent, and that of cross-entropy by the same hands.

    Args:
        source: Who reports it.
        base: Accuracy of cross-entropy.
        accuracy: Accuracy of the method.
    """

    source: str
    base: float
    accuracy: float

    @property
    def gain(self) -> float:
        """Points over cross-entropy."""
        return self.accuracy - self.base


@dataclass(frozen=True)
class Entry:
    """One run of a list.

    Args:
        name: Its name: of the run folder and of the results file.
        recipe: Packaged recipe or TOML file.
        options: Further words of the command.
        begin_with: Name of a run whose first stage is this one's, too.
        title: What a table calls it; the method's name by default.
        published: What others report of the method.
        note: Why its gain is what it is, where that is far from what others report.
        seeds: It is trained once with each, and its row is their mean.
    """

    name: str
    recipe: str
    options: tuple[str, ...] = ()
    begin_with: str | None = None
    title: str = ""
    published: tuple[Published, ...] = ()
    note: str = ""
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        check_name(self.name)
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"the seeds of {self.name} are {list(self.seeds)}, not different numbers")

    def runs(self) -> list[Entry]:
        """One entry per seed; the names of seed 0 are the entry's own."""
        return [self if seed == 0 else self._of_seed(seed) for seed in self.seeds]

    def _of_seed(self, seed: int) -> Entry:
        begin = self.begin_with and f"{self.begin_with}_seed{seed}"
        options = (*self.options, "--seed", str(seed))
        return replace(self, name=f"{self.name}_seed{seed}", options=options, begin_with=begin, seeds=(seed,))

    @property
    def command(self) -> str:
        """The command that trains it."""
        return " ".join(["osdtw-train", self.recipe, *self.options])


@dataclass(frozen=True)
class RunList:
    """What a file lists.

    Args:
        title: What its table is called.
        run: The runs.
    """

    title: str
    run: tuple[Entry, ...] = ()


def read_list(file: Path) -> tuple[str, list[Entry]]:
    """Read a list of runs.

    Args:
        file: A TOML file with a ``title`` and ``[[run]]`` tables.

    Returns:
        The title, and the runs in the order of the file.

    Raises:
        ValueError: If the file is not such a list, or a run begins with one that does not come before it.
    """
    values = read_toml(file)
    try:
        listed = from_values(RunList, {"title": file.stem, **values})
    except ValueError as error:
        raise ValueError(f"{file} is no list of runs ({error}); give [[run]] tables with name and recipe.") from error
    known: set[str] = set()
    for entry in listed.run:
        for run in entry.runs():
            if run.name in known:
                raise ValueError(f"{file}: the run {run.name!r} is there twice.")
            if run.begin_with and run.begin_with not in known:
                raise ValueError(f"{file}: the run {run.name!r} begins with {run.begin_with!r}, which is not above it.")
        known |= {run.name for run in entry.runs()}
    return listed.title, list(listed.run)


def select(entries: Sequence[Entry], names: Collection[str]) -> list[Entry]:
    """The entries that are named, and single seeds of them: "ride" is all of its runs, "ride_seed1" is one.

    Args:
        entries: Those of a list.
        names: Names of entries or of runs.

    Returns:
        The entries in their order; what one begins with is dropped if that is not among them.

    Raises:
        ValueError: If no entry or run has one of the names.
    """
    unknown = set(names) - {name for entry in entries for name in (entry.name, *(run.name for run in entry.runs()))}
    if unknown:
        raise ValueError(f"The list has no run {min(unknown)!r}; it has {', '.join(entry.name for entry in entries)}.")
    chosen = []
    for entry in entries:
        wanted = tuple(s for s, run in zip(entry.seeds, entry.runs(), strict=True) if {entry.name, run.name} & {*names})
        if wanted:
            chosen.append(replace(entry, seeds=wanted))
    there = {entry.name for entry in chosen}
    return [entry if entry.begin_with in there else replace(entry, begin_with=None) for entry in chosen]
