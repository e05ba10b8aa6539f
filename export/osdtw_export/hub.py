"""File names of the Hub: where transformers.js, optimum and others look for ONNX files and preprocessing."""

from __future__ import annotations

import json
import math
from pathlib import Path

from osdtw_export.metadata import Metadata
from osdtw_models.files import write_text
from osdtw_models.pixels import INTERPOLATIONS

SUFFIXES = {"fp32": "", "fp16": "_fp16", "int8": "_quantized"}


def hub_file(folder: Path, precision: str) -> Path:
    """Where a repository keeps its ONNX file of one precision."""
    return folder / "onnx" / f"model{SUFFIXES[precision]}.onnx"


def write_preprocessing(folder: Path, metadata: Metadata) -> Path:
    """Write ``preprocessor_config.json``: scale the short side, take the centre, normalise.

    Args:
        folder: The repository's folder.
        metadata: What the ONNX file says about itself.

    Returns:
        The file.
    """
    channels, height, width = metadata.input_size
    config = {
        "image_processor_type": "CLIPImageProcessor",  # the one of these steps in this order
        "do_convert_rgb": channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": math.floor(width / metadata.crop_pct)},
        "resample": int(INTERPOLATIONS[metadata.interpolation]),
        "do_center_crop": True,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(metadata.mean),
        "image_std": list(metadata.std),
    }
    path = folder / "preprocessor_config.json"
    write_text(path, json.dumps(config, indent=2) + "\n")
    return path
