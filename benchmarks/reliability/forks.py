"""Children that are forked after all imports: what starts anew in each is a run, not Python.

An interpreter that imports torch takes longer than the run that is to be killed. A forked child has a process number,
files, locks and signals of its own, so what happens to it is what happens to a command. The parent must not have
computed anything with torch: its threads would not be in the child.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path


def fork(act: Callable[[], int | None], said: Path) -> int:
    """Start a child.

    Args:
        act: What it does; it ends with the exit code that this returns, 0 for None, 1 after an exception.
        said: File that gets what it prints.

    Returns:
        Its process number.
    """
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        target = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(target, 1)
        os.dup2(target, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in a shell's background do not get it
        code = act() or 0
    except BaseException:  # whatever it is, the child must not go on with its parent's program
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(child: int) -> int:
    """Wait for a child; its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def await_lines(child: int, said: Path, number: int) -> None:
    """Wait until a child has printed so many lines, or has ended."""
    place = os.pidfd_open(child)
    try:
        while not select.select([place], [], [], 0.05)[0]:
            if said.exists() and said.read_bytes().count(b"\n") >= number:
                return
    finally:
        os.close(place)


def disturb(child: int, seconds: float, number: int) -> int:
    """Send a child a signal after a time, unless it has ended; returns as `wait`."""
    place = os.pidfd_open(child)
    try:
        if not select.select([place], [], [], seconds)[0]:
            os.kill(child, number)
    finally:
        os.close(place)
    return wait(child)
