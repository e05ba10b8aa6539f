"""TOML files -> plain values; a file that is none is told in one sentence, before it can take time or memory."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

MOST_BYTES = 1 << 16  # the longest of ours has a tenth; the parser's time grows with the square of a key's parts


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Args:
        file: The file.

    Returns:
        Its tables.

    Raises:
        ValueError: If it is not TOML, or too large to be written by hand.
    """
    if file.stat().st_size > MOST_BYTES:
        raise ValueError(f"{file} has more than {MOST_BYTES >> 10} kB; settings take less.")
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{file} is not a TOML file of settings: it is nested too deep.") from error
    except ValueError as error:  # not TOML, not UTF-8, or a number of thousands of digits
        raise ValueError(f"{file} is not a TOML file: {error}.") from error
