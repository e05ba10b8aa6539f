"""Results files -> the table of the README."""

from __future__ import annotations

from collections.abc import Mapping

from osdtw_export.results import GROUPS, METHODS, Results, command_of, figure, hardware_words, header, incomplete, row

MARKS = ("<!-- results -->", "<!-- /results -->")
COLUMNS = ("overall", *GROUPS, "head", "tail", "nll", "ece")


def table(releases: Mapping[str, Results], others: Mapping[str, Results]) -> str:
    """Markdown table of runs, one row each, released ones first.

    Args:
        releases: Results by name, of released checkpoints.
        others: Results by name, of runs that are only compared with.

    Returns:
        The table, and below it the hardware; percent but for NLL (nats).

    Raises:
        ValueError: If results lack a field that the table states.
    """
    names = ["method", "imbalance", "network", "plan", "passes", *map(header, COLUMNS), "seed", "hours", "command"]
    lines, hardware = [row(names), "|" + "---|" * len(names)], set()
    for runs, mark in ((releases, " (released)"), (others, "")):
        for name, results in sorted(runs.items(), key=_place):
            try:
                lines.append(row(_cells(results, mark)))
                hardware.add(f"Hardware: {hardware_words(results['hardware'])}.")
            except (KeyError, TypeError) as error:
                raise ValueError(incomplete(name, error)) from error
    return "\n".join([*lines, "", *sorted(hardware)])


def between(text: str, table_text: str) -> str:
    """The README with the table between its marks."""
    start, end = (text.find(mark) for mark in MARKS)
    if not 0 <= start < end:
        raise ValueError(f"README.md lacks {MARKS[0]} followed by {MARKS[1]}; put both where the table belongs.")
    return f"{text[: start + len(MARKS[0])]}\n{table_text}\n{text[end:]}"


def _place(run: tuple[str, Results]) -> tuple[bool, float, str]:
    """OSDTW first, the most imbalanced data first."""
    name, results = run
    return results.get("method") != "osdtw", -(results.get("imbalance_factor") or 1.0), name


def _cells(results: Results, mark: str) -> list[str]:
    """One row of the README's table."""
    plan, test = results.get("plan"), results["test"]
    return [
        METHODS[results["method"]] + mark,
        "-" if results["imbalance_factor"] is None else f"{results['imbalance_factor']:g}",
        f"{results['model'].removeprefix('osdtw_')}, {results['parameters']:,} parameters",
        f"{plan['shared_depth']} shared ({plan['source']})" if plan else "one network",
        str(results["passes"]),
        # Only the names of the tasks may be others: head and tail exist for two.
        *(figure(test.get(column) if column in ("head", "tail") else test[column]) for column in COLUMNS),
        str(results["seed"]),
        f"{results['training_hours']:.2f}",
        f"`{command_of(results)}`",
    ]
