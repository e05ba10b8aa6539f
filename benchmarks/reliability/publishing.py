"""Publishing killed at random moments: does the Hub, or the folder, hold all of one version and nothing of another?

    python benchmarks/reliability/publishing.py    -> benchmarks/studies/reliability/publishing.json

The client is the Hub's own, the server the tests' Hub on loopback: the real one is not asked.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from huggingface_hub import constants

from forks import disturb, fork, wait
from osdtw_export.publish import keep
from osdtw_export.upload import upload
from rows import Row, tried, write_study

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "export"))
from hub_server import Hub

TRIES = 50
REPO = "org/birds"
SIZE = 2**22  # bytes of each large file


def study(seed: int) -> Iterator[Row]:
    """Kill uploads, and the writing of the folder that is published."""
    moments = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        yield killed_uploads(Path(name), moments)
    with tempfile.TemporaryDirectory() as name:
        yield killed_folders(Path(name), moments)


def killed_uploads(place: Path, moments: random.Random) -> Row:
    """Kill uploads over an older version, then upload again."""
    old, new = files(b"old"), files(b"new")
    write(place / "folder", new)
    with Hub() as hub:
        hub.server.handle_error = lambda *_: None  # whose client is gone
        for name, value in hub.settings(place).items():
            setattr(constants, name, value)
        os.environ["HF_TOKEN"] = "writer"

        def act() -> None:
            upload(place / "folder", REPO)

        def held() -> dict[str, bytes]:
            return {path: content for path, content in hub.files(REPO).items() if path in new}

        def killed(seconds: float) -> bool:
            hub.large.clear()
            hub.create(REPO, old)
            disturb(fork(act, place / "said.txt"), seconds, signal.SIGKILL)
            one = held() in (old, new)
            again = wait(fork(act, place / "said.txt")) == 0
            return one and again and held() == new and len(hub.commits(REPO)) == 2

        hub.create(REPO, old)
        seconds = duration(act, place / "said.txt")
        checks = [killed(moments.random() * seconds) for _ in range(TRIES)]
    means = "the Hub holds all of the older or of the newer version; the same call then brings the newer, in one commit"
    return tried("SIGKILL", "an upload over an older version, to a Hub on loopback", checks, means)


def killed_folders(place: Path, moments: random.Random) -> Row:
    """Kill what writes the folder of `osdtw-publish --dry-run`."""
    content = files(b"new")
    write(place / "folder", content)
    target = place / "kept" / "birds"

    def act() -> None:
        keep(place / "folder", target)

    def killed(seconds: float) -> bool:
        shutil.rmtree(target, ignore_errors=True)
        disturb(fork(act, place / "said.txt"), seconds, signal.SIGKILL)
        one = not target.exists() or read(target) == content
        shutil.rmtree(target, ignore_errors=True)
        return one and len(keep(place / "folder", target)) == len(content) and read(target) == content

    seconds = duration(act, place / "said.txt")
    checks = [killed(moments.random() * seconds) for _ in range(TRIES)]
    return tried("SIGKILL", "writing the folder of osdtw-publish --dry-run", checks, "no folder, or all of it")


def duration(act: Callable[[], None], said: Path) -> float:
    """Seconds that a child takes for something if nobody kills it."""
    started = time.perf_counter()
    assert wait(fork(act, said)) == 0, said.read_text(encoding="utf-8")
    return time.perf_counter() - started


def files(version: bytes) -> dict[str, bytes]:
    """What a folder of a version holds."""
    large = {name: version * (SIZE // len(version)) for name in ("model.safetensors", "onnx/model.onnx")}
    return {"README.md": b"# Birds, " + version, "config.json": b'{"architecture": "osdtw_resnet14"}', **large}


def write(folder: Path, content: dict[str, bytes]) -> None:
    """Write such a folder."""
    for name, each in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(each)


def read(folder: Path) -> dict[str, bytes]:
    """What a folder holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


if __name__ == "__main__":
    sys.exit(write_study("publishing", "Publishing killed", 0, lambda seed: list(study(seed))))
