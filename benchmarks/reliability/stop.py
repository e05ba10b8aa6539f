"""Training killed or asked to stop at random moments of all its stages: how does it end, and does it go on?

    python benchmarks/reliability/stop.py    -> benchmarks/studies/reliability/stop.json

What runs is the door of ``osdtw-train``, in a forked child.
"""

from __future__ import annotations

import random
import signal
import sys

from disturbed_runs import disturbed_runs
from rows import Row, write_study
from tiny_runs import command

TRIES = {signal.SIGKILL: 50, signal.SIGTERM: 25, signal.SIGINT: 10}


def study(seed: int) -> list[Row]:
    """Disturb runs by every signal."""
    return list(disturbed_runs(TRIES, command, random.Random(seed)))


if __name__ == "__main__":
    sys.exit(write_study("stop", "Training killed or stopped", 0, study))
