"""Every image file is opened once before it is used; broken ones are named, and never replaced.

What was found sound is remembered in the user's cache directory by path, size and time of change, so that only new and
changed files are opened again. Only sound files are remembered: a damaged memory can make a file be opened once more,
never pass a broken one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import PIL
from tqdm import tqdm

from osdtw_models.files import write_text
from osdtw_models.names import printable
from osdtw_models.pixels import IMAGE_FORMATS, MAX_PIXELS, BrokenImageError, open_image

Policy = Literal["leave_out", "error"]
# Another decoder, or other rules, may judge otherwise: what they found is not remembered across them.
OPENER = f"Pillow {PIL.__version__}, {' '.join(IMAGE_FORMATS)}, {MAX_PIXELS} pixels"
AT_ONCE = 1024
SHOWN = 5

Stamp = list[int]
"""Size in bytes and time of change in nanoseconds."""


@dataclass(frozen=True)
class BrokenImage:
    """A file that cannot be used.

    Args:
        name: Its path below its source.
        class_name: The class that it is listed under.
        reason: What is wrong with it.
    """

    name: str
    class_name: str
    reason: str


def sound_images(
    files: Sequence[Path], classes: Sequence[str], source: Path, policy: Policy, root: Path | None = None
) -> tuple[list[int], tuple[BrokenImage, ...]]:
    """Open every file, and say which can be used.

    Args:
        files: Image files.
        classes: Class name of each.
        source: The folder, or the list, that they come from.
        policy: "error": a broken file is an error; "leave_out": it is left out.
        root: The folder below which files are named, where that is not the source.

    Returns:
        Places of the sound files, in order; and the broken ones.

    Raises:
        ValueError: If a file is broken and the policy says so, or a class has no sound file.
    """
    reasons = find_broken(files, source)
    names = {f: printable(_name(f, root or source)) for f in reasons}
    broken = {i: BrokenImage(names[f], classes[i], reasons[f]) for i, f in enumerate(files) if f in reasons}
    if broken and policy == "error":
        raise ValueError(
            f"Cannot read {len(broken)} of {len(files)} images under {source}: {named(list(broken.values()))}; mend or "
            "remove them."
        )
    kept = [i for i in range(len(files)) if i not in broken]
    left = {classes[i] for i in kept}
    for each in broken.values():
        if each.class_name not in left:
            raise ValueError(
                f"Class {each.class_name!r} under {source} has no image that can be read ({each.name}: {each.reason}); "
                "mend its images, or remove the class."
            )
    return kept, tuple(broken.values())


def named(broken: Sequence[BrokenImage]) -> str:
    """The first few broken images with their reasons, in words."""
    first = ", ".join(f"{each.name} ({each.reason})" for each in broken[:SHOWN])
    return first + (f" and {len(broken) - SHOWN} more" if len(broken) > SHOWN else "")


def find_broken(files: Sequence[Path], source: Path) -> dict[Path, str]:
    """What is wrong with each broken file; all that is not known to be sound is decoded whole, by parallel threads.

    Args:
        files: Image files.
        source: The folder, or the list, that they come from; it has a memory of its own.

    Returns:
        Reasons by file.
    """
    memory = _memory(source)
    known, stamps = _recall(memory), {file: _stamp(file) for file in files}
    sound = {file for file, stamp in stamps.items() if stamp and known.get(_name(file, source)) == stamp}
    unknown = [file for file in stamps if file not in sound]
    reasons: dict[Path, str] = {}
    bar = tqdm(total=len(unknown), desc=f"Opening {source}", unit=" images", leave=False, disable=None)
    try:
        with bar, ThreadPoolExecutor(os.cpu_count()) as pool:  # decoders let other threads run
            for start in range(0, len(unknown), AT_ONCE):  # Ctrl-C waits for what was handed out
                block = unknown[start : start + AT_ONCE]
                for file, reason in zip(block, pool.map(_reason, block), strict=True):
                    bar.update()
                    if reason:
                        reasons[file] = reason
                    else:
                        sound.add(file)
    finally:
        if unknown:
            _remember(memory, {_name(file, source): stamps[file] for file in sound})
    return reasons


def _reason(file: Path) -> str:
    try:
        open_image(file)
    except BrokenImageError as error:
        return error.reason
    return ""


def _name(file: Path, source: Path) -> str:
    try:
        return os.path.relpath(file, source)
    except ValueError:  # Windows: on another drive than the list
        return os.path.abspath(file)


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def _memory(source: Path) -> Path:
    """Where the sound files of a source are remembered."""
    caches = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or "~/.cache"
    name = hashlib.sha256(str(source.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return Path(caches).expanduser() / "osdtw" / "sound_images" / f"{name}.json"


def _recall(memory: Path) -> dict[str, Stamp]:
    try:
        found = json.loads(memory.read_text(encoding="utf-8"))
        return dict(found["sound"]) if found["opener"] == OPENER else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # none yet, or damaged
        return {}


def _remember(memory: Path, sound: dict[str, Stamp | None]) -> None:
    with suppress(OSError):  # where nothing can be written, the images are opened again next time
        write_text(memory, json.dumps({"opener": OPENER, "sound": sound}))
