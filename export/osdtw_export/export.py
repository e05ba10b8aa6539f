"""Network -> one ONNX file that explains itself.

The file holds the graph, the weights and what a program must know to use it (`metadata`). It takes its final
name only after ONNX's checker has accepted it and ONNX Runtime has agreed with PyTorch on every output.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from osdtw_export.accuracy import Data, accuracy_cost
from osdtw_export.copies import convolve_without_copies
from osdtw_export.describe import describe
from osdtw_export.graph import InferenceGraph, evaluated, inference_graph
from osdtw_export.interface import INPUT
from osdtw_export.metadata import Metadata
from osdtw_export.parity import ParityReport, check_parity
from osdtw_export.precision import lower_precision
from osdtw_export.variant import Variant
from osdtw_models import OsdtwNet
from osdtw_models.doors import first_line
from osdtw_models.files import write_whole


@dataclass(frozen=True)
class OnnxFile:
    """An exported file that has passed its checks.

    Args:
        path: Where it is.
        num_bytes: Its size.
        opset: Version of the ONNX operators it uses.
        metadata: What it says about itself.
        parity: How far it is from PyTorch.
        unpacked_because: Why its decoders are not packed although that was asked for, or "".
        cost: Accuracies in percent before and after its precision was lowered, by figure, or None.
    """

    path: Path
    num_bytes: int
    opset: int
    metadata: Metadata
    parity: ParityReport
    unpacked_because: str = ""
    cost: dict[str, tuple[float, float]] | None = None


def export_onnx(
    model: OsdtwNet,
    path: str | os.PathLike[str],
    *,
    source: str,
    label_names: list[str] | None = None,
    variant: Variant | None = None,
    data: Data | None = None,
    debug: bool = False,
) -> OnnxFile:
    """Write a network as one ONNX file.

    Input "pixel_values": (batch, channels, H, W), float32, normalised; or (batch, H, W, channels), uint8. Outputs:
    "logits" (batch, classes), fused, in the original class order, then "logits_task0" and so on, (batch, n_k + 1) with
    "none" last; then "probabilities" (batch, classes), if wanted.

    Args:
        model: The network; it is left as it is.
        path: The file to write; an older file is replaced only by one that passed every check.
        source: Where the weights come from; it will stand in the file.
        label_names: Name of each class; by default those of the model's ``pretrained_cfg``, if any.
        variant: The form of the file: float32, any batch, decoders packed where they can be, by default.
        data: Images: int8 is calibrated on them, and what fewer bits cost is measured on them.
        debug: Let the exporter speak.

    Returns:
        The file, its metadata and its parity report.

    Raises:
        ValueError: If the arguments do not fit, the exporter fails, or the file disagrees with PyTorch.
    """
    path = Path(path)
    check_target(path)
    variant = variant or Variant()
    if variant.precision == "int8" and data is None:
        raise ValueError("int8 is calibrated on real images; name them with --data, whose test set tells the cost.")
    if not model.num_classes:
        raise ValueError("This network has no classifiers (num_classes=0); load it with its classes.")
    model = evaluated(model)
    graph, metadata, reason = inference_graph(model, describe(model, source, label_names), variant)
    reports, costs = [], []

    def write_checked(draft: Path) -> None:
        write_graph(graph, draft, replace(metadata, precision="fp32"), variant.opset, debug)
        reports.append(check_parity(model, draft))
        if metadata.precision != "fp32":
            with tempfile.TemporaryDirectory() as folder:
                full = Path(shutil.copy(draft, Path(folder) / "full.onnx"))
                lower_precision(full, draft, metadata, data)
                reports.append(check_parity(model, draft))
                costs.append(accuracy_cost(full, draft, data.test) if data and data.test else None)

    write_whole(path, write_checked)
    return OnnxFile(path, path.stat().st_size, variant.opset, metadata, reports[-1], reason, *costs)


def check_target(path: Path) -> None:
    """Refuse a place that cannot be written to, before any work is done.

    Args:
        path: The file to write.

    Raises:
        ValueError: If something else than a file is there.
        FileNotFoundError: If there is no such folder.
        PermissionError: If the folder cannot be written to.
    """
    if path.exists() and not path.is_file():  # a rename would put a file in place of /dev/null
        raise ValueError(f"{path} is a folder or a device; name a file to write, such as model.onnx.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}; create it first, or write somewhere else.")
    if not os.access(path.parent, os.W_OK):
        raise PermissionError(f"The folder {path.parent} cannot be written to; choose another one with -o.")


def write_graph(graph: InferenceGraph, file: Path, metadata: Metadata, opset: int, debug: bool = False) -> None:
    """Translate, save and check; the exporter's many failures become one sentence.

    Args:
        graph: What the file computes.
        file: Where to write it.
        metadata: What it says about itself.
        opset: Version of the ONNX operators.
        debug: Let the exporter speak.

    Raises:
        ValueError: If the exporter fails, or ONNX's checker refuses the file.
        OSError: If the file cannot be written.
    """
    size = metadata.input_size
    batch = metadata.batch or 2  # where it is free, an example of 1 would count as a constant
    example = torch.zeros(batch, *size)
    if metadata.uint8:
        example = torch.zeros(batch, *size[1:], size[0], dtype=torch.uint8)
    try:
        with _silence(debug):
            program = torch.onnx.export(
                graph,
                (example,),
                input_names=[INPUT],
                output_names=list(metadata.output_sizes),
                opset_version=opset,
                dynamic_shapes=None if metadata.batch else ({0: "batch"},),
                dynamo=True,
                verbose=debug,
            )
            assert program is not None  # None only without dynamo
            convolve_without_copies(program.model)
            ClearMetadataAndDocStringPass()(program.model)
            program.model.metadata_props.update(metadata.to_props())
            program.save(file, external_data=False)
        onnx.checker.check_model(os.fspath(file), full_check=True)  # full: with strict shape inference
    except OSError:  # a full disk is not the exporter's fault
        raise
    except Exception as error:
        raise ValueError(
            f"torch {torch.__version__} could not write {metadata.architecture} as ONNX (opset {opset}); see all of "
            f"it with debug: {first_line(error)}"
        ) from error


@contextmanager
def _silence(debug: bool) -> Iterator[None]:
    """Keep the exporter's warnings about its own internals from the user."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        yield
