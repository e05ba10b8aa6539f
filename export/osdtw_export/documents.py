"""Results files -> model cards and the README's table: every number in them comes from a ``results.json``.

``python -m osdtw_export.documents`` writes ``model_cards/<release>.md`` from ``model_cards/template.md`` for each
released checkpoint, with the pictures in ``model_cards/<release>/``, and the table between the two ``results`` marks of
``README.md`` from all committed results of those architectures.
``--check`` writes nothing and fails if something would change.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from osdtw_export.card import Release, card
from osdtw_export.results import Results, read, read_all
from osdtw_export.table import between, table
from osdtw_models.files import write_text
from osdtw_models.releases import CONFIG
from osdtw_models.saved_files import read_config


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check cards and table.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code: 1 if ``--check`` found a difference, 2 after an error that one sentence explains.
    """
    parser = argparse.ArgumentParser("python -m osdtw_export.documents", description=__doc__)
    parser.add_argument("root", nargs="?", type=Path, default=Path(), help="root of the repository (default: here)")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a file would change")
    options = parser.parse_args(argv)
    try:
        documents = render(options.root)
    except (OSError, ValueError) as error:
        print(f"documents: {error}", file=sys.stderr)
        return 2
    changed = [path for path, text in documents.items() if not path.is_file() or path.read_text("utf-8") != text]
    for path in changed:
        if not options.check:
            write_text(path, documents[path])
        print(f"{'differs' if options.check else 'wrote'}: {path}")
    return 1 if changed and options.check else 0


def render(root: Path) -> dict[Path, str]:
    """The text of every generated document.

    Args:
        root: Root of the repository.

    Returns:
        Texts by path: one card per release, and the README.

    Raises:
        FileNotFoundError: If the template or the README is not under ``root``, or a release lacks its ``config.json``.
        ValueError: If a results file lacks a field that a document states, or the README lacks its marks.
    """
    template, readme = root / "model_cards" / "template.md", root / "README.md"
    for path in (template, readme):
        if not path.is_file():
            raise FileNotFoundError(f"No {path}; run this at the root of the repository, or give its path.")
    weights = root / "osdtw_models" / "weights"
    releases = {file.parent.name: read(file) for file in weights.glob("*/results.json")}
    others = _others(root, releases)
    documents = {readme: between(readme.read_text(encoding="utf-8"), table(releases, others))}
    text = template.read_text(encoding="utf-8")
    for release, results in sorted(releases.items()):
        pictures = tuple(f"{release}/{path.name}" for path in template.with_name(release).glob("*.png"))
        arguments = read_config(weights / release / CONFIG).get("model_args", {})
        offered = Release(release, figures=pictures, arguments=arguments)
        documents[template.with_name(f"{release}.md")] = card(offered, results, text, others)
    return documents


def _others(root: Path, releases: Mapping[str, Results]) -> dict[str, Results]:
    """The committed runs of the architectures that are released, but for the released ones themselves."""
    models, released = ([run.get(key) for run in releases.values()] for key in ("model", "test"))
    runs = read_all(root / "benchmarks" / "results")
    return {name: run for name, run in runs.items() if run.get("model") in models and run.get("test") not in released}


if __name__ == "__main__":
    sys.exit(main())
