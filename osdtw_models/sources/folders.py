"""Folders of class folders."""

from __future__ import annotations

from pathlib import Path

from osdtw_models.image_set import ImageSet, Reading, photograph_set
from osdtw_models.names import check_class_names
from osdtw_models.pixels import IMAGE_SUFFIXES


def image_folder(root: Path, reading: Reading) -> ImageSet:
    """Read every image of a folder of class folders.

    Args:
        root: Folder with one sub-folder per class; its name is the class name.
        reading: How the images are read.

    Returns:
        The images, classes and files in alphabetical order.

    Raises:
        FileNotFoundError: If the folder does not exist.
        ValueError: If there are no class folders, one is empty, or an image cannot be read.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}; give a folder that holds one folder of images per class.")
    class_names = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not class_names:
        raise ValueError(f"{root} holds no class folders; put the images of each class into a folder of its own.")
    check_class_names(class_names, root)
    found: list[Path] = []
    labels = []
    for label, name in enumerate(class_names):
        files = sorted(f for f in (root / name).iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"Class folder {root / name} holds no image; add images to it or remove the folder.")
        found.extend(files)
        labels.extend([label] * len(files))
    return photograph_set(root, found, labels, class_names, reading)


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split: ``root/train``, ``root/val`` and ``root/test`` where they exist, else ``root``.

    Returns:
        The folder that holds the class folders; ``val/`` stands in for a missing ``test/``.

    Raises:
        FileNotFoundError: If the wanted images of a folder with ``train/`` do not exist.
    """
    if not (root / "train").is_dir():
        return root
    for name in ("test", "val") if split == "test" else (split,):
        if (root / name).is_dir():
            return root / name
    wanted = "neither test/ nor val/" if split == "test" else f"no {split}/"
    raise FileNotFoundError(f"{root} has train/ but {wanted}; add one, or give {root / 'train'} itself.")


def has_folder(root: Path, split: str) -> bool:
    """Whether a folder has validation images beside test images, or is divided into training and test images."""
    if split == "val":
        return all((root / name).is_dir() for name in ("train", "val", "test"))
    return (root / "train").is_dir()
