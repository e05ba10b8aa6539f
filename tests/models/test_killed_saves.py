"""A process that is killed while it saves leaves a whole file; `benchmarks/reliability/kill.py` asks it more often."""

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from osdtw_models import files

# files.py alone: importing the package takes longer than all saves.
SAVE = f"""
import importlib.util, itertools, sys
from pathlib import Path
spec = importlib.util.spec_from_file_location("files", {files.__file__!r})
files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(files)
for n in itertools.count():
    files.write_text(Path(sys.argv[1]), f"{{n}}\\n" * 200_000)
    print(n, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_killed_save_leaves_the_older_file_or_the_new_one(tmp_path, seed):
    path = tmp_path / "file.txt"
    words = [sys.executable, "-I", "-c", SAVE, str(path)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as saver:
        saver.stdout.readline()
        time.sleep(0.05 * random.Random(seed).random())
        saver.kill()
        told = [0, *map(int, saver.stdout.read().split())]
    lines = path.read_text().split("\n")
    assert len(lines) == 200_001
    assert lines[-1] == ""
    assert len(set(lines[:-1])) == 1
    assert told[-1] <= int(lines[0]) <= told[-1] + 1
    left = [other.name for other in Path(tmp_path).iterdir() if other != path]
    assert all(name.startswith(".file.txt.") for name in left)
