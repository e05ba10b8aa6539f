"""SHA-256 of a folder's files, in the form of ``sha256sum``: damage is found before it is used.

safetensors has no checksum: a flipped bit is a wrong weight that nobody sees. `sha256sum -c SHA256SUMS` says the same
as `check_sums`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from osdtw_models.files import write_text

SUMS = "SHA256SUMS"


def write_sums(folder: Path, names: Sequence[str]) -> None:
    """Write the sums of files beside them."""
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def check_sums(folder: Path, names: Sequence[str]) -> None:
    """Compare files with the sums beside them, if there are any.

    Args:
        folder: The folder.
        names: Files that are about to be used.

    Raises:
        ValueError: If one has changed since, or has no sum although there are sums.
    """
    if not (folder / SUMS).is_file():
        return
    text = (folder / SUMS).read_bytes().decode(errors="replace")
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in text.split("\n"))}
    for name in names:
        if sums.get(name) != sha256(folder / name) or not text.endswith("\n"):
            raise ValueError(
                f"{folder / name} is not the file that {SUMS} beside it speaks of: one of them is damaged or was "
                f"changed; copy or save both again, or delete {SUMS} if you changed {name} yourself."
            )


def sha256(file: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
