"""Files written whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under a temporary name, flush it to disk, then give it its name.

    The temporary file lies in the target's own folder: only within one file system does a rename replace the old
    file at one stroke. Without the flush a power cut could leave an empty file under the final name, and without that
    of the folder the old file.

    Args:
        path: The final name; its folder is made if missing.
        write: Writes the content to the path it is given; if it raises, the old file stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with errors_about(path, draft):
            write(draft)
            with draft.open("r+b") as file:
                os.fsync(file.fileno())
            draft.replace(path)
            _flush_folder(path.parent)
    finally:
        with suppress(OSError):  # what went wrong before is the error to be told
            draft.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole, UTF-8 with plain line ends."""
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8", newline="\n"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write a binary file whole."""
    write_whole(path, lambda draft: draft.write_bytes(content))


def append_line(path: Path, line: str) -> None:
    """Append one line to a text file; if there is no room for all of it, the file stays as it was."""
    with errors_about(path, path), path.open("ab", buffering=0) as file:
        before = file.seek(0, os.SEEK_END)
        content = f"{line}\n".encode()
        try:
            if file.write(content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError:
            file.truncate(before)
            raise


def remove_drafts(folder: Path) -> None:
    """Delete what killed writers left in a folder; nobody may be writing there."""
    for pattern in (".*.tmp", ".tmp*"):  # ours, and those of safetensors
        for draft in folder.glob(pattern):
            if draft.is_file():
                draft.unlink()


@contextmanager
def errors_about(path: Path, draft: Path) -> Iterator[None]:
    """Let the operating system's errors name the file that was to be written, and say what room there was.

    Args:
        path: Its final name.
        draft: The name under which it is written.

    Yields:
        Nothing.

    Raises:
        OSError: Instead of one about the draft, about no file, or told by safetensors.
        SafetensorError: If it has another reason.
    """
    try:
        yield
    except SafetensorError as error:  # it wraps them: "I/O error: No space left on device (os error 28)"
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(*_told(int(number[1]), path, draft)) from error
    except OSError as error:
        names = {str(name) for name in (error.filename, error.filename2) if name is not None}
        if error.errno is None or (names and not names & {str(draft), str(path.parent)}):
            raise  # it is about another file, or already a sentence
        raise OSError(*_told(error.errno, path, draft)) from error


def _told(number: int, path: Path, draft: Path) -> tuple[int, str, str]:
    reason = os.strerror(number)
    if number in FULL:
        with suppress(OSError):
            written = draft.stat().st_size if draft.exists() else 0
            reason += f" after {written:,} bytes, {shutil.disk_usage(path.parent).free:,} bytes are free there"
    return number, reason, str(path)


def _flush_folder(folder: Path) -> None:
    """Flush a folder's list of names, where the system has a way to."""
    if os.name != "posix":
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)
