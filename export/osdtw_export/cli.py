"""The doors of the export package.

Torch and ONNX are imported when a door has something to do: ``--help`` answers at once, and a missing extra is
one sentence instead of a traceback.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from osdtw_export.door import DEFAULT_SOURCE, Parser, run_door
from osdtw_export.variant import OPSET, PACKINGS, PRECISIONS, Variant

if TYPE_CHECKING:
    from osdtw_export.accuracy import Data
    from osdtw_export.graph import OnnxFile
    from osdtw_export.metadata import Metadata

EXTRA = ("onnx", "onnxscript", "onnxruntime")

EXAMPLES = """\
examples:
  osdtw-export --onnx                              the packaged osdtw_resnet32, to osdtw_resnet32.onnx
  osdtw-export --onnx runs/my_run -o birds.onnx    your own training
  osdtw-export --onnx hf-hub:org/name              a checkpoint from the Hugging Face Hub

The file takes float32 images 'pixel_values' (batch, channels, height, width), any batch size, and returns
'logits' (batch, classes) in the original class order, then 'logits_task0', 'logits_task1', ... with "none" last.
Label names, mean, std and tasks are in its metadata. It is written only if ONNX Runtime and PyTorch agree on it:

  from osdtw_export.runtime import OnnxClassifier
  OnnxClassifier("birds.onnx").logits(images)
"""


def main(argv: list[str] | None = None) -> int:
    """``osdtw-export``: write a trained network as an ONNX file.

    Args:
        argv: Arguments; those of the command line by default.

    Returns:
        Exit code, as `osdtw_models.doors.run_door` gives it.
    """
    return run_door(_export_parser(), _export, argv)


def _export_parser() -> Parser:
    parser = Parser(
        "osdtw-export",
        "Write a trained OSDTW network as one ONNX file that carries its labels and preprocessing.",
        EXAMPLES,
    )
    parser.add_argument("--onnx", action="store_true", help="the format to write (the only one so far)")
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a model name, a run or checkpoint folder with config.json and model.safetensors, or hf-hub:org/name "
        f"(default: {DEFAULT_SOURCE})",
    )
    add = parser.add_argument
    add("-o", "--output", metavar="FILE", type=Path, help="the file to write (default: <name>.onnx)")
    add(
        "--pack",
        default="auto",
        choices=(*PACKINGS, "auto"),
        help="run the decoders of all tasks as one: grouped or dense convolutions (default: grouped; none for int8)",
    )
    add("--precision", default="fp32", choices=PRECISIONS, help="of weights and arithmetic (default: fp32)")
    add(
        "--data",
        metavar="NAME",
        help="images to calibrate int8 on and to tell what fewer bits cost: digits, cifar100,\n"
        "or a folder with train/ and test/",
    )
    add("--data-dir", metavar="DIR", help="for cifar100: parquet folder or torchvision's folder")
    add("--batch", default="dynamic", metavar="N", help="images per run: any number, or always N (default: dynamic)")
    add("--uint8", action="store_true", help="take pixels (batch, H, W, channels) and normalise them in the graph")
    add("--softmax", action="store_true", help="a last output 'probabilities'")
    add("--opset", type=int, default=OPSET, metavar="N", help=f"version of the ONNX operators (default: {OPSET})")
    return parser


def _variant(options: argparse.Namespace) -> Variant:
    batch = None if options.batch == "dynamic" else options.batch
    if batch is not None and not batch.isdecimal():
        raise ValueError(f"--batch is {batch!r}; give a number of images, or 'dynamic' for any.")
    return Variant(options.pack, options.precision, batch and int(batch), options.uint8, options.opset, options.softmax)


def _export(options: argparse.Namespace) -> None:
    """Load, export, tell."""
    if not options.onnx:
        raise ValueError("No format to write; pass --onnx.")
    from osdtw_models.doors import need

    need("export", *EXTRA)
    from osdtw_export.describe import describe
    from osdtw_export.graph import export_onnx
    from osdtw_models.load import load_model

    variant = _variant(options)
    source = options.source
    if source is None:
        source = DEFAULT_SOURCE
        print(f"No SOURCE given: exporting the packaged {source} with its pretrained weights.")
    name = _name(source)
    output = options.output or Path(f"{name}.onnx")
    model = load_model(source)
    # A folder's path tells about the user's machine: only its name goes into the file.
    origin = source if _on_hub(source) else name
    print(f"Source   {source}")
    described = describe(model, origin)
    _tell_network(described, model.num_blocks)
    data = None
    if options.data:
        from osdtw_export.accuracy import read_data

        data = read_data(described, options.data, options.data_dir)
    file = export_onnx(model, output, source=origin, variant=variant, data=data, debug=options.debug)
    _tell_file(file, variant)
    if file.cost and data:
        _tell_cost(file.cost, data)
    print(f"Wrote    {file.path}")


def _name(source: str) -> str:
    """Short name of a source: the last part of its path, without a Hub revision."""
    if _on_hub(source):
        return source.partition("@")[0].rpartition("/")[2]
    return Path(source).expanduser().resolve().name


def _on_hub(source: str) -> bool:
    return source.startswith(("hf-hub:", "hf_hub:"))


def _tell_network(metadata: Metadata, num_blocks: int) -> None:
    sizes = [len(task) for task in metadata.task_classes]
    tasks = "1 task" if len(sizes) == 1 else f"{len(sizes)} tasks ({' + '.join(map(str, sizes))})"
    print(f"Network  {metadata.architecture}, fusion {metadata.fusion}")
    print(f"Depth    {metadata.shared_depth} of {num_blocks} blocks shared")
    print(f"Classes  {metadata.num_classes} in {tasks}", flush=True)


def _tell_file(file: OnnxFile, variant: Variant) -> None:
    from osdtw_export.interface import image_shape

    known = file.metadata
    size = ", ".join(map(str, image_shape(known)))
    batch = known.batch or "batch"
    outputs = ", ".join(f"{name} ({batch}, {width})" for name, width in known.output_sizes.items())
    why = f" instead of {variant.packing}: {file.unpacked_because}" if file.unpacked_because else ""
    print(f"Packing  {known.packing}{why}")
    print(f"Input    pixel_values ({batch}, {size}), {'uint8' if known.uint8 else 'float32'}")
    print(f"Outputs  {outputs}")
    print(f"Labels   {'in the file' if file.metadata.label_names else 'none in the checkpoint'}")
    print(f"Size     {file.num_bytes / 1e6:.2f} MB, opset {file.opset}")
    print("Parity   largest difference between ONNX Runtime and PyTorch")
    for batch in sorted({row.batch for row in file.parity.rows}):
        row = file.parity.worst(batch)
        allowed = f" (allowed {row.allowed:.1e})" if math.isfinite(row.allowed) else " on noise, which says little"
        print(f"         batch {batch:<3} {row.difference:.1e} in {row.output}{allowed}")


def _tell_cost(cost: dict[str, tuple[float, float]], data: Data) -> None:
    """Overall first: it hides what happens where images are few."""
    print(f"Accuracy in %, fp32 and this file, on {len(data.test)} test images")
    for name, (before, after) in cost.items():
        print(f"         {name:<8}{before:6.2f} {after:6.2f}  {after - before:+.2f}")
    if not data.apart:
        print("         The data have no test images of their own: the same images calibrated the file.")


if __name__ == "__main__":
    sys.exit(main())
