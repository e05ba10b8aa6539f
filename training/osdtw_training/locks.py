"""One training in a folder at a time."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from osdtw_training import distributed

NAME = "checkpoints/lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder against other trainings; the processes of one training hold it together, by their first one.

    The lock is a POSIX record lock: it dies with its process, however that ends. flock's would live on in the worker
    processes that a killed training leaves for a moment. The file stays, and means nothing without its lock.

    Args:
        folder: The folder; made if missing.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: If another process holds it; names the process.
    """
    if sys.platform == "win32" or not distributed.first():
        yield
        return
    import fcntl

    (folder / NAME).parent.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:  # POSIX leaves open which of the two it is
            file.seek(0)
            raise BlockingIOError(
                f"{folder} is in use by {file.read().strip() or 'another process'}; wait for it to end, or choose "
                "another --output."
            ) from error
        except OSError:  # a file system without locks
            print(f"{folder} cannot be locked: take care that nothing else trains there.")
        with suppress(OSError):  # whose the lock is, for others: on a full disk they are not told
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
        yield
