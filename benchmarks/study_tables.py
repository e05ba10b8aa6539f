"""Tables between marks of a document: written, or compared with what is there."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from osdtw_models.files import write_text


def main(words: str | None, render: Callable[[], Mapping[Path, str]]) -> int:
    """What every script of tables does: write its documents, or with ``--check`` say which would change.

    Args:
        words: The script's own description.
        render: Makes the documents anew, by path.

    Returns:
        Exit code: 1 if ``--check`` found a difference.
    """
    parser = argparse.ArgumentParser(description=words, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a document would change")
    check = parser.parse_args().check
    changed = {path: text for path, text in render().items() if path.read_text(encoding="utf-8") != text}
    for path, text in changed.items():
        print(f"{'differs' if check else 'wrote'}: {path}")
        if not check:
            write_text(path, text)
    return int(bool(changed) and check)


def between(text: str, mark: str, table: str) -> str:
    """The text with what stands between two marks replaced.

    Args:
        text: A document.
        mark: Name of the marks.
        table: What shall stand there.

    Returns:
        The document.

    Raises:
        ValueError: If the marks are not there.
    """
    start, end = f"<!-- {mark} -->", f"<!-- /{mark} -->"
    pattern = re.compile(re.escape(start) + r".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"The document has no marks {start} and {end}; put them where the table belongs.")
    return pattern.sub(lambda _: f"{start}\n{table}\n{end}", text)


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
