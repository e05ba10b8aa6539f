"""A name, a folder or a Hub repository -> the network with its weights.

All three are the same thing in the end: a folder with ``config.json`` (timm's form) and ``model.safetensors``.
Released names have theirs in ``weights/``, Hub repositories in the local cache. No other weight file is ever
opened: ``.bin`` and ``.pth`` are pickles, which can run code.
"""

from __future__ import annotations

from pathlib import Path

import timm
from timm.models import get_pretrained_cfg

from osdtw_models.checksums import check_sums
from osdtw_models.doors import first_line
from osdtw_models.hub import fetch
from osdtw_models.network import OsdtwNet
from osdtw_models.releases import CONFIG, WEIGHTS
from osdtw_models.saved_files import FAMILY, check_preparation, check_size, read_config, read_header


def load_model(source: str | Path) -> OsdtwNet:
    """Load a trained network.

    Args:
        source: A released name, with or without tag ("osdtw_resnet32"); a folder with ``config.json`` and
            ``model.safetensors``; or "hf-hub:org/name", optionally with "@revision". Names come before
            folders: write "./osdtw_resnet32" for a folder of that name.

    Returns:
        The network in eval mode, on the CPU; ``pretrained_cfg["label_names"]`` holds its label names, if any.

    Raises:
        FileNotFoundError: If the source, or one of its two files, does not exist.
        ValueError: If a name has no released weights, a file is damaged, or the two do not belong together.
    """
    folder = folder_of(source)
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{source} has no {name}; give a folder that holds {CONFIG} and {WEIGHTS}.")
    check_sums(folder, (CONFIG, WEIGHTS))
    file = folder / CONFIG
    check_size(read_config(file), read_header(folder / WEIGHTS), file)
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except Exception as error:  # the two files are the user's: whatever they provoke becomes one sentence
        raise ValueError(
            f"The {CONFIG} and {WEIGHTS} of {source} do not fit each other: {first_line(error)}"
        ) from error
    if not isinstance(model, OsdtwNet):
        raise ValueError(f"{file} builds a {type(model).__name__}, not a classifier; save the whole network.")
    claimed = model.pretrained_cfg["num_classes"]
    if claimed != model.num_classes:  # timm takes this as a wish for new classes and leaves them untrained
        raise ValueError(
            f"{file} says {claimed} classes in one place and {model.num_classes} in another; save the checkpoint again."
        )
    check_preparation(model.pretrained_cfg, model.num_classes, file)
    return model.eval()


def folder_of(source: str | Path) -> Path:
    """Where the files of a source lie.

    Args:
        source: See `load_model`.

    Returns:
        The folder; what is on the Hub is fetched first.

    Raises:
        FileNotFoundError: If there is no such source.
        ValueError: If it is a file, or a name without released weights.
    """
    text = str(source)
    kind, colon, rest = text.partition(":")
    if colon and kind in ("hf-hub", "hf_hub"):
        return fetch(rest)
    folder = Path(rest if colon and kind == "local-dir" else source).expanduser()
    released = _released_folder(text) if isinstance(source, str) else None
    if released is not None:
        if not released.is_dir():
            raise FileNotFoundError(f"The weights of {text} are not in this installation; install osdtw-models again.")
        return released
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ValueError(f"{source} is a file; give the folder that holds it, with {CONFIG} and {WEIGHTS}.")
    known = ", ".join(timm.list_pretrained(f"{FAMILY}*"))
    if timm.is_model(text.split(".")[0]) and text.startswith(FAMILY):
        raise ValueError(
            f"There are no released weights {text!r}, only {known}; or give a folder of your own training."
        )
    raise FileNotFoundError(
        f"There is no folder {text!r}, and no model of that name; give a folder with {CONFIG} and {WEIGHTS}, "
        f"'hf-hub:org/name', or one of {known}."
    )


def _released_folder(name: str) -> Path | None:
    """Folder of a released checkpoint, fetched if it is not packaged, or None if the name has none."""
    if not name.startswith(FAMILY):
        return None
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError:  # timm's word for an unknown tag
        return None
    if cfg is None:
        return None
    if cfg.file:
        return Path(cfg.file).parent
    return fetch(cfg.hf_hub_id) if cfg.hf_hub_id else None
