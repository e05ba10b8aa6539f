"""What the commands of this package share: help and typing mistakes answer at once, without torch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

DEFAULT_SOURCE = "osdtw_resnet32"
EXTRA = ("onnx", "onnxscript", "onnxruntime")  # what exporting needs


def run_door(parser: Parser, act: Callable[[argparse.Namespace], None], argv: list[str] | None) -> int:
    """Parse first: help and typing mistakes need no torch, which `osdtw_models` imports."""
    try:
        options = parser.parse_args(argv)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    from osdtw_models import doors

    return doors.run_door(parser.prog, lambda _: act(options), argv)


def source_name(source: str) -> str:
    """Short name of a source: the last part of its path, without a Hub revision."""
    if on_hub(source):
        return source.partition("@")[0].rpartition("/")[2]
    return Path(source).expanduser().resolve().name


def origin_of(source: str) -> str:
    """What a file says of its source: a folder's path tells about the user's machine, only its name goes in."""
    return source if on_hub(source) else source_name(source)


def on_hub(source: str) -> bool:
    """Whether a source is a repository on the Hugging Face Hub."""
    return source.startswith(("hf-hub:", "hf_hub:"))


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are errors like all others."""

    def __init__(self, prog: str, description: str, examples: str) -> None:
        super().__init__(
            prog, description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        self.add_argument("--debug", action="store_true", help="show all messages and whole tracebacks")

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage."""
        raise ValueError(f"{message}; see {self.prog} --help.")
