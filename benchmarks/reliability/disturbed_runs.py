"""Runs that are disturbed five times each and go on after each: do they end like the undisturbed one?

If one does not, all five count as lost. Moments are random in the lines that a run prints, each epoch being one, and in
the time from one line to the next: time alone would hit what runs before the first epoch, on a machine that is busy.
"""

from __future__ import annotations

import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from forks import await_lines, disturb, fork, wait
from rows import Row, tried
from tiny_runs import ends, epochs, whole

EACH = 5
MOST_LINES = 13  # a process begins with four; five times half of the rest is a whole run
CODES = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
Start = Callable[[Path], int | None]


def disturbed_runs(tries: Mapping[signal.Signals, int], start: Start, moments: random.Random) -> Iterator[Row]:
    """Send runs signals.

    Args:
        tries: How often each, at least.
        start: Begins a run in a folder, or goes on with it.
        moments: When.

    Yields:
        A row for each signal.
    """
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Path(name) / "undisturbed"
        started = time.perf_counter()
        assert wait(fork(lambda: start(undisturbed), Path(name) / "said.txt")) == 0
        pace = (time.perf_counter() - started) / (Path(name) / "said.txt").read_bytes().count(b"\n")
        right = ends(undisturbed)
    for number, least in tries.items():
        checks: list[bool] = []
        stages: Counter[str] = Counter()
        while len(checks) < least:
            checks += disturbed(number, start, pace, right, moments, stages)
        means = "all final files whole, no finished epoch trained again, and at the end the undisturbed run's weights"
        if number != signal.SIGKILL:
            means = f"exit code {CODES[number]}, once training has begun the command to go on; {means}"
        where = ", ".join(f"{times} after {stage}" for stage, times in stages.items())
        yield tried(number.name, f"training, all stages ({where})", checks, means)


def disturbed(
    number: signal.Signals,
    start: Start,
    pace: float,
    right: object,
    moments: random.Random,
    stages: Counter[str],
) -> list[bool]:
    """Disturb one run.

    Args:
        number: The signal.
        start: Begins the run, or goes on with it.
        pace: Seconds from one line to the next, on average.
        right: What `ends` says of it.
        moments: When.
        stages: Gets the stage whose epoch was the last told before each signal.

    Returns:
        For each signal whether all held.
    """
    with tempfile.TemporaryDirectory() as name:
        folder, said = Path(name) / "run", Path(name) / "said.txt"
        good: list[bool] = []
        told: Counter[tuple[str, str]] = Counter()
        ended = None
        while len(good) < EACH and ended != 0:
            said.unlink(missing_ok=True)
            child = fork(lambda: start(folder), said)
            await_lines(child, said, moments.randint(1, MOST_LINES))
            ended = disturb(child, moments.random() * pace, number)
            now = epochs(said)
            told += now
            if ended:
                good.append(ended == CODES[number] and whole(folder) and sentence(said, folder, number))
                stages[list(told)[-1][0] if told else "no epoch"] += 1
                if not good[-1]:
                    print(f"lost: {number.name}, exit code {ended}: {said.read_text(encoding='utf-8')[-300:]}")
        if ended:
            ended = wait(fork(lambda: start(folder), said))
            told += epochs(said)
        same = ended == 0 and ends(folder) == right and max(told.values()) == 1
        if not same:
            print(f"lost: {number.name}, another end, exit code {ended}: {told}")
        return [each and same for each in good]


def sentence(said: Path, folder: Path, number: signal.Signals) -> bool:
    """Whether a run that was asked to stop says so, and how to go on once it has begun."""
    lines = said.read_text(encoding="utf-8").splitlines()
    if number == signal.SIGKILL:
        return True
    begun = any(line.startswith("Data:") for line in lines)
    how = lines[-1].endswith(f"osdtw-train --output {folder} --resume")
    return lines[-1].startswith("osdtw-train: stopped; ") and (how or not begun)
