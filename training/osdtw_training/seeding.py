"""Random transforms of a single image: every draw under a seed of that image's own, in whatever process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(key: tuple[int, ...]) -> Iterator[None]:
    """Seed all generators that transforms draw from, and put them back afterwards.

    Args:
        key: What the seed follows from, such as the run's seed, the epoch, the image's index.

    Yields:
        Nothing.
    """
    seed = int(np.random.SeedSequence(key).generate_state(1)[0])
    # Not torch.manual_seed: it seeds every kind of device, or notes for each that it must be done, image by image.
    ours = torch.default_generator
    states = random.getstate(), np.random.get_state(), ours.get_state()
    random.seed(seed)
    np.random.seed(seed)
    ours.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        ours.set_state(states[2])
