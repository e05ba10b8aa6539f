"""What the pages say of a network, and what the folder says of itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from huggingface_hub import SpaceCardData

from osdtw_export.demo.web_runtime import VERSION
from osdtw_export.metadata import Metadata
from osdtw_models.evaluation import task_names

FORMAT = "osdtw-demo 1"
WEIGHTS = "model.onnx"
TOPK = 5
README = """\
# Image recognition in the visitor's browser

Static pages that run a network on the device of whoever visits them: {network}.
Pictures are not uploaded: there is no server behind the pages, and they load nothing but the files of this folder.

Any static host will do. On your own machine: `python -m http.server` in this folder, then http://localhost:8000.
Opened as a file (`file://`) browsers refuse to run it.

The pages are Apache-2.0. `onnxruntime/` is ONNX Runtime Web, MIT, with its licence beside it.
"""


@dataclass(frozen=True)
class Words:
    """What the pages say that no file knows.

    Args:
        title: Title of the page.
        samples: What stands above the pictures to pick.
        license: The Hub's identifier of the licence of the network, or None.
    """

    title: str
    samples: str
    license: str | None = None


def page_model(metadata: Metadata, words: Words, samples: Mapping[str, str]) -> dict[str, Any]:
    """What the pages must know of the network: ``model.json``.

    Args:
        metadata: What the ONNX file says about itself.
        words: Title and the like.
        samples: Name of each sample by its file.

    Returns:
        Plain values.

    Raises:
        ValueError: If the network takes something else than square images of 3 channels.
    """
    channels, height, width = metadata.input_size
    if channels != 3 or height != width:
        raise ValueError(
            f"The page makes square pictures of 3 channels, but this network takes {channels} x {height} x {width}; "
            "use osdtw-predict with it."
        )
    counts, names = metadata.class_counts, task_names(len(metadata.task_classes))
    if metadata.experts:
        names = [f"expert {k}" for k in range(len(names))]
    tasks = [
        {"name": name, "detail": _detail(classes, counts), "classes": classes}
        for name, classes in zip(names, metadata.task_classes, strict=True)
    ]
    return {
        "format": FORMAT,
        "title": words.title,
        "architecture": metadata.architecture,
        "file": WEIGHTS,
        "runtime": VERSION,
        "topk": min(TOPK, metadata.num_classes),
        "labels": metadata.label_names or [str(c) for c in range(metadata.num_classes)],
        "class_counts": counts,
        "tasks": tasks,
        "none": len(tasks) > 1 and not metadata.experts,
        "open_none": metadata.open_none,
        "experts": metadata.experts,
        "input": {
            "side": width,
            "mean": list(metadata.mean),
            "std": list(metadata.std),
            "crop_pct": metadata.crop_pct,
            "interpolation": metadata.interpolation,
            "uint8": metadata.uint8,
            "batch": metadata.batch or 1,
        },
        "samples_title": words.samples,
        "samples": [{"file": file, "name": name} for file, name in samples.items()],
    }


def _detail(classes: Sequence[int], counts: Sequence[int] | None) -> str:
    """How many classes a task has, and how many pictures they had."""
    number = f"{len(classes)} class{'es' * (len(classes) != 1)}"
    if not counts:
        return number
    least, most = min(counts[c] for c in classes), max(counts[c] for c in classes)
    return f"{number}, {f'{least} to {most}' if least < most else most} training pictures each"


def space_card(metadata: Metadata, words: Words) -> str:
    """``README.md``: on the Hugging Face Hub its header makes the folder a static Space.

    Args:
        metadata: What the ONNX file says about itself.
        words: Title and licence.

    Returns:
        The text.
    """
    header = SpaceCardData(
        title=words.title,
        emoji="\N{RIGHT-POINTING MAGNIFYING GLASS}",
        colorFrom="blue",
        colorTo="yellow",
        sdk="static",
        app_file="index.html",
        pinned=False,
        license=words.license,
        short_description="Long-tailed image recognition in your browser",
        tags=["image-classification", "long-tailed-recognition", "onnx", "arxiv:2605.24969"],
    )
    network = f"{metadata.architecture}, {metadata.num_classes} classes"
    return f"---\n{header.to_yaml()}\n---\n\n{README.format(network=network)}"
