"""One ONNX classifier, sixteen threads, batches of all sizes: are the answers those of a thread alone, is memory flat?

    python benchmarks/reliability/load.py [--seconds 600] [--threads 16]

A request survives if its logits are, bit for bit, those that the same batch had before the threads started. Memory is
flat if its slope over the second half is not positive by more than three of its own standard errors, or below 1 MiB a
minute.

ONNX Runtime keeps the memory of the most that ever ran at once, and threads that choose their batches at random need
long to choose the largest together. So there is a warm-up before the clock starts: all threads ask every size of batch
at the same moment, some times over. What rises after that is a leak.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from osdtw_export import OnnxClassifier
from rows import Row, write_study

SIZES = (1, 1, 1, 2, 3, 5, 8, 13, 16, 32, 64, 65)
SLOPE = 1.0  # MiB a minute
WARM = 2  # times that all threads ask every size of batch together before the clock starts


@dataclass(frozen=True)
class Found:
    """What the threads found.

    Args:
        same: Of each request, whether its answer was that of a thread alone.
        seconds: How long each took.
        memory: MiB of the process, once a second; before the warm-up first.
        calls: Requests answered by then, likewise.
        files: Files that it had open, likewise.
        errors: What was raised.
    """

    same: list[bool]
    seconds: list[float]
    memory: list[float]
    calls: list[int]
    files: list[int]
    errors: list[str]


def hammer(classifier: Any, seconds: float, threads: int, seed: int) -> Found:
    """Ask one classifier from many threads.

    Args:
        classifier: The classifier.
        seconds: For how long.
        threads: How many threads.
        seed: Of the images and the order of the requests.

    Returns:
        What they found.
    """
    channels, height, width = classifier.input_size
    stream = np.random.default_rng(seed)
    batches = [stream.integers(0, 256, (size, height, width, channels), dtype=np.uint8) for size in SIZES]
    alone = [classifier.logits(batch) for batch in batches]
    found = Found([], [], [_resident()], [0], [_open_files()], [])
    together = threading.Barrier(threads)
    ready = threading.Barrier(threads + 1)
    over = threading.Event()

    def warmed(place: int) -> None:
        try:
            classifier.logits(batches[place])
        except Exception as error:  # the others wait for this thread: it goes on
            found.errors.append(repr(error))
            found.same.append(False)

    def ask(number: int) -> None:
        order = Random(f"{seed}/{number}")
        for place in [*range(len(batches))] * WARM:
            together.wait()
            warmed(place)
        ready.wait()
        while not over.is_set():
            place = order.randrange(len(batches))
            started = time.perf_counter()
            try:
                logits = classifier.logits(batches[place])
            except Exception as error:  # whatever it is, it is a lost request
                found.errors.append(repr(error))
                found.same.append(False)
                continue
            found.seconds.append(time.perf_counter() - started)
            found.same.append(bool(np.array_equal(logits, alone[place])))

    workers = [threading.Thread(target=ask, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    ready.wait()
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found.memory.append(_resident())
        found.calls.append(len(found.same))
        found.files.append(_open_files())
        time.sleep(min(1.0, seconds / 10))
    over.set()
    for worker in workers:
        worker.join()
    return found


def slope(memory: Sequence[float], minutes: float) -> tuple[float, float]:
    """Slope of a series of equal steps and its standard error, both per minute.

    Args:
        memory: The series.
        minutes: How long it took.

    Returns:
        Slope and standard error.
    """
    values = np.asarray(memory)
    times = np.linspace(0, minutes, len(values))
    centred = times - times.mean()
    slope = float((centred * values).sum() / (centred**2).sum())
    left = values - values.mean() - slope * centred
    return slope, float(np.sqrt((left**2).sum() / (len(values) - 2) / (centred**2).sum()))


def _resident() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def _open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def study(seed: int, seconds: float, threads: int) -> list[Row]:
    """The released network as an ONNX file, under load."""
    from osdtw_export.export import export_onnx
    from osdtw_models.load import load_model

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        export_onnx(load_model("osdtw_resnet32"), file, source="osdtw_resnet32")
        found = hammer(OnnxClassifier(file, "cpu", threads=1), seconds, threads, seed)
    half, calls = (series[len(series) // 2 :] for series in (found.memory, found.calls))
    rise, error = slope(half, seconds / 120)
    flat = rise < max(3 * error, SLOPE)
    p50, p99 = (1000 * float(np.percentile(found.seconds, q)) for q in (50, 99))
    what = f"{threads} threads share a classifier for {seconds:.0f} s, batches of 1 to {max(SIZES)}"
    answers = (
        f"the answer is bit for bit that of a thread alone; half of them within {p50:.0f} ms, 99 % within {p99:.0f} ms "
        f"at a load average of {os.getloadavg()[2]:.0f}"
    )
    memory = (
        f"memory rises by less than noise or {SLOPE:.0f} MiB a minute: {rise:+.2f} MiB a minute, standard "
        f"error {error:.2f}, of {half[-1]:.0f} MiB, "
        f"over {calls[-1] - calls[0]:,} requests in the second half; the clock starts after a warm-up, in which "
        f"all threads ask every size of batch together, {WARM} times ({found.memory[0]:.0f} MiB before, "
        f"{found.memory[1]:.0f} after), as what ran at once is kept for the next time; files open: {found.files[0]} at "
        f"the start, {found.files[-1]} at the end"
    )
    return [
        Row(what, "`OnnxClassifier`, osdtw_resnet32", len(found.same), sum(found.same), answers),
        Row(what, "memory and open files of the process", 1, int(flat and found.files[-1] <= found.files[0]), memory),
    ]


def main() -> int:
    """Run the study and write its file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()
    return write_study("load", "Load", 0, lambda seed: study(seed, options.seconds, options.threads))


if __name__ == "__main__":
    sys.exit(main())
