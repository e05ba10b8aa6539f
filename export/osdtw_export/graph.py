"""Network -> one ONNX file that explains itself.

The file holds the graph, the weights and what a program must know to use it (`metadata`). It takes its final
name only after ONNX's checker has accepted it and ONNX Runtime has agreed with PyTorch on every output.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import safetensors.torch
import timm
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from timm.data import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

import osdtw_models
from osdtw_export.metadata import Metadata
from osdtw_export.parity import ParityReport, check_parity
from osdtw_export.runtime import INPUT
from osdtw_models import OsdtwNet
from osdtw_models.doors import first_line
from osdtw_models.files import write_whole

OPSET = 20
OPSETS = range(18, 24)  # what torch's exporter writes


@dataclass(frozen=True)
class OnnxFile:
    """An exported file that has passed its checks.

    Args:
        path: Where it is.
        num_bytes: Its size.
        opset: Version of the ONNX operators it uses.
        metadata: What it says about itself.
        parity: How far it is from PyTorch.
    """

    path: Path
    num_bytes: int
    opset: int
    metadata: Metadata
    parity: ParityReport


def export_onnx(
    model: OsdtwNet,
    path: str | os.PathLike[str],
    *,
    source: str,
    label_names: list[str] | None = None,
    opset: int = OPSET,
    debug: bool = False,
) -> OnnxFile:
    """Write a network as one ONNX file.

    Input "pixel_values": (batch, channels, H, W), float32, normalised. Outputs: "logits" (batch, classes), fused,
    in the original class order, then "logits_task0" and so on, (batch, n_k + 1) with "none" last. The batch is free.

    Args:
        model: The network; it is left as it is.
        path: The file to write; an older file is replaced only by one that passed every check.
        source: Where the weights come from; it will stand in the file.
        label_names: Name of each class; by default those of the model's ``pretrained_cfg``, if any.
        opset: Version of the ONNX operators, 18 to 23.
        debug: Let the exporter speak.

    Returns:
        The file, its metadata and its parity report.

    Raises:
        FileNotFoundError: If the folder of ``path`` does not exist.
        ValueError: If the arguments do not fit, the exporter fails, or the file disagrees with PyTorch.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # the rename below would put a file in place of /dev/null
        raise ValueError(f"{path} is a folder or a device; name a file to write, such as model.onnx.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent}; create it first, or write somewhere else.")
    if opset not in OPSETS:
        raise ValueError(f"Opset {opset} cannot be written; choose one of {OPSETS.start} to {OPSETS.stop - 1}.")
    if not model.num_classes:
        raise ValueError("This network has no classifiers (num_classes=0); load it with its classes.")
    metadata = describe(model, source, label_names)
    model = deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).eval()
    model.set_grad_checkpointing(False)
    reports = []

    def write_checked(draft: Path) -> None:
        _write(model, draft, metadata, opset, debug)
        reports.append(check_parity(model, draft))

    write_whole(path, write_checked)
    return OnnxFile(path, path.stat().st_size, opset, metadata, reports[0])


def describe(model: OsdtwNet, source: str, label_names: list[str] | None = None) -> Metadata:
    """Gather what the file will say about itself.

    Args:
        model: The network.
        source: Where its weights come from.
        label_names: Name of each class; by default those of the model's ``pretrained_cfg``, if any.

    Returns:
        The metadata.

    Raises:
        ValueError: If the label names or the preprocessing do not fit the network.
    """
    config = model.pretrained_cfg
    data = resolve_model_data_config(model)
    weights = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    return Metadata(
        architecture=config["architecture"],
        source=source,
        task_classes=model.partition.to_lists(),
        label_names=label_names or _own_labels(config, model.num_classes),
        shared_depth=model.shared_depth,
        fusion=model.fusion,
        input_size=(model.in_chans, *data["input_size"][1:]),
        mean=_per_channel(data["mean"], model.in_chans),
        std=_per_channel(data["std"], model.in_chans),
        crop_pct=data["crop_pct"],
        interpolation=data["interpolation"],
        weights_sha256=hashlib.sha256(safetensors.torch.save(weights)).hexdigest(),
        class_counts=model.class_counts,
        versions={package.__name__: str(package.__version__) for package in (osdtw_models, timm, torch)},
    )


def fold_batch_norm(model: nn.Module) -> None:
    """Fold every batch norm ``bnX`` into the convolution ``convX`` beside it, in place.

    torch's exporter folds too, but has folded wrongly before (pytorch#166797).

    Args:
        model: A network in eval mode.
    """
    for module in list(model.modules()):
        for name, conv in list(module.named_children()):
            norm = getattr(module, name.replace("conv", "bn"), None)
            # timm's own kind of batch norm has an activation inside, which must stay.
            if isinstance(conv, nn.Conv2d) and type(norm) is nn.BatchNorm2d:
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, name.replace("conv", "bn"), nn.Identity())


class _EveryOutput(nn.Module):
    """Fused and task logits as one tuple, each decoder run once."""

    def __init__(self, network: OsdtwNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, ...]:  # the argument names the graph's input
        shared = self.network.forward_encoder(pixel_values)
        task_logits = [self.network.forward_decoder(shared, k) for k in self.network.tasks]
        return (self.network.fuse(task_logits), *self.network.calibrated(task_logits))


def _write(model: OsdtwNet, file: Path, metadata: Metadata, opset: int, debug: bool) -> None:
    """Translate, save and check; the exporter's many failures become one sentence."""
    folded = deepcopy(model)
    fold_batch_norm(folded)
    try:
        with _silence(debug):
            program = torch.onnx.export(
                _EveryOutput(folded).eval(),
                (torch.zeros(2, *metadata.input_size),),  # a batch of 1 would count as a constant
                input_names=[INPUT],
                output_names=list(metadata.output_sizes),
                opset_version=opset,
                dynamic_shapes=({0: "batch"},),
                dynamo=True,
                verbose=debug,
            )
            assert program is not None  # None only without dynamo
            ClearMetadataAndDocStringPass()(program.model)
            program.model.metadata_props.update(metadata.to_props())
            program.save(file, external_data=False)
        onnx.checker.check_model(os.fspath(file), full_check=True)  # full: with strict shape inference
    except Exception as error:
        raise ValueError(
            f"torch {torch.__version__} could not write {metadata.architecture} as ONNX (opset {opset}); see all of "
            f"it with debug: {first_line(error)}"
        ) from error


def _own_labels(config: dict[str, Any], num_classes: int) -> list[str] | None:
    """Label names that came with the checkpoint; timm allows a list, or a dict from index to name."""
    if config.get("num_classes") != num_classes:
        return None  # the network got new classes since: the names are those of the old ones
    names = config.get("label_names")
    if isinstance(names, dict):
        if {str(key) for key in names} != {str(c) for c in range(num_classes)}:
            raise ValueError(f"label_names of the checkpoint must name the classes 0 to {num_classes - 1}.")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    return list(names) if names else None


def _per_channel(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Preprocessing of a network with other channels than its config: the mean of the known ones, as in timm."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels


@contextmanager
def _silence(debug: bool) -> Iterator[None]:
    """Keep the exporter's warnings about its own internals from the user."""
    with warnings.catch_warnings():
        if not debug:
            warnings.simplefilter("ignore")
        yield
