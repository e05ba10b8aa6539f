"""What classes and files are called: names end up in terminals, tables and label files."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

# Control characters can move a terminal's cursor or break a table's line; surrogates stand for what is not UTF-8.
UNPRINTABLE = ("Cc", "Cs")


def check_class_names(names: Sequence[str], source: object) -> None:
    """Refuse class names that cannot be written on one line.

    Args:
        names: The names.
        source: Where they come from, for the message.

    Raises:
        ValueError: If one is empty or holds control characters, or what is not UTF-8.
    """
    for name in names:
        if not name or printable(name) != name:
            raise ValueError(f"{source} has a class of the name {name!r:.80}, which cannot be printed; rename it.")


def printable(name: str) -> str:
    """A name as it can be written on one line: what is unprintable in it as Python escapes it."""
    if name.isprintable():
        return name
    return "".join(repr(c)[1:-1] if unicodedata.category(c) in UNPRINTABLE else c for c in name)
