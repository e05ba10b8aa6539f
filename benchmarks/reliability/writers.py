"""Full, failing and read-only disks under every writer, and two runs in one folder.

    python benchmarks/reliability/writers.py    -> benchmarks/studies/reliability/writers.json

Full and read-only disks are real ones, a few megabytes in memory: to mount them takes root. EIO comes from strace.
"""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forks import fork, wait
from osdtw_training.runs import Run
from places import PLACES, Place, drafts
from rows import Row, tried, write_study
from system_calls import failed_at_every_call
from tiny_runs import command, ends, go_on

MEGABYTES = 8
FILLED, FILLED_RUNS, PAIRS = 10, 2, 20
REFUSED = 7


def study(seed: int) -> Iterator[Row]:
    """Fill disks, forbid writing, let calls fail, start second runs."""
    stream = random.Random(seed)
    for place in PLACES:
        with disk(MEGABYTES) as folder:
            yield tried(
                "disk full",
                place.name,
                [full(place, folder, stream) for _ in range(FILLED)],
                "one error with the file's name and the bytes, the version before is read, no half-written file is "
                "left, and with room again the next version is written",
            )
    with disk(MEGABYTES) as folder:
        yield tried("read-only disk", "every writer", list(read_only(folder)), "one error, the version before is read")
    for error in ("EIO", "ENOSPC"):
        yield from failed_at_every_call(error)
    yield filled_runs(stream)
    yield tried(
        "a second run in the folder",
        "the lock of osdtw-train and osdtw-search",
        [second() for _ in range(PAIRS)],
        "refused with the number of the first; not refused once that one is killed",
    )


@contextmanager
def disk(megabytes: int) -> Iterator[Path]:
    """A disk of its own."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def full(place: Place, folder: Path, stream: random.Random) -> bool:
    """Save a version on a disk with too little room for it."""
    for file in folder.rglob("*.*"):
        file.unlink()
    place.write(folder, 1)
    line = place.file.endswith(".jsonl")
    size = (folder / place.file).stat().st_size
    fill(folder / "filler", 0 if line else stream.randrange(size - size % 4096 or 1))
    if line:
        pad(folder / place.file)
    old = place.read(folder)
    try:
        place.write(folder, old + 1)
        told = False
    except OSError as error:
        named = Path(str(error.filename)).name in {Path(place.file).name, "config.json", "SHA256SUMS"}
        told = error.errno == errno.ENOSPC and named and "bytes are free there" in error.strerror
    kept = place.read(folder) == old and drafts(folder) == []
    (folder / "filler").unlink()
    place.write(folder, old + 1)
    return told and kept and place.read(folder) == old + 1


def fill(filler: Path, room: int) -> None:
    """Take all the room of a disk but some bytes."""
    free = os.statvfs(filler.parent).f_bavail * os.statvfs(filler.parent).f_frsize
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free - room)


def pad(file: Path) -> None:
    """Fill a file's last page with lines, so that the next line needs a new one."""
    with file.open("ab") as lines:
        missing = -lines.tell() % 4096
        line = b'{"stage": "other", "epoch": 1}\n'
        lines.write((line * (missing // len(line) + 1))[: missing - 1].rpartition(b"\n")[0] + b"\n")


def read_only(folder: Path) -> Iterator[bool]:
    """Save on a disk that cannot be written to."""
    for place in PLACES:
        place.write(folder, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    for place in PLACES:
        try:
            place.write(folder, 2)
            told = False
        except OSError as error:
            told = error.errno == errno.EROFS and str(folder) in str(error.filename)
        yield told and place.read(folder) == 1


def filled_runs(stream: random.Random) -> Row:
    """Train on a disk that becomes full, make room, go on."""
    checks = []
    with tempfile.TemporaryDirectory() as name:
        said = Path(name) / "said.txt"
        assert wait(fork(lambda: go_on(Path(name) / "run"), said)) == 0
        right = ends(Path(name) / "run")
        size = sum(file.stat().st_size for file in (Path(name) / "run").rglob("*") if file.is_file())
        for _ in range(FILLED_RUNS):
            with disk(MEGABYTES) as folder:
                fill(folder / "filler", int(size * stream.uniform(0.1, 0.9)))
                code = wait(fork(lambda folder=folder: command(folder / "run"), said))
                last = said.read_text(encoding="utf-8").splitlines()[-1]
                (folder / "filler").unlink()
                again = wait(fork(lambda folder=folder: command(folder / "run"), said))
                told = code == 2 and last.startswith("osdtw-train: ") and "bytes are free there" in last
                checks.append(told and again == 0 and ends(folder / "run") == right)
    means = "exit code 2 and one line; with room again it goes on to the undisturbed run's weights"
    return tried("disk full", "a whole osdtw-train", checks, means)


def second() -> bool:
    """Two processes that want one run folder."""
    with tempfile.TemporaryDirectory() as name:
        folder, said = Path(name) / "run", Path(name) / "said.txt"
        started, saying = os.pipe()

        def train() -> None:
            with Run(folder, resume=True).held():
                os.write(saying, b"1")
                time.sleep(600)

        def also() -> int:
            try:
                with Run(folder, resume=True).held():
                    return 0
            except BlockingIOError as error:
                return REFUSED if f"in use by process {first} on" in str(error) else 1

        first = fork(train, said)
        os.close(saying)
        os.read(started, 1)
        refused = wait(fork(also, said)) == REFUSED
        os.kill(first, signal.SIGKILL)
        wait(first)
        os.close(started)
        return refused and wait(fork(also, said)) == 0


if __name__ == "__main__":
    sys.exit(write_study("writers", "Disks and locks", 0, lambda seed: list(study(seed))))
