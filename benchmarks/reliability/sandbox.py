"""One try at a reader, and many of them in processes that may die: accepted, refused in one sentence, or a defect."""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

SECONDS, BYTES = 10, 1 << 30  # processor seconds: other programs may share the machine
PATIENCE = 180  # seconds on the clock, for what waits instead of computing
ROOM = 3 << 30  # address space of a process beyond what it has: a bomb must not take the machine
REFUSALS = (ValueError, OSError, ModuleNotFoundError, FloatingPointError)  # what `osdtw_models.doors` expects
NO_MEMORY = ("allocate", "not enough memory", "bad alloc", "out of memory")
# What no file may bring about. A "trap" is a file that nothing may open.
FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn", "pickle.find_class")


@dataclass(frozen=True)
class Attack:
    """Hostile input of one kind.

    Args:
        fault: What is hostile.
        where: The function or command that reads it.
        tries: How often the study tries.
        begin: Once: sound input in a folder, which the crafted ones come from.
        craft: For each try: hostile input in the folder -> what reads it.
    """

    fault: str
    where: str
    tries: int
    begin: Callable[[Path], Any]
    craft: Callable[[Random, Path, Any], Callable[[], object]]


class Hang(BaseException):
    """A try that took too long; no ``except Exception`` may keep it."""


class Forbidden(BaseException):
    """A try that did what no file may bring about."""


def attempt(act: Callable[[], object], seconds: int = SECONDS) -> str:
    """Try once.

    Args:
        act: Reads the hostile input.
        seconds: Processor seconds that it may take.

    Returns:
        "accepted", "refused", or what is wrong.
    """
    try:
        with _timed(seconds):
            act()
    except REFUSALS as error:
        if _of_memory(error):
            return f"memory: {error}"
        said = str(error)
        return "refused" if said.strip() and "\n" not in said else f"no sentence: {error!r}"
    except Hang:
        return f"hang of more than {seconds} s"
    except (Exception, Forbidden) as error:
        return f"traceback: {error!r}"[:400]
    return "accepted"


def run(attack: Attack, tries: int, seed: int) -> tuple[Counter[str], list[str]]:
    """Many tries, in processes of their own.

    Args:
        attack: What is tried.
        tries: How often.
        seed: Of the hostile input: try number i follows from it and i alone.

    Returns:
        How many were accepted, refused and lost; and what was wrong with the lost ones.
    """
    found: Counter[str] = Counter(accepted=0, refused=0, lost=0)
    wrong: list[str] = []
    start = 0
    while start < tries:
        for number, verdict in _child(attack, range(start, tries), seed):
            start = number + 1
            kind = verdict if verdict in found else "lost"
            found[kind] += 1
            if kind == "lost":
                wrong.append(f"{number}: {verdict}")
    return found, wrong


def _child(attack: Attack, numbers: range, seed: int) -> Iterator[tuple[int, str]]:
    """Verdicts of a process that tries one after the other; the last is a defect if it died of it."""
    reader, writer = os.pipe()
    process = os.fork()
    if not process:
        os.close(reader)
        try:
            _work(attack, numbers, seed, writer)
        finally:
            os._exit(0)
    os.close(writer)
    expected = numbers.start
    with os.fdopen(reader) as lines:
        while expected < numbers.stop:
            ready, _, _ = select.select([lines], [], [], 2 * PATIENCE)
            line = lines.readline() if ready else ""
            if not line:
                os.kill(process, signal.SIGKILL)
                yield expected, "the process died" if ready else "the process hung"
                break
            yield expected, json.loads(line)
            expected += 1
    os.waitpid(process, 0)


def _work(attack: Attack, numbers: range, seed: int, writer: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + ROOM, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as name, open(os.devnull, "w") as silent:
        folder = Path(name)
        os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
        os.dup2(silent.fileno(), 1)
        os.dup2(silent.fileno(), 2)
        state = attack.begin(folder)
        _watch(folder)
        for number in numbers:
            try:
                act = attack.craft(Random(f"{seed}/{attack.fault}/{number}"), folder, state)
            except Exception as error:
                os.write(writer, (json.dumps(f"the attack itself fails: {error!r}") + "\n").encode())
                continue
            before = _status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
            verdict = attempt(act)
            taken = _status("VmHWM") - before
            if taken > BYTES:
                verdict = f"memory: {taken >> 20} MiB ({verdict})"
            os.write(writer, (json.dumps(verdict) + "\n").encode())


def _watch(folder: Path) -> None:
    """Let every forbidden event of this process be an error."""
    started = time.time()

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in FORBIDDEN or event.startswith("socket.connect"):
            raise Forbidden(f"{event} {arguments!r}"[:200])
        if event == "open" and isinstance(arguments[0], str):
            path, mode = os.path.abspath(arguments[0]), arguments[1] or ""
            if os.path.basename(path).startswith("trap"):
                raise Forbidden(f"opened {path}")
            inside = path.startswith((str(folder), "/proc/self", os.devnull))
            if set(mode) & set("wax+") and not inside and "__pycache__" not in path:
                raise Forbidden(f"wrote {path} after {time.time() - started:.0f} s")

    sys.addaudithook(hook)


def _status(name: str) -> int:
    """A size of this process in bytes."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


@contextmanager
def _timed(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    timers = {signal.ITIMER_PROF: (signal.SIGPROF, seconds), signal.ITIMER_REAL: (signal.SIGALRM, PATIENCE)}
    before = {number: signal.signal(number, stop) for number, _ in timers.values()}
    running = {timer: signal.setitimer(timer, limit) for timer, (_, limit) in timers.items()}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
        for timer, left in running.items():
            signal.setitimer(timer, *left)


def _of_memory(error: BaseException | None) -> bool:
    """Whether an error comes from memory that was not there: a bomb that only luck stopped."""
    while error is not None:
        if isinstance(error, MemoryError) or any(word in str(error).lower() for word in NO_MEMORY):
            return True
        error = error.__cause__ or error.__context__
    return False
