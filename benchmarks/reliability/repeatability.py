"""The same seed twice, any number of workers, and numbers that leave their range.

    python benchmarks/reliability/repeatability.py    -> benchmarks/studies/reliability/repeatability.json

That a run which is stopped anywhere ends like an undisturbed one is in `kill.py`.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from forks import fork, wait
from osdtw_training.data import load_data
from osdtw_training.engine import fit
from osdtw_training.recipe_tables import Schedule
from osdtw_training.runs import Run
from rows import Row, tried, write_study
from tiny_runs import RECIPE, ends, go_on

SEEDS, EPOCHS, SPOILT = 3, 3, 20
COUNTS = {"ant": 12, "bee": 8, "cow": 4}
WAYS = {
    "a loss that is not a number": lambda loss: loss * torch.nan,
    "an infinite loss": lambda loss: loss + torch.inf,
    "an infinite gradient under a finite loss": lambda loss: _with_infinite_gradient(loss),
}


def study(seed: int) -> Iterator[Row]:
    """Repeat runs, read photographs by more or fewer processes, spoil steps."""
    same = [twice(each) for each in range(seed, seed + SEEDS)]
    yield tried("the same seed twice", "training, all stages", same, "weights and the loss of every epoch, bit by bit")
    yield tried(
        "0, 1, 2 or 4 workers",
        "photographs, both samplers",
        list(workers(seed)),
        "the same pixels and labels in the same order, bit by bit, as without workers",
    )
    stream = random.Random(seed)
    for name, spoil in WAYS.items():
        yield tried(
            name,
            "at a random step of two epochs",
            [spoilt(spoil, stream) for _ in range(SPOILT)],
            "training ends with one sentence that names epoch and batch; the checkpoint kept is finite",
        )


def twice(seed: int) -> bool:
    """Whether two runs of one seed are equal."""
    recipe = dataclasses.replace(RECIPE, seed=seed)
    with tempfile.TemporaryDirectory() as name:
        runs = [Path(name) / "first", Path(name) / "second"]
        codes = [wait(fork(lambda run=run: go_on(run, recipe), Path(name) / "said.txt")) for run in runs]
        return codes == [0, 0] and ends(runs[0]) == ends(runs[1])


def workers(seed: int) -> Iterator[bool]:
    """Whether epochs of photographs are the same with any number of workers."""
    stream = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as name:
        for label, number in COUNTS.items():
            (Path(name) / label).mkdir()
            for i in range(number):
                pixels = stream.integers(0, 255, (40 + i, 50 - i, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(Path(name) / label / f"{i}.png")
        photos = dataclasses.replace(
            RECIPE, data=name, imbalance_factor=None, crop="resized", img_size=32, batch_size=8, color_jitter=0.4
        )
        for sampler, epoch in itertools.product(("instance", "balanced"), range(EPOCHS)):
            recipe = dataclasses.replace(photos, sampler=sampler)
            alone = seen(recipe, epoch)
            for number in (1, 2, 4):
                others = seen(dataclasses.replace(recipe, workers=number), epoch)
                yield all(torch.equal(own, other) for own, other in zip(alone, others, strict=True))


def seen(recipe: object, epoch: int) -> list[Tensor]:
    """All batches of an epoch."""
    return [part for batch in load_data(recipe).train_batches(recipe).epoch(epoch) for part in batch]


def spoilt(spoil: object, stream: random.Random) -> bool:
    """Spoil one step of a training, and read what it says and leaves."""
    torch.manual_seed(stream.randrange(1000))
    batches = load_data(RECIPE).train_batches(RECIPE)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    bad = stream.randrange(2 * batches.steps)
    steps = itertools.count()

    def loss(images: Tensor, labels: Tensor) -> Tensor:
        value = F.cross_entropy(network(images), labels)
        return spoil(value) if next(steps) == bad else value

    epoch, batch = divmod(bad, batches.steps)
    if spoil is WAYS["an infinite gradient under a finite loss"] and batch + 1 < batches.steps:
        batch += 1  # the first loss that shows it
    with tempfile.TemporaryDirectory() as name:
        run = Run(name)
        try:
            fit("train", network, [network], loss, batches, Schedule(2, 0.1), RECIPE, run)
        except FloatingPointError as error:
            named = f"in epoch {epoch + 1}, batch {batch + 1} of {batches.steps};" in str(error)
            saved = run.load_checkpoint("train")
            kept = saved is None if epoch == 0 else saved is not None and saved[1]["epoch"] == epoch
            return (
                named and kept and (saved is None or all(bool(value.isfinite().all()) for value in saved[0].values()))
            )
        return False


def _with_infinite_gradient(loss: Tensor) -> Tensor:
    loss.register_hook(lambda gradient: gradient * torch.inf)
    return loss


if __name__ == "__main__":
    sys.exit(write_study("repeatability", "Numbers", 0, lambda seed: list(study(seed))))
