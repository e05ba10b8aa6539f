"""CIFAR-100 from three sources, the same image at the same index from each."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from osdtw_models.doors import need
from osdtw_models.image_set import ImageSet, canonical_order

CIFAR100_HUB = "uoft-cs/cifar100"
# SHA-256 over pixels and labels of each split in canonical order (see `canonical_order`).
CIFAR100_SHA256 = {
    "train": "c9dfa2c3b288f16df79738424db879372cd17d801a3055bffd4d1f23e2288670",
    "test": "ddf52dfc2b4569ac7b89efbef4a8c752599cbbd5ec5297f832777c524190b383",
}


def cifar100(split: str, data_dir: str | None = None) -> ImageSet:
    """CIFAR-100: the same images at the same index from a parquet folder, torchvision's copy or the Hub.

    Args:
        split: "train" (50,000 images) or "test" (10,000).
        data_dir: See `read_images`.

    Returns:
        The images of the split, 32x32 RGB.

    Raises:
        FileNotFoundError: If the folder does not exist or holds no images of the split.
        ValueError: If the images are not those of CIFAR-100.
    """
    if data_dir is None:
        images = _read_parquet(_hub_parquet(split), split)
    else:
        folder = Path(data_dir)
        if not folder.is_dir():
            raise FileNotFoundError(f"No folder {folder}; point data_dir at CIFAR-100 (parquet files or torchvision).")
        found = sorted(folder.rglob(f"{split}-*.parquet"))
        images = _read_parquet(found, split) if found else _read_torchvision(folder, split)
    images, digests = canonical_order(images)
    listed = "".join(f"{d}{y}" for d, y in zip(digests, images.labels.tolist(), strict=True))
    digest = hashlib.sha256(listed.encode()).hexdigest()
    if digest != CIFAR100_SHA256[split]:
        raise ValueError(
            f"The {split} images under {data_dir or CIFAR100_HUB} are not those of CIFAR-100 "
            f"(SHA-256 {digest[:12]}, expected {CIFAR100_SHA256[split][:12]}); download the data again."
        )
    return images


def _read_parquet(files: Sequence[Path], split: str) -> ImageSet:
    """Parquet files in the Hub's layout: columns ``img`` (encoded image) and ``fine_label``."""
    need("training", "pyarrow")
    from pyarrow import parquet

    images: list[np.ndarray[Any, Any]] = []
    labels: list[int] = []
    for file in files:
        table = parquet.read_table(file)
        missing = {"img", "fine_label"} - set(table.column_names)
        if missing:
            raise ValueError(f"{file} has no column {sorted(missing)[0]!r}; it must have 'img' and 'fine_label'.")
        for cell in table.column("img").to_pylist():
            with Image.open(io.BytesIO(cell["bytes"]), formats=("PNG",)) as image:
                images.append(np.asarray(image.convert("RGB")))
        labels.extend(table.column("fine_label").to_pylist())
    return _cifar_set(np.stack(images), labels, split)


def _read_torchvision(folder: Path, split: str) -> ImageSet:
    """torchvision's copy; it checks the archive's MD5 before it reads the files."""
    from torchvision.datasets import CIFAR100

    try:
        source = CIFAR100(folder, train=split == "train", download=False)
    except RuntimeError:
        try:
            source = CIFAR100(folder, train=split == "train", download=True)
        except (OSError, RuntimeError) as error:
            raise FileNotFoundError(
                f"{folder} holds neither {split}-*.parquet nor torchvision's cifar-100-python, and the download "
                "failed; point data_dir at a folder that does."
            ) from error
    return _cifar_set(source.data, source.targets, split)


def _hub_parquet(split: str) -> list[Path]:
    from huggingface_hub import snapshot_download

    try:
        folder = snapshot_download(CIFAR100_HUB, repo_type="dataset", allow_patterns=[f"cifar100/{split}-*.parquet"])
    except Exception as error:  # the hub client raises many kinds; the user's way out is the same for all
        raise FileNotFoundError(
            f"Cannot fetch {CIFAR100_HUB} from the Hub ({type(error).__name__}); pass the folder of a copy as data_dir."
        ) from error
    return sorted(Path(folder).rglob(f"{split}-*.parquet"))


def _cifar_set(pixels: np.ndarray[Any, Any], labels: Sequence[int], split: str) -> ImageSet:
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    names = tuple(f"{split}[{i}]" for i in range(len(labels)))
    return ImageSet(images, torch.tensor(labels), CIFAR100_CLASSES, names)


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
