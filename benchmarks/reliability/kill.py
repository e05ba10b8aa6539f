"""Processes killed or stopped at random moments: is what they leave whole, and does it go on to the same end?

    python benchmarks/reliability/kill.py    -> benchmarks/studies/reliability/kill.json

Savers do nothing but save, so that every moment is one within a save. Runs are disturbed five times each and go on
after each; if one does not end with the weights of the undisturbed run, all five count as lost.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from forks import disturb, fork, wait
from osdtw_export.export import export_onnx
from osdtw_export.runtime import OnnxClassifier
from osdtw_models import create_model
from places import PLACES, Place
from rows import Row, tried, write_study
from tiny_runs import command, ends, epochs, go_on, whole

SAVES = {"checkpoint": 200}
OTHER_SAVES = 50
EACH = 5
EXPORTS = 10


def study(seed: int) -> Iterator[Row]:
    """Kill savers, runs and exports."""
    moments = random.Random(seed)
    for place in PLACES:
        tries = SAVES.get(place.name, OTHER_SAVES)
        yield tried(
            "SIGKILL",
            f"while a {place.name} is saved over the one before",
            [killed_saving(place, moments) for _ in range(tries)],
            "what is there is whole, and of the last version told saved or the one after it",
        )
    with tempfile.TemporaryDirectory() as name:
        undisturbed = Path(name) / "undisturbed"
        started = time.perf_counter()
        assert wait(fork(lambda: go_on(undisturbed), Path(name) / "said.txt")) == 0
        seconds, right = time.perf_counter() - started, ends(undisturbed)
        for number, code, start, tries in (
            (signal.SIGKILL, -signal.SIGKILL, go_on, 50),
            (signal.SIGTERM, 143, command, 25),
            (signal.SIGINT, 130, command, 25),
        ):
            yield disturbed_runs(number, code, start, tries, seconds, right, moments)
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


def disturbed_runs(
    number: signal.Signals,
    code: int,
    start: Callable[[Path], int | None],
    tries: int,
    seconds: float,
    right: object,
    moments: random.Random,
) -> Row:
    """Disturb runs again and again, and compare how they end.

    Args:
        number: The signal.
        code: How a process must end that gets it.
        start: Begins a run in a folder, or goes on with it.
        tries: How often at least.
        seconds: How long an undisturbed run takes.
        right: What `ends` says of it.
        moments: When.

    Returns:
        The row.
    """
    checks: list[bool] = []
    stages: Counter[str] = Counter()
    while len(checks) < tries:
        with tempfile.TemporaryDirectory() as name:
            folder, said = Path(name) / "run", Path(name) / "said.txt"
            good: list[bool] = []
            told: Counter[tuple[str, str]] = Counter()
            ended = None
            while len(good) < EACH and ended != 0:
                child = fork(lambda folder=folder: start(folder), said)
                ended = disturb(child, moments.uniform(0.02, 0.4) * seconds, number)
                told += epochs(said)
                if ended:
                    good.append(ended == code and whole(folder) and sentence(said, folder, number))
                    stages[max(epochs(said), key=list(epochs(said)).index, default=("no epoch yet", ""))[0]] += 1
            if ended:
                ended = wait(fork(lambda folder=folder: start(folder), said))
                told += epochs(said)
            same = ended == 0 and ends(folder) == right and max(told.values()) == 1
            checks += [each and same for each in good]
            if not all(good) or not same:
                print(f"lost: {number.name}: {good}, exit {ended}: {said.read_text(encoding='utf-8')[-500:]}")
    means = "all final files whole, no finished epoch trained again, and at the end the undisturbed run's weights"
    if number != signal.SIGKILL:
        means = f"exit code {code}, one sentence with the command to go on, {means}"
    where = ", ".join(f"{times} after {stage}" for stage, times in stages.items())
    return tried(number.name, f"training, all stages ({where})", checks, means)


def sentence(said: Path, folder: Path, number: signal.Signals) -> bool:
    """Whether a run that was asked to stop says how to go on."""
    if number == signal.SIGKILL:
        return True
    last = said.read_text(encoding="utf-8").splitlines()[-1]
    return last.startswith("osdtw-train: stopped") and last.endswith(f"osdtw-train --output {folder} --resume")


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
    sys.exit(write_study("kill", "Killed and stopped", 0, lambda seed: list(study(seed))))
