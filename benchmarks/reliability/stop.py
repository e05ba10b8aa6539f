"""Training that is asked to stop at random moments, by Ctrl-C and by SIGTERM: how does it end, and does it go on?

    python benchmarks/reliability/stop.py    -> benchmarks/studies/reliability/stop.json

What runs is the door of ``osdtw-train``, in a forked child.
"""

from __future__ import annotations

import random
import signal
import sys

from disturbed_runs import disturbed_runs
from rows import write_study
from tiny_runs import command

TRIES = {signal.SIGTERM: 25, signal.SIGINT: 25}

if __name__ == "__main__":
    sys.exit(write_study("stop", "Stopped", 0, lambda seed: list(disturbed_runs(TRIES, command, random.Random(seed)))))
