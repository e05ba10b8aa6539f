"""What ``make demo`` runs: the commands a user calls, from a long-tailed data set to predictions of an ONNX file.

It prints each command before running it, compares OSDTW with balanced softmax at equal passes, and fails if the
balanced accuracy is below `LEVEL`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from osdtw_models.datasets import read_images

FOLDER = Path("runs/demo")
LEVEL = 80.0  # percent balanced accuracy; a broken stage or a wrong prior correction falls far below
COLUMNS = ("overall", "balanced", "head", "tail", "many", "medium", "few", "ece")


def main() -> int:
    """Run the demo; returns the exit code."""
    started = time.perf_counter()
    shutil.rmtree(FOLDER, ignore_errors=True)
    ours, peer, onnx = FOLDER / "osdtw", FOLDER / "balanced_softmax", FOLDER / "osdtw.onnx"
    command("osdtw-train", "digits_lt", "--output", ours)
    command("osdtw-train", "digits_lt_balanced_softmax", "--output", peer)
    command("osdtw-search", ours)
    command("osdtw-eval", ours, "--data", "digits")
    command("osdtw-export", "--onnx", ours, "-o", onnx)
    images = write_test_images(FOLDER / "images")
    command("osdtw-predict", "--model", onnx, images, "--topk", "3")
    results = {folder.name: json.loads((folder / "results.json").read_text()) for folder in (ours, peer)}
    print("\nOn the 600 balanced test images, at equal passes:")
    print(f"{'method':<18}{'passes':>7}" + "".join(f"{name:>10}" for name in COLUMNS))
    for name, result in results.items():
        print(f"{name:<18}{result['passes']:>7}" + "".join(f"{result['test'][column]:>10.2f}" for column in COLUMNS))
    print(f"\nPictures and results: {ours}   ({time.perf_counter() - started:.0f} s)")
    balanced = results["osdtw"]["test"]["balanced"]
    if balanced < LEVEL:
        print(f"The balanced accuracy {balanced:.2f} % is below {LEVEL:g} %: something is broken.", file=sys.stderr)
        return 1
    return 0


def command(*words: str | Path) -> None:
    """Print and run a command of this environment; the demo ends with its exit code if it fails."""
    print(f"\n$ {' '.join(map(str, words))}", flush=True)
    program = Path(sys.executable).parent / str(words[0])
    done = subprocess.run([str(program), *map(str, words[1:])], check=False)
    if done.returncode:
        sys.exit(done.returncode)


def write_test_images(folder: Path) -> Path:
    """Write one test image of each class as a PNG file; returns the folder."""
    folder.mkdir(parents=True)
    test = read_images("digits", "test", img_size=8)
    for label, name in enumerate(test.class_names):
        first = int((test.labels == label).nonzero()[0])
        Image.fromarray(test.images[first : first + 1][0].permute(1, 2, 0).numpy()).save(folder / f"digit_{name}.png")
    return folder


if __name__ == "__main__":
    sys.exit(main())
