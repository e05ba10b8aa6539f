"""An ONNX file, samples and a runtime -> the folder of pages, ready for any static host."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path

from PIL import Image

from osdtw_export.demo.words import FORMAT, WEIGHTS, Words, page_model, space_card
from osdtw_export.metadata import Metadata
from osdtw_models.files import write_bytes, write_text, write_whole

MODEL, SAMPLES, RUNTIME = "model.json", "samples", "onnxruntime"


def write_folder(
    folder: Path,
    onnx_file: Path,
    metadata: Metadata,
    words: Words,
    *,
    samples: Sequence[tuple[str, Image.Image]] = (),
    runtime: Mapping[str, bytes],
) -> None:
    """Write the folder, which may hold an earlier one.

    Args:
        folder: Where the pages go.
        onnx_file: The network.
        metadata: What its file says about itself.
        words: Title and the like.
        samples: Names and pictures to pick, RGB.
        runtime: The files of onnxruntime-web.

    Raises:
        ValueError: If the pages cannot feed the network, or something else lies in the folder.
    """
    check_folder(folder)
    names = [f"{SAMPLES}/{number:02}.png" for number in range(len(samples))]
    told = page_model(metadata, words, dict(zip(names, (name for name, _ in samples), strict=True)))
    pages = files("osdtw_export.demo") / "page"
    for page in pages.iterdir():
        place = f"{RUNTIME}/LICENSE" if page.name == "LICENSE" else page.name
        write_bytes(folder / place, page.read_bytes())
    for name, content in runtime.items():
        write_bytes(folder / RUNTIME / name, content)
    for name, (_, image) in zip(names, samples, strict=True):
        write_whole(folder / name, partial(image.save, format="PNG"))
    for old in (folder / SAMPLES).glob("[0-9][0-9].png"):
        if f"{SAMPLES}/{old.name}" not in names:
            old.unlink()
    write_whole(folder / WEIGHTS, partial(shutil.copyfile, onnx_file))
    write_text(folder / "README.md", space_card(metadata, words))
    write_text(folder / MODEL, json.dumps(told, indent=1) + "\n")


def check_folder(folder: Path) -> None:
    """Refuse to mix the pages with somebody's other files.

    Args:
        folder: Where the pages are to go.

    Raises:
        ValueError: If it is a file, or a folder that holds anything but an earlier demo.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file; name a folder for the pages with -o.")
    others = [path.name for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    if others and not _is_demo(folder / MODEL):
        raise ValueError(f"{folder} holds other files ({min(others)}); name a new folder with -o, or empty this one.")


def _is_demo(file: Path) -> bool:
    try:
        return json.loads(file.read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return False
