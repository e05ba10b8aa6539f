"""CIFAR-10 and CIFAR-100 from three sources each, the same image at the same index from all of them.

CIFAR-100 is known by a digest of all its images. No digest of CIFAR-10 is pinned, for want of a copy when this was
written: its numbers of images are checked, its pixels are not (but torchvision checks the MD5 of its copy).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from osdtw_models.doors import first_line, need
from osdtw_models.image_set import ImageSet, canonical_order
from osdtw_models.pixels import decode_image

SPLIT_SIZES = {"train": 50_000, "test": 10_000}
SHAPE = (32, 32, 3)


@dataclass(frozen=True)
class Cifar:
    """One of the two data sets.

    Args:
        name: Its name.
        hub: Its repository on the Hub.
        folder: Where that keeps its parquet files.
        label: Their column of labels.
        unpacked: What torchvision's folder of it is called; torchvision's class is called like the data set.
        class_names: The classes in label order.
        sha256: Digest over pixels and labels of each split in canonical order (see `canonical_order`), if known.
    """

    name: str
    hub: str
    folder: str
    label: str
    unpacked: str
    class_names: tuple[str, ...]
    sha256: dict[str, str] | None = None


def cifar(which: Cifar, split: str, data_dir: str | None = None) -> ImageSet:
    """The same images at the same index from a parquet folder, torchvision's copy or the Hub.

    Args:
        which: `CIFAR10` or `CIFAR100`.
        split: "train" (50,000 images) or "test" (10,000).
        data_dir: See `read_images`.

    Returns:
        The images of the split, 32x32 RGB.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no images of the split.
        ValueError: If the images are not those of the data set, as far as it is known.
    """
    if data_dir is None:
        images = _read_parquet(which, _hub_parquet(which, split), split)
    else:
        folder = Path(data_dir)
        if not folder.is_dir():
            raise FileNotFoundError(f"No folder {folder}; point data_dir at {which.name} (parquet or torchvision).")
        found = sorted(folder.rglob(f"{split}-*.parquet"))
        images = _read_parquet(which, found, split) if found else _read_torchvision(which, folder, split)
    images, digests = canonical_order(images)
    _check(which, images, digests, split, data_dir or which.hub)
    return images


def _check(which: Cifar, images: ImageSet, digests: Sequence[str], split: str, place: str) -> None:
    """Refuse what is not the data set: by its digest, where none is known by its counts."""
    problem = ""
    if which.sha256 is None:
        classes = len(which.class_names)
        each = SPLIT_SIZES[split] // classes
        problem = "" if images.counts() == [each] * classes else f"not {each} images of each of {classes} classes"
    else:
        listed = "".join(f"{d}{y}" for d, y in zip(digests, images.labels.tolist(), strict=True))
        digest = hashlib.sha256(listed.encode()).hexdigest()
        if digest != which.sha256[split]:
            problem = f"SHA-256 {digest[:12]}, expected {which.sha256[split][:12]}"
    if problem:
        raise ValueError(
            f"The {split} images under {place} are not those of {which.name} ({problem}); download the data again."
        )


def _read_parquet(which: Cifar, files: Sequence[Path], split: str) -> ImageSet:
    """Parquet files in the Hub's layout: columns ``img`` (encoded image) and the labels."""
    need("training", "pyarrow")
    from pyarrow import parquet

    images: list[np.ndarray[Any, Any]] = []
    labels: list[int] = []
    for file in files:
        try:
            table = parquet.read_table(file)
        except (OSError, ValueError) as error:
            raise ValueError(f"{file} is no parquet file ({first_line(error)}); download the data again.") from error
        missing = {"img", which.label} - set(table.column_names)
        if missing:
            raise ValueError(f"{file} has no column {sorted(missing)[0]!r}; it must have 'img' and {which.label!r}.")
        rows = zip(table.column("img").to_pylist(), table.column(which.label).to_pylist(), strict=True)
        for row, (cell, label) in enumerate(rows):
            content = cell.get("bytes") if isinstance(cell, dict) else None
            if not isinstance(content, bytes) or label not in range(len(which.class_names)):
                raise ValueError(
                    f"{file}, row {row} is no image with a label of {which.name}; download the data again."
                )
            image = np.asarray(decode_image(content, f"{file}[{row}]"))
            if image.shape != SHAPE:
                raise ValueError(
                    f"{file}, row {row} has the shape {image.shape}, not {SHAPE}; download the data again."
                )
            images.append(image)
            labels.append(label)
    return _image_set(which, np.stack(images), labels, split)


def _read_torchvision(which: Cifar, folder: Path, split: str) -> ImageSet:
    """torchvision's copy; it checks the archive's MD5 before it reads the files."""
    from torchvision import datasets

    read, train = getattr(datasets, which.name.replace("-", "")), split == "train"
    try:
        source = read(folder, train=train, download=False)
    except RuntimeError:
        try:
            source = read(folder, train=train, download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{folder} holds neither {split}-*.parquet nor torchvision's {which.unpacked}, and the download "
                "failed; point data_dir at a folder that does."
            ) from error
    return _image_set(which, source.data, source.targets, split)


def _hub_parquet(which: Cifar, split: str) -> list[Path]:
    from huggingface_hub import snapshot_download

    try:
        wanted = [f"{which.folder}/{split}-*.parquet"]
        folder = snapshot_download(which.hub, repo_type="dataset", allow_patterns=wanted)
    except Exception as error:  # the hub client raises many kinds; the user's way out is the same for all
        raise FileNotFoundError(
            f"Cannot fetch {which.hub} from the Hub ({type(error).__name__}); pass the folder of a copy as data_dir."
        ) from error
    return sorted(Path(folder).rglob(f"{split}-*.parquet"))


def _image_set(which: Cifar, pixels: np.ndarray[Any, Any], labels: Sequence[int], split: str) -> ImageSet:
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    names = tuple(f"{split}[{i}]" for i in range(len(labels)))
    return ImageSet(images, torch.tensor(labels), which.class_names, names)


CIFAR100_CLASSES = tuple(
    # The order of CIFAR-100's fine labels.
    "apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can "
    "castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin "
    "elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster "
    "man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck "
    "pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk "
    "skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger "
    "tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm".split()
)

CIFAR10 = Cifar(
    "CIFAR-10",
    hub="uoft-cs/cifar10",
    folder="plain_text",
    label="label",
    unpacked="cifar-10-batches-py",
    class_names=tuple("airplane automobile bird cat deer dog frog horse ship truck".split()),
)
CIFAR100 = Cifar(
    "CIFAR-100",
    hub="uoft-cs/cifar100",
    folder="cifar100",
    label="fine_label",
    unpacked="cifar-100-python",
    class_names=CIFAR100_CLASSES,
    sha256={
        "train": "c9dfa2c3b288f16df79738424db879372cd17d801a3055bffd4d1f23e2288670",
        "test": "ddf52dfc2b4569ac7b89efbef4a8c752599cbbd5ec5297f832777c524190b383",
    },
)
