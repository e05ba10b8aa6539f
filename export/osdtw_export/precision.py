"""A float32 file -> the same in fewer bits."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from osdtw_export.accuracy import Data, batches
from osdtw_export.half import convert_to_half
from osdtw_export.metadata import Metadata
from osdtw_export.quantise import BATCH, class_balanced, quantise


def lower_precision(source: Path, target: Path, metadata: Metadata, data: Data | None = None) -> None:
    """Write a file again in the precision that its new metadata tell of, and let ONNX's checker look at it.

    Args:
        source: A float32 file.
        target: Where to write.
        metadata: What the new file says about itself.
        data: Images for int8's calibration.

    Raises:
        ValueError: If the result is no valid file.
    """
    if metadata.precision == "fp16":
        convert_to_half(source, target)
    else:
        assert data is not None
        chosen = class_balanced(data.train.labels.tolist())
        quantise(source, target, metadata, batches(data.train, chosen, metadata.batch or BATCH))
    model = onnx.load(os.fspath(target))
    onnx.helper.set_model_props(model, metadata.to_props())
    onnx.save(model, os.fspath(target))
    try:
        onnx.checker.check_model(os.fspath(target), full_check=True)
    except Exception as error:  # onnx has several kinds
        raise ValueError(
            f"The file in {metadata.precision} is not valid ONNX; report this as a bug: {error}"
        ) from error
