"""Files written whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from pathlib import Path


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, flush it to disk, then give it its name.

    The temporary file lies in the target's own folder: only within one file system does a rename replace the old
    file at one stroke. Without the flush a power cut could leave an empty file under the final name.

    Args:
        path: The final name; its folder is made if missing.
        write: Writes the content to the path it is given; if it raises, the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        write(draft)
        with draft.open("r+b") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, UTF-8 with plain line ends."""
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8", newline="\n"))
