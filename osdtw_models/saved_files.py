"""The two files of a saved network, looked at before anything is built of them.

They may come from anywhere. A config can name a network of any size, weights that lie elsewhere and images of any
size: it is held against the weights' header, which costs nothing to read, and against what `save_for_hf` writes.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.models import build_model_with_cfg

from osdtw_models.doors import first_line
from osdtw_models.names import check_class_names
from osdtw_models.network import OsdtwNet
from osdtw_models.pixels import LEAST_CROP, MAX_SIDE

FAMILY = "osdtw_"
MOST_CONFIG, MOST_HEADER = 16 << 20, 16 << 20  # bytes; the largest of ours take a twentieth
# Words of timm's factories, not of its networks: they reach for weights, devices and other classes.
FACTORY = {
    name
    for factory in (timm.create_model, build_model_with_cfg)
    for name, parameter in inspect.signature(factory).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
} | {"features_only", "pruned", "device", "dtype"}
# What a saved network may ask of its entry point: the network's own arguments, and those that say what is cut.
OWN = {"backbone_args", "widths", *inspect.signature(OsdtwNet).parameters} - {"device", "dtype"}
REPEATED = ("depth", "depths", "layers", "num_layers", "block_args")  # how many blocks a network has


@dataclass(frozen=True)
class Header:
    """What a weight file holds, without the numbers.

    Args:
        shapes: Shape of each tensor.
    """

    shapes: Mapping[str, tuple[int, ...]]

    @property
    def numbers(self) -> int:
        """Numbers in all tensors."""
        return sum(map(math.prod, self.shapes.values()))

    @property
    def num_classes(self) -> int | None:
        """Classes of the network, if it has any."""
        return next(iter(self.shapes.get("class_position", ())), None)


def read_config(file: Path) -> dict[str, Any]:
    """Read a config, and refuse one that is not of this family.

    Args:
        file: The ``config.json``.

    Returns:
        What it says.

    Raises:
        ValueError: If it is no config of a network of ours, or asks for more than a network.
    """
    if file.stat().st_size > MOST_CONFIG:
        raise ValueError(f"{file} has more than {MOST_CONFIG >> 20} MB; save the checkpoint again.")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not valid JSON ({first_line(error)}); save the checkpoint again.") from error
    name = config.get("architecture") if isinstance(config, dict) else None
    if not (isinstance(name, str) and name.startswith(FAMILY) and timm.is_model(name)):
        known = ", ".join(timm.list_models(f"{FAMILY}*"))
        raise ValueError(f"{file} has the architecture {name!r}, which is not an OSDTW network: {known}.")
    arguments = _table(config, "model_args", file)
    own = _table(arguments, "backbone_args", file)
    _table(config, "pretrained_cfg", file)
    foreign = sorted(FACTORY & own.keys())
    if foreign:
        raise ValueError(f"{file} asks timm's factory for {foreign[0]!r}, which is no part of a network; take it out.")
    unknown = sorted(arguments.keys() - OWN)
    if unknown:
        raise ValueError(f"{file} has the argument {unknown[0]!r}, which OSDTW networks do not have; take it out.")
    backbone = arguments.get("backbone")
    if backbone is not None and not (isinstance(backbone, str) and timm.is_model(backbone)):
        raise ValueError(f"{file} names the backbone {backbone!r}, which timm does not know.")
    return config


def read_header(file: Path) -> Header:
    """Read the header of a weight file, and refuse a damaged one; no tensor is read.

    Args:
        file: The ``model.safetensors``.

    Returns:
        The header.

    Raises:
        ValueError: If the file is damaged.
    """
    with file.open("rb") as start:
        length = int.from_bytes(start.read(8), "little")
    if MOST_HEADER < length < file.stat().st_size:
        raise ValueError(f"{file} has a header of more than {MOST_HEADER >> 20} MB; copy or save it again.")
    try:
        with safe_open(file, framework="pt") as opened:
            return Header({name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()})  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is damaged or cut short ({first_line(error)}); copy or save it again.") from error


def check_size(config: Mapping[str, Any], header: Header, file: Path) -> None:
    """Refuse a config of a larger network than the weights are of, before any memory is taken for it.

    Args:
        config: What the config says.
        header: What the weights hold.
        file: The config, for messages.

    Raises:
        ValueError: If classes, tasks, blocks or parameters are more than the weights have.
    """
    arguments = config.get("model_args") or {}
    if not header.num_classes:
        raise ValueError(
            f"{file} and its weights do not fit each other: they lack class_position, which every OSDTW network has."
        )
    claimed = [table.get("num_classes") for table in (config, arguments, config.get("pretrained_cfg") or {})]
    for number in claimed:
        if number not in (None, 0, header.num_classes):
            raise ValueError(
                f"{file} and its weights do not fit each other: {number!r} classes, and {header.num_classes}."
            )
    tasks = arguments.get("task_classes")
    if isinstance(tasks, list) and len(tasks) > len(header.shapes):
        raise ValueError(f"{file} has {len(tasks)} tasks, more than its weights can be of; save both again.")
    for name, number in _numbers(arguments.get("backbone_args") or {}):
        if abs(number) > (len(header.shapes) if name in REPEATED else max(header.numbers, MAX_SIDE)):
            raise ValueError(f"{file} has {name} {number}, more than its weights can be of; save both again.")
    try:
        with torch.device("meta"):  # shapes without memory
            model = timm.create_model(config["architecture"], **arguments)
        numbers = sum(value.numel() for value in model.state_dict().values())
    except Exception as error:  # the file is the user's: whatever it provokes becomes one sentence
        raise ValueError(f"{file} describes no network ({first_line(error)}); save the checkpoint again.") from error
    if numbers > header.numbers:
        raise ValueError(
            f"{file} and its weights do not fit each other: a network of {numbers} numbers, and {header.numbers}."
        )


def check_preparation(cfg: Mapping[str, Any], num_classes: int, file: Path) -> None:
    """Refuse what a config says of images and labels that no image and no class can have.

    Args:
        cfg: timm's pretrained config, as the network has it.
        num_classes: Number of its classes.
        file: The config, for messages.

    Raises:
        ValueError: If a field makes no sense.
    """
    names: Any = cfg.get("label_names")
    size: Any = cfg.get("input_size")
    if names is not None:
        if not (_is_list(names, str) and len(names) == num_classes):
            raise ValueError(f"{file} has label_names that are not one name for each of {num_classes} classes.")
        check_class_names(names, file)
    if not (_is_list(size, int) and len(size) == 3 and all(0 < side <= MAX_SIDE for side in size)):
        raise ValueError(f"{file} has the input_size {size!r}; give channels, height and width, at most {MAX_SIDE}.")
    if cfg.get("crop_mode") not in (None, "center"):
        raise ValueError(
            f'{file} has the crop_mode {cfg["crop_mode"]!r}; images are cropped in their centre: "center".'
        )
    for name in ("mean", "std"):
        values: Any = cfg.get(name)
        if not (_is_list(values, int | float) and len(values) == size[0] and all(map(math.isfinite, values))):
            raise ValueError(f"{file} has the {name} {values!r}; give one number for each of {size[0]} channels.")
    if min(cfg["std"]) <= 0:
        raise ValueError(f"{file} has the std {cfg['std']!r}; standard deviations are positive.")
    part, interpolation = cfg.get("crop_pct"), cfg.get("interpolation")
    if not (isinstance(part, int | float) and LEAST_CROP <= part <= 1 and isinstance(interpolation, str)):
        raise ValueError(f"{file} has crop_pct {part!r} and interpolation {interpolation!r}; give a part and a name.")


def _table(config: Mapping[str, Any], name: str, file: Path) -> dict[str, Any]:
    """A table of a config, empty where there is none."""
    found = config.get(name) or {}
    if not isinstance(found, dict):
        raise ValueError(f"{file} has the {name} {found!r:.100}, which is no table; save the checkpoint again.")
    return found


def _is_list(values: object, kind: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(each, kind) and each is not True for each in values)


def _numbers(tree: Any, name: str = "") -> Iterator[tuple[str, float]]:
    """Every number of nested values, and the nearest name above it."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _numbers(value, key)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _numbers(value, name)
    elif isinstance(tree, int | float):
        yield name, tree
