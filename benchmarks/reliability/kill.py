"""Writers killed at random moments: is what they leave whole?

    python benchmarks/reliability/kill.py    -> benchmarks/studies/reliability/kill.json

Savers do nothing but save, so that every moment is one within a save.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from forks import disturb, fork, wait
from osdtw_export.export import export_onnx
from osdtw_export.runtime import OnnxClassifier
from osdtw_models import create_model
from places import PLACES, Place
from rows import Row, tried, write_study

SAVES = {"checkpoint": 200}
OTHER_SAVES = 50
EXPORTS = 10


def study(seed: int) -> Iterator[Row]:
    """Kill savers and exports."""
    moments = random.Random(seed)
    for place in PLACES:
        tries = SAVES.get(place.name, OTHER_SAVES)
        yield tried(
            "SIGKILL",
            f"while a {place.name} is saved over the one before",
            [killed_saving(place, moments) for _ in range(tries)],
            "what is there is whole, and of the last version told saved or the one after it",
        )
    yield killed_exports(moments)


def killed_saving(place: Place, moments: random.Random) -> bool:
    """Kill a process that does nothing but save one version after the other.

    Returns:
        Whether what is under the final name is whole and new enough.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        saved, saying = os.pipe()

        def save() -> None:
            for n in itertools.count(1):
                place.write(folder, n)
                os.write(saying, n.to_bytes(4, "big"))

        child = fork(save, folder / "said.txt")
        os.close(saying)
        with os.fdopen(saved, "rb") as told:
            last = told.read(4)  # it saves: from here on every moment is one of saving
            started = time.perf_counter()
            last = told.read(4)
            disturb(child, moments.random() * 2 * (time.perf_counter() - started), signal.SIGKILL)
            rest = last + told.read()
        known = int.from_bytes(rest[-4:], "big")
        try:
            return known <= place.read(folder) <= known + 1
        except (OSError, ValueError) as error:
            print(f"lost: {place.name} after version {known}: {error}")
            return False


def killed_exports(moments: random.Random) -> Row:
    """Kill exports that replace an older file."""
    network = create_model("osdtw_resnet14", num_classes=4, task_classes=[[0, 1], [2, 3]], shared_depth=3).eval()
    checks = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "model.onnx"

        def export() -> None:
            export_onnx(network, file, source="test")

        started = time.perf_counter()
        assert wait(fork(export, folder / "said.txt")) == 0
        seconds, old = time.perf_counter() - started, file.read_bytes()
        for _ in range(EXPORTS):
            disturb(fork(export, folder / "said.txt"), moments.random() * seconds, signal.SIGKILL)
            checks.append(file.read_bytes() == old or bool(OnnxClassifier(file)))
    return tried("SIGKILL", "osdtw-export over an older file", checks, "the older file, or a new one that starts")


if __name__ == "__main__":
    sys.exit(write_study("kill", "Killed", 0, lambda seed: list(study(seed))))
