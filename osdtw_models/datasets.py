"""The door to labelled images: a data set's name, folder or list -> the images of one split.

Every reader returns an `ImageSet`: all images decoded once, as one tensor, or images that stay where they are until
they are used. An image that cannot be read is named, an error or left out; nothing is ever put in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from osdtw_models.image_set import ImageSet, Reading, resize
from osdtw_models.soundness import Policy
from osdtw_models.sources.cifar_images import CIFAR10, CIFAR100, cifar
from osdtw_models.sources.digits import digits
from osdtw_models.sources.folders import has_folder, image_folder, split_folder
from osdtw_models.sources.lists import Lists, is_list, list_file, read_list
from osdtw_models.sources.published import SETS
from osdtw_models.sources.timm_names import has_timm_test, is_timm_name, read_timm

SPLITS = ("train", "val", "test")
CIFAR = {"cifar10": CIFAR10, "cifar100": CIFAR100}
NO_LISTS = Lists()


def read_images(
    data: str,
    split: str,
    img_size: int = 32,
    data_dir: str | None = None,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    lazy: bool = False,
    broken: Policy = "error",
    lists: Lists = NO_LISTS,
    class_names: Sequence[str] | None = None,
) -> ImageSet:
    """Read one split of a data set.

    Args:
        data: "digits", "cifar10" or "cifar100"; a published set of lists ("imagenet_lt", "places_lt",
            "inaturalist2018"); a list file (.txt, .csv); timm's name of a data set ("hfds/...", "torch/...", see
            `osdtw_models.sources.timm_names`); or the path of a folder of class folders, or of ``train/``, ``val/``
            and ``test/`` folders that hold them.
        split: "train", "val" or "test".
        img_size: Side of the square images, in pixels.
        data_dir: For CIFAR: a folder of parquet files in the Hub's layout, or the folder where torchvision keeps (or
            puts) its download; None fetches the Hub's copy. For lists: the folder that their paths start from. For
            timm's names: what timm calls root.
        crop_pct: For images that have no size of their own: see `osdtw_models.pixels.fit_image`.
        interpolation: Likewise.
        lazy: Leave such images where they are until they are used.
        broken: For image files: see `osdtw_models.soundness.sound_images`.
        lists: What goes with a list of training images.
        class_names: The classes, for lists and timm's names that do not tell them in full: those of the training
            images, or of a network.

    Returns:
        The images of the split.

    Raises:
        ValueError: If the data set or split is unknown, or an image, a list or a class folder is unusable.
        FileNotFoundError: If the folder or a split of it does not exist.
    """
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; choose one of {', '.join(SPLITS)}.")
    if split == "val" and data in ("digits", *CIFAR):
        raise ValueError(f"{data} has no validation images; choose train or test.")
    if lists != NO_LISTS and not is_list(data):
        raise ValueError(
            f"test_list, val_list and class_names go with a list of training images, but data is {data}; leave them "
            "out, or name the list as data."
        )
    reading = Reading(img_size, crop_pct, interpolation, lazy, broken)
    if data == "digits":
        return resize(digits(split), img_size)
    if data in CIFAR:
        return resize(cifar(CIFAR[data], split, data_dir), img_size)
    if is_list(data):
        return read_list(data, split, data_dir, lists, class_names, reading)
    if is_timm_name(data, data_dir):
        return read_timm(data, split, data_dir, class_names, reading)
    if not Path(data).is_dir():
        named = ", ".join(("digits", *CIFAR, *SETS))
        raise FileNotFoundError(
            f"No folder {data}; give a folder of class folders, a list (.txt, .csv), a name of timm's, or {named}."
        )
    return image_folder(split_folder(Path(data), split), reading)


def has_split(data: str, split: str, data_dir: str | None = None, lists: Lists = NO_LISTS) -> bool:
    """Whether a data set comes with validation or test images of its own.

    Args:
        data: See `read_images`.
        split: "val" or "test". Validation images that stand in for missing test images are test images.
        data_dir: See `read_images`.
        lists: Likewise.

    Returns:
        Whether it does; a plain folder of class folders and a list without companions do not.
    """
    if data in ("digits", *CIFAR):
        return split == "test"
    if is_list(data):
        return list_file(data, split, data_dir, lists) is not None
    if is_timm_name(data, data_dir):
        return split == "test" and has_timm_test(data, data_dir)
    return has_folder(Path(data), split)


def short_name(data: str) -> str:
    """What to call a run on a data set: the last part of its name, without ending or options."""
    if is_list(data):
        return Path(data).stem
    return Path(data.partition("?")[0] if is_timm_name(data, None) else data).resolve().name
