"""The door to labelled images: a data set's name or folder -> the images of one split.

Every reader returns an `ImageSet`: all images decoded once, as one tensor, or photographs that stay in their files. An
image that cannot be read is named, an error or left out; nothing is ever put in its place.
"""

from __future__ import annotations

from pathlib import Path

from osdtw_models.image_set import ImageSet, resize
from osdtw_models.soundness import Policy
from osdtw_models.sources.cifar_images import CIFAR10, CIFAR100, cifar
from osdtw_models.sources.digits import digits
from osdtw_models.sources.folders import image_folder, split_folder

SPLITS = ("train", "test")
CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def read_images(
    data: str,
    split: str,
    img_size: int = 32,
    data_dir: str | None = None,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    lazy: bool = False,
    broken: Policy = "error",
) -> ImageSet:
    """Read one split of a data set.

    Args:
        data: "digits", "cifar10", "cifar100", or the path of a folder of class folders (or of ``train/`` and ``test/``
            folders that hold them).
        split: "train" or "test".
        img_size: Side of the square images, in pixels.
        data_dir: For CIFAR: a folder of parquet files in the Hub's layout, or the folder where torchvision
            keeps (or puts) its download; None fetches the Hub's copy.
        crop_pct: For folders: see `osdtw_models.pixels.fit_image`.
        interpolation: Likewise.
        lazy: For folders: leave the images in their files until they are used.
        broken: For folders: see `osdtw_models.soundness.sound_images`.

    Returns:
        The images of the split.

    Raises:
        ValueError: If the data set or split is unknown, or an image or class folder is unusable.
        FileNotFoundError: If the folder or a split of it does not exist.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose 'train' or 'test'.")
    if data == "digits":
        return resize(digits(split), img_size)
    if data in CIFAR:
        return resize(cifar(CIFAR[data], split, data_dir), img_size)
    return image_folder(split_folder(Path(data), split), img_size, crop_pct, interpolation, lazy, broken)


def has_test_split(data: str) -> bool:
    """Whether a data set comes with test images of its own; a plain folder of class folders does not."""
    return data in ("digits", *CIFAR) or (Path(data) / "train").is_dir()
