"""What all commands have in common: errors are one sentence and an exit code, tracebacks only with ``--debug``."""

from __future__ import annotations

import argparse
import io
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from textwrap import shorten
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are errors like all others, and whose help keeps its examples' lines."""

    def __init__(self, prog: str, description: str, examples: str = "") -> None:
        super().__init__(prog, description=description, epilog=examples, formatter_class=_Formatter)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise ValueError(f"{message}; see {self.prog} --help.")


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `kill`, a batch system or a container sends it: the same as Ctrl-C, but for the exit code."""


class _Formatter(argparse.RawDescriptionHelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30, width=100)


def run_door(prog: str, act: Callable[[list[str]], None], argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        prog: Name of the command, for messages.
        act: Does the work; expected errors are raised as built-in exceptions that say what to do. A note on the
            exception that it leaves with is told after "stopped".
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code: 0; 2 after an expected error, told in one sentence; 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        ValueError: Only with ``--debug``: the error itself instead of its sentence.
        OSError: Likewise.
        ModuleNotFoundError: Likewise.
        FloatingPointError: Likewise.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    # An old console's code page lacks letters that file names have; other ways than to fail are left as they are.
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with _stoppable():
            act(arguments)
    except (ValueError, OSError, ModuleNotFoundError, FloatingPointError) as error:
        if "--debug" in arguments:
            raise
        print(f"{prog}: {_sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        notes = [note for each in (stop, stop.__cause__) for note in getattr(each, "__notes__", ())]
        print(f"{prog}: stopped; {notes[0] if notes else 'what was saved is kept.'}", file=sys.stderr)
        return 143 if isinstance(stop, Terminated) else 130
    return 0


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM end the work as Ctrl-C does, with everything that is under way left whole.

    Foreign code that calls Python may take what a signal raises for a mistake, and raise its own: that is the stop,
    too. Or it drops it: then the next signal counts.
    """
    stops: list[KeyboardInterrupt] = []

    def end(number: int, frame: object) -> None:
        if number == signal.SIGTERM and sys.exc_info()[1] in stops:
            return  # one is enough: who cleans up is not to be interrupted
        stops.append(Terminated() if number == signal.SIGTERM else KeyboardInterrupt())
        raise stops[-1]

    usual: dict[int, Any] = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    main = threading.current_thread() is threading.main_thread()
    # Whoever has put in another handler looks after it.
    ours = [number for number in usual if main and signal.getsignal(number) == usual[number]]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    except Exception as error:
        if stops:
            raise stops[0] from error
        raise
    finally:
        for number in ours:
            signal.signal(number, usual[number])


def need(extra: str, *modules: str) -> None:
    """Make sure that an extra is installed.

    Args:
        extra: Name of the extra.
        *modules: Modules that it brings.

    Raises:
        ModuleNotFoundError: If one is missing; names the install command.
    """
    for name in modules:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"{name} is not installed; run: pip install 'osdtw-models[{extra}]'")


def first_line(error: BaseException) -> str:
    """What an error says, cut to one line; its type if it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    # torch announces mismatches with a line that ends in a colon and lists them below.
    return shorten(" ".join(lines[:2]) if lines[0].endswith(":") else lines[0], 300, placeholder=" ...")


def _sentence(error: Exception) -> str:
    """The error's own sentence; for the operating system's errors one with the file first."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename or 'The file'} cannot be read or written: {error.strerror}."
    return " ".join(str(error).split()) or type(error).__name__
