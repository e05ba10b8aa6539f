"""A model repository for Triton Inference Server: ``<name>/config.pbtxt``, ``<name>/1/model.onnx``, labels."""

from __future__ import annotations

import json
from pathlib import Path

from osdtw_export.interface import INPUT, image_shape
from osdtw_export.metadata import Metadata
from osdtw_models.files import write_text

MAX_BATCH = 64
QUEUE_MICROSECONDS = 500  # how long a request waits for others to share its batch
LABELS = "labels.txt"
IN_CLASS_ORDER = ("logits", "probabilities")


def triton_file(folder: Path, name: str) -> Path:
    """Where a model repository keeps the ONNX file of its only version."""
    return folder / name / "1" / "model.onnx"


def write_triton(folder: Path, name: str, metadata: Metadata, instances: int = 1) -> Path:
    """Write what stands beside the ONNX file.

    Args:
        folder: The model repository.
        name: Name of the model in it.
        metadata: What the ONNX file says about itself.
        instances: Copies of the model that run at the same time, on each GPU or on the CPU.

    Returns:
        The ``config.pbtxt``.

    Raises:
        ValueError: If there is to be no instance.
    """
    if instances < 1:
        raise ValueError(f"{instances} instances serve nobody; choose 1 or more.")
    if metadata.label_names:
        lines = [" ".join(label.split()) for label in metadata.label_names]
        write_text(folder / name / LABELS, "\n".join(lines) + "\n")
    path = folder / name / "config.pbtxt"
    write_text(path, _config(name, metadata, instances))
    return path


def _config(name: str, metadata: Metadata, instances: int) -> str:
    """The configuration in protobuf's text form."""
    fixed = [metadata.batch] if metadata.batch else []
    kind = "TYPE_UINT8" if metadata.uint8 else "TYPE_FP32"
    lines = [
        f"name: {json.dumps(name)}",
        'backend: "onnxruntime"',
        # 0: requests are not merged, the graph takes one batch size only.
        f"max_batch_size: {0 if fixed else MAX_BATCH}",
        f'input [ {{ name: "{INPUT}" data_type: {kind} dims: {[*fixed, *image_shape(metadata)]} }} ]',
    ]
    for output, width in metadata.output_sizes.items():
        labels = f' label_filename: "{LABELS}"' if metadata.label_names and output in IN_CLASS_ORDER else ""
        lines.append(f'output [ {{ name: "{output}" data_type: TYPE_FP32 dims: {[*fixed, width]}{labels} }} ]')
    lines.append(f"instance_group [ {{ count: {instances} kind: KIND_AUTO }} ]")
    if not fixed:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}")
    if metadata.threads:
        value = f'value: {{ string_value: "{metadata.threads}" }}'
        lines.append(f'parameters [ {{ key: "intra_op_thread_count" {value} }} ]')
    return "\n".join(lines) + "\n"
