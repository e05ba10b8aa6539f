"""The system calls of one small save, each of which strace makes fail, or kills the process at."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from places import drafts
from rows import Row, tried

FILES = Path(__file__).parents[2] / "osdtw_models" / "files.py"
OLD, NEW = "old\n" * 1000, "new\n" * 5000
# files.py alone: with it no other module of the package, whose imports make thousands of calls.
PROGRAM = f"""
import importlib.util, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("files", {str(FILES)!r})
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
try:
    files.write_text(Path(sys.argv[1]), "new\\n" * 5000)
except OSError as error:
    assert error.filename == sys.argv[1], error.filename
    sys.exit(f"{{error.filename}}: {{error.strerror}}")
"""
CALLS = ("openat", "write", "fsync", "rename", "close", "unlink")


def killed_at_every_call() -> Iterator[Row]:
    """Kill a save before each of its calls, with and without an older file."""
    for old in (None, OLD):
        checks = []
        for inject in injections("signal=SIGKILL"):
            with tempfile.TemporaryDirectory() as name:
                path = place(name, old)
                done = traced(path, inject)
                checks.append(done.returncode == -signal.SIGKILL and content(path) in (old, NEW))
        yield tried(
            "SIGKILL at every system call",
            f"a save {'over an older file' if old else 'of a new file'}",
            checks,
            "the older content or all of the new one under the final name",
        )


def failed_at_every_call(error: str) -> Iterator[Row]:
    """Let every call of a save fail, with and without an older file."""
    for old in (None, OLD):
        checks = []
        for inject in injections(f"error={error}"):
            with tempfile.TemporaryDirectory() as name:
                path = place(name, old)
                done = traced(path, inject)
                told = done.stderr.count("\n") == 1 and str(path) in done.stderr
                kept = content(path) in (old, NEW) and (done.returncode == 0) == (content(path) == NEW and not told)
                tidy = inject.startswith("unlink") or not drafts(path.parent)
                checks.append(kept and tidy and (told or done.returncode == 0))
        yield tried(
            error,
            f"every system call of a save {'over an older file' if old else 'of a new file'}",
            checks,
            "one line with name and reason, the older content or all of the new one, no half-written file left",
        )


def injections(what: str) -> Iterator[str]:
    """All calls that an undisturbed save makes once it has begun, as strace wants them."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "file.txt"
        traced(path, None)
        lines = (path.parent / "trace").read_text(encoding="utf-8", errors="replace").splitlines()
    calls = [line.split(maxsplit=1)[1].partition("(")[0] for line in lines]
    begins = next(i for i, line in enumerate(lines) if f".{path.name}." in line)
    seen = dict.fromkeys(CALLS, 0)
    for i, call in enumerate(calls):
        if call in seen:
            seen[call] += 1
            if begins <= i <= len(calls) - 1 - calls[::-1].index("unlink"):
                yield f"{call}:{what}:when={seen[call]}"


def traced(path: Path, inject: str | None) -> subprocess.CompletedProcess[str]:
    """Run the save under strace."""
    words = ["strace", "-f", "-o", str(path.parent / "trace"), "-e", f"trace={','.join(CALLS)}"]
    program = [sys.executable, "-B", "-I", "-c", PROGRAM, str(path)]
    options = ["-e", f"inject={inject}"] if inject else []
    return subprocess.run([*words, *options, *program], capture_output=True, text=True, check=False)


def place(folder: str, old: str | None) -> Path:
    """Where to write, with or without an older file."""
    path = Path(folder) / "file.txt"
    if old is not None:
        path.write_text(old, encoding="utf-8")
    return path


def content(path: Path) -> str | None:
    """What lies under the final name."""
    return path.read_text(encoding="utf-8") if path.exists() else None
