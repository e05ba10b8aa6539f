"""The long-tailed sets that the field trains on as lists of files, and the numbers that its papers print of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """What is known of a published list.

    Args:
        images: Lines in all.
        classes: Number of classes.
        largest: Images of the largest class.
        smallest: Images of the smallest class.
    """

    images: int
    classes: int
    largest: int
    smallest: int


# By name of the data set: its lists by split. iNaturalist's validation images are the field's test images.
SETS = {
    "imagenet_lt": {split: f"ImageNet_LT_{split}.txt" for split in ("train", "val", "test")},
    "places_lt": {split: f"Places_LT_{split}.txt" for split in ("train", "val", "test")},
    "inaturalist2018": {"train": "iNaturalist18_train.txt", "test": "iNaturalist18_val.txt"},
}
LISTS = {
    "ImageNet_LT_train.txt": Published(115_846, 1000, 1280, 5),
    "ImageNet_LT_val.txt": Published(20_000, 1000, 20, 20),
    "ImageNet_LT_test.txt": Published(50_000, 1000, 50, 50),
    "Places_LT_train.txt": Published(62_500, 365, 4980, 5),
    "Places_LT_val.txt": Published(7_300, 365, 20, 20),
    "Places_LT_test.txt": Published(36_500, 365, 100, 100),
    "iNaturalist18_train.txt": Published(437_513, 8142, 1000, 2),
    "iNaturalist18_val.txt": Published(24_426, 8142, 3, 3),
}


def check_published(name: str, counts: Sequence[int]) -> None:
    """Refuse a list that bears a published name and is another one.

    Args:
        name: Name of the list file; one that is not published passes.
        counts: Images per class in it.

    Raises:
        ValueError: If the numbers are not those of the published list.
    """
    known = LISTS.get(name)
    found = Published(sum(counts), len(counts), max(counts), min(counts))
    if known and found != known:
        raise ValueError(
            f"{name} has {_told(found)}, but the published list has {_told(known)}; fetch it again, or give a list of "
            "your own another name."
        )


def _told(known: Published) -> str:
    return f"{known.images} images in {known.classes} classes of {known.largest} to {known.smallest}"
