"""Images that list files name: published long-tailed sets, and lists of one's own. The images stay where they are."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from osdtw_models.image_set import ImageSet, Reading, check_classes, photograph_set
from osdtw_models.names import check_class_names
from osdtw_models.sources.published import LISTS, SETS, check_published
from osdtw_models.sources.rows import Row, class_labels, read_rows, read_text


@dataclass(frozen=True)
class Lists:
    """What goes with a list of training images.

    Args:
        test: List of test images.
        val: List of validation images.
        class_names: File with the name of one class a line, in label order.
    """

    test: str | None = None
    val: str | None = None
    class_names: str | None = None


def is_list(data: str) -> bool:
    """Whether a data set is a list file or one of the published sets of them."""
    return data in SETS or (Path(data).suffix.lower() in (".txt", ".csv") and not Path(data).is_dir())


def list_file(data: str, split: str, data_dir: str | None, lists: Lists) -> Path | None:
    """The list of a split.

    Args:
        data: "imagenet_lt", "places_lt", "inaturalist2018", or a list of training images.
        split: "train", "val" or "test".
        data_dir: Folder that the lists' paths start from; published lists are looked for in it.
        lists: Further lists; a published list's companions are also looked for beside it.

    Returns:
        The file, or None where there is none of this split.

    Raises:
        ValueError: If a published set is named without its folder.
    """
    given = {"train": None, "val": lists.val, "test": lists.test}[split]
    if given is not None:
        return Path(given)
    if data in SETS:
        if data_dir is None:
            wanted = " and ".join(SETS[data].values())
            raise ValueError(f"{data} needs data_dir (--data-dir), the folder of the images with {wanted} in it.")
        folder, names = Path(data_dir), SETS[data]
    else:
        folder = Path(data).parent
        names = next((names for names in SETS.values() if Path(data).name == names["train"]), {})
    if split == "train":
        return folder / names["train"] if data in SETS else Path(data)
    beside = folder / names[split] if split in names else None
    return beside if beside is not None and beside.is_file() else None


def read_list(
    data: str,
    split: str,
    data_dir: str | None,
    lists: Lists,
    known: Sequence[str] | None,
    reading: Reading,
) -> ImageSet:
    """The images of a list.

    Args:
        data: See `list_file`.
        split: Likewise; a list without companions is all that there is, whatever the split.
        data_dir: Folder that the paths start from; by default the list's own.
        lists: See `list_file`.
        known: The classes, where they are known already: those of the training images, or of a network.
        reading: How the images are read.

    Returns:
        The images in the order of the list.

    Raises:
        FileNotFoundError: If a list or the folder does not exist.
    """
    file = list_file(data, split, data_dir, lists)
    if file is None:
        if split == "val" or data in SETS:
            raise FileNotFoundError(f"{data} has no list of {split} images; give it as --{split}-list.")
        file = Path(data)
    root = file.parent if data_dir is None else Path(data_dir)
    rows = read_rows(file)
    if lists.class_names is not None:
        known = read_class_names(Path(lists.class_names))
    labels, class_names = class_labels(file, rows, known)
    check_class_names(class_names, file)
    check_published(file.name, np.bincount(labels, minlength=len(class_names)).tolist())
    images = photograph_set(root, find_files(root, file, rows), labels, class_names, reading, file)
    if split == "train":
        check_classes(images, str(file))
    if file.name in LISTS:
        return replace(images, list_sha256=hashlib.sha256(file.read_bytes()).hexdigest())
    return images


def read_class_names(file: Path) -> tuple[str, ...]:
    """Class names, one a line; an empty or repeated one is an error that names the line."""
    names = [line.strip() for line in read_text(file).rstrip().split("\n")]
    seen: set[str] = set()
    for line, name in enumerate(names, 1):
        if not name or name in seen:
            problem = "repeats a name" if name else "is empty"
            raise ValueError(f"{file}, line {line} {problem}; write the name of one class on each line.")
        seen.add(name)
    check_class_names(names, file)
    return tuple(names)


def find_files(root: Path, file: Path, rows: Sequence[Row]) -> list[Path]:
    """The files of a list; each must lie in the root, also after links are followed.

    Args:
        root: Folder that the paths start from.
        file: The list, for messages.
        rows: Its rows.

    Returns:
        One file per row.

    Raises:
        FileNotFoundError: If the root does not exist.
        ValueError: If a path leaves the root or is no file; names the line.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}; give the folder that the paths in {file} start from (--data-dir).")
    real = Path(os.path.realpath(root))
    inside = cache(lambda path: Path(os.path.realpath(path)).is_relative_to(real))  # folders hold many images
    found = []
    for row in rows:
        path = os.path.join(root, row.path)  # strings: half a million paths are common here
        where = f"{file}, line {row.line}: the path {row.path!r}"
        if _escapes(row.path) or not inside(os.path.dirname(path)) or (os.path.islink(path) and not inside(path)):
            raise ValueError(f"{where} leaves {root}; give a folder that holds all images itself (--data-dir).")
        if not os.path.isfile(path):
            raise ValueError(f"{where} is no file in {root}; give the folder that the paths start from (--data-dir).")
        found.append(Path(path))
    return found


def _escapes(path: str) -> bool:
    """Whether a path leaves its root as it is written."""
    return "\0" in path or os.path.isabs(path) or bool(os.path.splitdrive(path)[0]) or ".." in re.split(r"[/\\]", path)
