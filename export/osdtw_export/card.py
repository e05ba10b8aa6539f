"""Results files -> model cards and the README's table: every number in them comes from a ``results.json``.

``python -m osdtw_export.card`` writes ``model_cards/<release>.md`` from ``model_cards/template.md`` for each released
checkpoint, and the table between the two ``results`` marks of ``README.md`` from all committed results.
``--check`` writes nothing and fails if something would change.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

MARKS = ("<!-- results -->", "<!-- /results -->")
COLUMNS = ("overall", "many", "medium", "few", "head", "tail", "nll", "ece")
HUB_DATA = {"cifar100": "uoft-cs/cifar100"}
NAMES = {"osdtw": "OSDTW", "balanced_softmax": "balanced softmax"}


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check cards and table.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code: 1 if ``--check`` found a difference, 2 after an error that one sentence explains.
    """
    parser = argparse.ArgumentParser("python -m osdtw_export.card", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="root of the repository (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    options = parser.parse_args(argv)
    try:
        documents = render(options.root)
    except (OSError, ValueError) as error:
        print(f"card: {error}", file=sys.stderr)
        return 2
    changed = [path for path, text in documents.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in changed:
        if not options.check:
            path.write_text(documents[path], encoding="utf-8")
        print(f"{'differs' if options.check else 'wrote'}: {path}")
    return 1 if changed and options.check else 0


def render(root: Path) -> dict[Path, str]:
    """The text of every generated document.

    Args:
        root: Root of the repository.

    Returns:
        Texts by path: one card per release, and the README.

    Raises:
        ValueError: If a results file lacks a field that a document states, or the README lacks its marks.
    """
    template = (root / "model_cards" / "template.md").read_text(encoding="utf-8")
    releases = sorted((root / "osdtw_models" / "weights").glob("*/results.json"))
    others = sorted((root / "benchmarks" / "results").glob("*.json"))
    documents = {}
    for path in releases:
        documents[root / "model_cards" / f"{path.parent.name}.md"] = card(path.parent.name, _read(path), template)
    readme = root / "README.md"
    documents[readme] = _between(readme.read_text(encoding="utf-8"), table([_read(p) for p in [*releases, *others]]))
    return documents


def card(release: str, results: dict[str, Any], template: str) -> str:
    """The card of one released checkpoint.

    Args:
        release: Name of the release, ``architecture.tag``.
        results: Content of its ``results.json``.
        template: Text with ``$field`` places.

    Returns:
        The card, Markdown with the Hub's metadata.

    Raises:
        ValueError: If the results lack a field that the template names.
    """
    try:
        test, plan, hardware = results["test"], results["plan"], results["hardware"]
        values = {
            **results,
            **{key: f"{value:.2f}" for key, value in test.items() if isinstance(value, float)},
            "name": release,
            "architecture": results["model"],
            "hub_data": HUB_DATA.get(results["data"], results["data"]),
            "data_name": f"{results['data']}, imbalance factor {results['imbalance_factor']:g}",
            "test_images": results["test_images"],
            "training_images": sum(results["training_counts"]),
            "holdout_images": sum(results["class_counts"]) - sum(results["training_counts"]),
            "shared_depth": plan["shared_depth"],
            "task_weights": ", ".join(f"{weight:.3f}" for weight in plan["task_weights"]),
            "plan_source": plan["source"],
            "hardware": _hardware(hardware),
        }
        return Template(template).substitute(values)
    except KeyError as error:
        raise ValueError(f"The results of {release} lack {error}; train it again with this version.") from error


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown table of runs, one row each, OSDTW first.

    Args:
        rows: Contents of results files.

    Returns:
        The table; percent but for NLL (nats).
    """
    lines = [
        f"| method | network | plan | passes | {' | '.join(COLUMNS)} | seed | hours | command |",
        "|" + "---|" * (len(COLUMNS) + 7),
    ]
    for row in sorted(rows, key=lambda row: (row["data"], row["method"] != "osdtw", row["method"])):
        figures = " | ".join(f"{row['test'][column]:.2f}" for column in COLUMNS)
        plan = f"{row['plan']['shared_depth']} shared ({row['plan']['source']})" if "plan" in row else "one network"
        network = f"{row['model'].removeprefix('osdtw_')}, {row['parameters']:,} parameters"
        lines.append(
            f"| {NAMES[row['method']]} | {network} | {plan} | {row['passes']} | {figures} | {row['seed']} "
            f"| {row['training_hours']:.2f} | `osdtw-train {row['recipe']}` |"
        )
    lines.append("")
    lines.extend(sorted({f"Hardware: {_hardware(row['hardware'])}." for row in rows}))
    return "\n".join(lines)


def _hardware(hardware: dict[str, Any]) -> str:
    precision = "" if hardware["amp"] == "none" else f", {hardware['amp']} forward pass"
    return f"{hardware['threads']} thread of a {hardware['processor']} ({hardware['device']}{precision})"


def _between(text: str, table_text: str) -> str:
    """The README with the table between its marks."""
    if not all(mark in text for mark in MARKS):
        raise ValueError(f"README.md lacks {MARKS[0]} or {MARKS[1]}; put both where the table belongs.")
    before, rest = text.split(MARKS[0], 1)
    return f"{before}{MARKS[0]}\n{table_text}\n{MARKS[1]}{rest.split(MARKS[1], 1)[1]}"


def _read(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


if __name__ == "__main__":
    sys.exit(main())
