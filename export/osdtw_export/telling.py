"""What ``osdtw-export`` prints about a file."""

from __future__ import annotations

import math
from collections.abc import Iterator

from osdtw_export.accuracy import Data
from osdtw_export.export import OnnxFile
from osdtw_export.interface import image_shape
from osdtw_export.metadata import Metadata
from osdtw_export.tune import table_lines
from osdtw_export.variant import Variant


def network_lines(metadata: Metadata, num_blocks: int) -> Iterator[str]:
    """Before the work: what is exported.

    Yields:
        Lines.
    """
    sizes = [len(task) for task in metadata.task_classes]
    tasks = "1 task" if len(sizes) == 1 else f"{len(sizes)} tasks ({' + '.join(map(str, sizes))})"
    yield f"Network  {metadata.architecture}, fusion {metadata.fusion}"
    yield f"Depth    {metadata.shared_depth} of {num_blocks} blocks shared"
    yield f"Classes  {metadata.num_classes} in {tasks}"


def file_lines(file: OnnxFile, variant: Variant, data: Data | None) -> Iterator[str]:
    """After the work: what the file is, how far from PyTorch, what it costs, what was timed.

    Yields:
        Lines.
    """
    known = file.metadata
    size = ", ".join(map(str, image_shape(known)))
    batch = known.batch or "batch"
    outputs = ", ".join(f"{name} ({batch}, {width})" for name, width in known.output_sizes.items())
    why = f" instead of {variant.packing}: {file.unpacked_because}" if file.unpacked_because else ""
    yield f"Packing  {known.packing}{why}"
    yield f"Bits     {known.precision}"
    yield f"Input    pixel_values ({batch}, {size}), {'uint8' if known.uint8 else 'float32'}"
    yield f"Outputs  {outputs}"
    yield f"Labels   {'in the file' if known.label_names else 'none in the checkpoint'}"
    yield f"Size     {file.num_bytes / 1e6:.2f} MB, opset {file.opset}"
    yield "Parity   largest difference between ONNX Runtime and PyTorch"
    for row in (file.parity.worst(batch) for batch in sorted({row.batch for row in file.parity.rows})):
        allowed = f"(allowed {row.allowed:.1e})" if math.isfinite(row.allowed) else "on noise, which says little"
        yield f"         batch {row.batch:<3} {row.difference:.1e} in {row.output} {allowed}"
    if known.precision != "fp32" and not data:
        yield "Accuracy not measured; --data with a test set tells what fewer bits cost"
    if file.cost and data and data.test:
        yield f"Accuracy in %, fp32 and this file, on {len(data.test)} test images"
        for name, (before, after) in file.cost.items():
            yield f"         {name:<8}{before:6.2f} {after:6.2f}  {after - before:+.2f}"
        if not data.apart:
            yield "         The data have no test images of their own: the same images calibrated the file."
    if known.tuning:
        yield f"Timed    on this machine; {known.threads} thread{'s' * (known.threads != 1)} from now on"
        yield from (f"         {line}" for line in table_lines(known.tuning))
