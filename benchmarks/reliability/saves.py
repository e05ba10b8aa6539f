"""Damaged files, and writers that die at every single step of writing.

    python benchmarks/reliability/saves.py    -> benchmarks/studies/reliability/saves.json

The steps are those of the operating system, found and cut short by strace, in an interpreter of its own.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file

from osdtw_models.checksums import SUMS
from osdtw_models.releases import CONFIG, WEIGHTS
from osdtw_training.pipeline import run_recipe
from osdtw_training.runs import Run
from osdtw_training.values import to_values
from places import CHECKPOINT, NETWORK
from rows import Row, tried, write_study
from system_calls import killed_at_every_call
from tiny_runs import RECIPE

FLIPS, CUTS = 500, 50


def study(seed: int) -> Iterator[Row]:
    """Damage what was saved, kill savers, and read what older and newer versions wrote."""
    stream = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for n in (1, 2, 3):
            CHECKPOINT.write(folder, n)
        file = folder / CHECKPOINT.file
        whole = file.read_bytes()

        def falls_back(content: bytes) -> bool:
            file.write_bytes(content)
            with contextlib.redirect_stdout(io.StringIO()) as said:
                found = CHECKPOINT.read(folder)
            return found == 2 and f"{file} is damaged" in said.getvalue()

        means = "found by its SHA-256 and named; training goes on from the checkpoint before it"
        yield from damaged("the last checkpoint", whole, falls_back, stream, means)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        NETWORK.write(folder, 1)
        for each in (WEIGHTS, CONFIG, SUMS):
            file, whole = folder / each, (folder / each).read_bytes()

            def refused(content: bytes, file: Path = file) -> bool:
                file.write_bytes(content)
                return SUMS in complaint(lambda: NETWORK.read(folder))

            means = "refused in a sentence that names the file, before anything is built"
            yield from damaged(f"{each} of a run folder", whole, refused, stream, means)
            file.write_bytes(whole)
    yield from killed_at_every_call()
    yield tried(
        "another version", "checkpoint or recipe of a run folder", list(versions()), "read, or refused in words"
    )


def damaged(
    what: str, whole: bytes, survived: Callable[[bytes], bool], stream: random.Random, means: str
) -> Iterator[Row]:
    """Flip single bits of a file, anywhere, and cut it, at any length."""
    flips = []
    for _ in range(FLIPS):
        content, bit = bytearray(whole), stream.randrange(8 * len(whole))
        content[bit // 8] ^= 1 << bit % 8
        flips.append(survived(bytes(content)))
    yield tried("one flipped bit", what, flips, means)
    yield tried("cut short", what, [survived(whole[: stream.randrange(len(whole))]) for _ in range(CUTS)], means)


def versions() -> Iterator[bool]:
    """Files of versions before and after this one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        CHECKPOINT.write(folder, 1)
        save_file({"a": torch.full((2,), 4)}, folder / CHECKPOINT.file, {"state": '{"epoch": 4}'})
        yield CHECKPOINT.read(folder) == 4
    begun = json.loads(json.dumps(to_values(RECIPE)))
    fewer = {key: value for key, value in begun.items() if key != "workers"}
    for other in (fewer, {**begun, "more": 1}):
        with tempfile.TemporaryDirectory() as name:
            Run(name).write_json("recipe.json", other)
            yield "begun with another" in complaint(lambda name=name: run_recipe(RECIPE, name, resume=True))


def complaint(act: Callable[[], object]) -> str:
    """The one line with which something is refused; empty if it is not."""
    try:
        act()
    except ValueError as error:
        return str(error) if "\n" not in str(error) else ""
    return ""


if __name__ == "__main__":
    sys.exit(write_study("saves", "Damaged or half-written files", 0, lambda seed: list(study(seed))))
