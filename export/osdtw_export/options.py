"""The options of ``osdtw-export``. No torch: help answers at once."""

from __future__ import annotations

import argparse
from pathlib import Path

from osdtw_export.door import DEFAULT_SOURCE, Parser
from osdtw_export.variant import OPSET, PACKINGS, PRECISIONS, Variant

EXAMPLES = """\
examples:
  osdtw-export --onnx                              the packaged osdtw_resnet32, to osdtw_resnet32.onnx
  osdtw-export --onnx runs/birds -o birds.onnx     your own training
  osdtw-export --onnx hf-hub:org/name              a checkpoint from the Hugging Face Hub
  osdtw-export --onnx runs/birds --tune            the form that is fastest on this machine
  osdtw-export --onnx runs/birds --precision int8 --data birds      smaller and faster on CPUs; tells what it costs
  osdtw-export --onnx runs/birds --hub upload      upload/onnx/model.onnx, upload/preprocessor_config.json
  osdtw-export --onnx runs/birds --triton models   models/birds/config.pbtxt, models/birds/1/model.onnx

The file takes float32 images 'pixel_values' (batch, channels, height, width) and returns 'logits' (batch, classes) in
the original class order, then 'logits_task0', 'logits_task1', ... with "none" last. Label names, mean, std and tasks
are in its metadata. It is written only if ONNX Runtime and PyTorch agree on it:

  from osdtw_export import OnnxClassifier
  OnnxClassifier("birds.onnx").classify(pixels)    # (batch, height, width, 3), uint8
"""


def export_parser() -> Parser:
    """Parser of ``osdtw-export``."""
    parser = Parser(
        "osdtw-export",
        "Write a trained OSDTW network as one ONNX file that carries its labels and preprocessing.",
        EXAMPLES,
    )
    add = parser.add_argument
    add("--onnx", action="store_true", help="the format to write (the only one so far)")
    add(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="a model name, a run or checkpoint folder with config.json and model.safetensors, or hf-hub:org/name "
        f"(default: {DEFAULT_SOURCE})",
    )
    place = parser.add_mutually_exclusive_group()
    place.add_argument("-o", "--output", metavar="FILE", type=Path, help="the file to write (default: <name>.onnx)")
    place.add_argument(
        "--hub", metavar="DIR", type=Path, help="write under the Hub's names: DIR/onnx/model.onnx and preprocessing"
    )
    place.add_argument(
        "--triton", metavar="DIR", type=Path, help="write a model repository for Triton Inference Server"
    )
    add("--instances", type=int, default=1, metavar="N", help="for --triton: copies that run at once (default: 1)")
    add(
        "--pack",
        choices=(*PACKINGS, "auto"),
        help="run the decoders of all tasks as one: grouped or dense convolutions (default: grouped; none for int8)",
    )
    add("--precision", choices=PRECISIONS, help="of weights and arithmetic; int8 needs --data (default: fp32)")
    add("--batch", default="dynamic", metavar="N", help="images per run: any number, or always N (default: dynamic)")
    add("--uint8", action="store_true", help="take pixels (batch, H, W, channels) and normalise them in the graph")
    add("--softmax", action="store_true", help="add a last output 'probabilities'")
    add("--opset", type=int, default=OPSET, metavar="N", help=f"version of the ONNX operators (default: {OPSET})")
    add(
        "--data",
        metavar="NAME",
        help="images that int8 is calibrated on, and that tell what fewer bits cost: digits, cifar100, or a folder "
        "with train/ and test/",
    )
    add("--data-dir", metavar="DIR", help="for cifar100: parquet folder or torchvision's folder")
    add(
        "--tune",
        action="store_true",
        help="time packings, precisions and threads here, keep the fastest; --pack and --precision narrow the choice",
    )
    return parser


def chosen_variant(options: argparse.Namespace) -> Variant:
    """The form of the file that the options ask for.

    Returns:
        The form; "auto" and fp32 where nothing was said.

    Raises:
        ValueError: If they do not fit together.
    """
    if not options.onnx:
        raise ValueError("No format to write; pass --onnx.")
    batch = None if options.batch == "dynamic" else options.batch
    if batch is not None and not batch.isdecimal():
        raise ValueError(f"--batch is {batch!r}; give a number of images, or 'dynamic' for any.")
    if options.hub and options.uint8:
        raise ValueError("--hub tells others how to normalise, a --uint8 file does it itself; leave one of them out.")
    if options.instances < 1:
        raise ValueError(f"--instances is {options.instances}; Triton needs 1 or more.")
    if options.hub and options.tune and not options.precision:
        raise ValueError("--hub names the file after its precision; give --precision with --tune.")
    return Variant(
        options.pack or "auto",
        options.precision or "fp32",
        batch and int(batch),
        options.uint8,
        options.opset,
        options.softmax,
    )
