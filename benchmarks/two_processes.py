"""One run with one and with two processes, by the commands that a user types: how far apart, and how long?

    python benchmarks/two_processes.py    -> benchmarks/studies/two_processes.json

ResNet-20 on digits at 32 pixels, balanced softmax, float32 as in any run; a third run with another number of threads
shows what the order of sums alone does to one process.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from osdtw_models.files import write_text
from osdtw_training.provenance import processor

RESULTS = Path(__file__).parent / "studies" / "two_processes.json"
WORDS = (
    "digits_lt_balanced_softmax --model osdtw_resnet20 --img-size 32 --batch-size 128 --imbalance-factor 1 "
    "--train.epochs 1 --train.lr 0.05 --train.rise-epochs 0"
)
TRAIN = ["-m", "osdtw_training.cli", *WORDS.split()]
RUNS = {
    "one process": [sys.executable, *TRAIN],
    "one process, two threads": [sys.executable, *TRAIN, "--threads", "2"],
    "two processes": [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *TRAIN],
}


def run(name: str, folder: Path) -> dict[str, float]:
    """Run one command; its epoch's seconds on the clock and its processor seconds in all."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*RUNS[name], "--output", str(folder)], env=environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    (line,) = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    row = json.loads(line)
    processor_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"epoch_seconds": row["seconds"], "processor_seconds": round(processor_seconds, 2), "loss": row["loss"]}


def compared(folder: Path, other: Path) -> float:
    """Largest difference between two networks' tensors, relative to the largest value of each tensor."""
    own, theirs = load_file(folder / "model.safetensors"), load_file(other / "model.safetensors")
    return max(
        float((value.double() - theirs[key].double()).abs().max() / value.double().abs().max().clamp(min=1e-12))
        for key, value in own.items()
    )


def main() -> None:
    """Run all commands and write the results file."""
    with tempfile.TemporaryDirectory() as root:
        folders = {name: Path(root) / name.replace(" ", "_").replace(",", "") for name in RUNS}
        rows: dict[str, dict[str, Any]] = {name: dict(run(name, folder)) for name, folder in folders.items()}
        first = next(iter(RUNS))
        for name, row in rows.items():
            row["weights"] = compared(folders[first], folders[name])
            row["loss_difference"] = abs(row["loss"] - rows[first]["loss"])
    study = {
        "command": "python benchmarks/two_processes.py",
        "run": f"osdtw-train {WORDS}",
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "date": time.strftime("%Y-%m-%d"),
        "load": os.getloadavg()[1],
        "rows": rows,
    }
    write_text(RESULTS, json.dumps(study, indent=2) + "\n")
    print(f"Wrote {RESULTS}")


if __name__ == "__main__":
    main()
