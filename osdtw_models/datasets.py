"""Readers of labelled images: digits, CIFAR-100 from three sources, any folder of class folders.

Every reader returns an `ImageSet`: all images decoded once, as one tensor, or photographs that stay in their files. An
image that cannot be read is named, an error or left out; nothing is ever put in its place.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from osdtw_models.doors import need
from osdtw_models.photographs import Photographs
from osdtw_models.pixels import IMAGE_SUFFIXES
from osdtw_models.soundness import BrokenImage, Policy, sound_images

SPLITS = ("train", "test")
DIGITS_TEST_PER_CLASS = 60
CIFAR100_HUB = "uoft-cs/cifar100"
# SHA-256 over pixels and labels of each split in canonical order (see `canonical_order`).
CIFAR100_SHA256 = {
    "train": "c9dfa2c3b288f16df79738424db879372cd17d801a3055bffd4d1f23e2288670",
    "test": "ddf52dfc2b4569ac7b89efbef4a8c752599cbbd5ec5297f832777c524190b383",
}


@dataclass(frozen=True)
class ImageSet:
    """Labelled images.

    Args:
        images: Pixels, shape (N, channels, H, W), uint8; or files that give such pixels when they are indexed.
        labels: Class of each image, shape (N,), int64.
        class_names: Names of the C classes.
        names: Where each image comes from: a path inside the folder, or the index in its source.
        left_out: Broken images of the source that are not among them.
    """

    images: Tensor | Photographs
    labels: Tensor
    class_names: tuple[str, ...]
    names: tuple[str, ...]
    left_out: tuple[BrokenImage, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Sequence[int]) -> ImageSet:
        """The images at the given indices, in that order."""
        picked = torch.as_tensor(indices, dtype=torch.int64)
        names = tuple(self.names[i] for i in indices)
        images = self.images.select(indices) if isinstance(self.images, Photographs) else self.images[picked]
        return ImageSet(images, self.labels[picked], self.class_names, names)

    def counts(self) -> list[int]:
        """Images per class, length C."""
        return torch.bincount(self.labels, minlength=len(self.class_names)).tolist()

    def digests(self) -> list[str]:
        """SHA-256 of each image's pixels (channels last), or of its file, as hex."""
        if isinstance(self.images, Photographs):
            return self.images.digests()
        pixels = self.images.permute(0, 2, 3, 1).contiguous().numpy()
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]


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
        data: "digits", "cifar100", or the path of a folder of class folders (or of ``train/`` and ``test/``
            folders that hold them).
        split: "train" or "test".
        img_size: Side of the square images, in pixels.
        data_dir: For "cifar100": a folder of parquet files in the Hub's layout, or the folder where torchvision
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
    if data == "cifar100":
        return resize(cifar100(split, data_dir), img_size)
    return image_folder(split_folder(Path(data), split), img_size, crop_pct, interpolation, lazy, broken)


def has_test_split(data: str) -> bool:
    """Whether a data set comes with test images of its own; a plain folder of class folders does not."""
    return data in ("digits", "cifar100") or (Path(data) / "train").is_dir()


def digits(split: str) -> ImageSet:
    """scikit-learn's 8x8 handwritten digits as RGB: 60 test images per class, the others for training."""
    need("training", "sklearn")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    labels = torch.from_numpy(bunch.target).long()
    order = np.random.RandomState(0).permutation(len(labels))
    rank = torch.empty_like(labels)
    for c in range(10):
        of_class = order[bunch.target[order] == c]
        rank[of_class] = torch.arange(len(of_class))
    test = rank < DIGITS_TEST_PER_CLASS
    chosen = (test if split == "test" else ~test).nonzero().flatten().tolist()
    pixels = torch.from_numpy(bunch.images * 255 / 16).round().to(torch.uint8)
    images = pixels[:, None].expand(-1, 3, -1, -1).contiguous()
    names = tuple(f"digits[{i}]" for i in range(len(labels)))
    return ImageSet(images, labels, tuple(str(c) for c in range(10)), names).subset(chosen)


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


def canonical_order(images: ImageSet) -> tuple[ImageSet, list[str]]:
    """Sort images by the SHA-256 of their pixels, then by label.

    torchvision and the Hub hold the same images in different orders; after sorting, an index means the same
    image whatever the source.

    Returns:
        The sorted images, and the digest of each.
    """
    digests = images.digests()
    labels = images.labels.tolist()
    order = sorted(range(len(digests)), key=lambda i: (digests[i], labels[i]))
    return images.subset(order), [digests[i] for i in order]


def image_folder(
    root: Path,
    img_size: int,
    crop_pct: float = 1.0,
    interpolation: str = "bilinear",
    lazy: bool = False,
    broken: Policy = "error",
) -> ImageSet:
    """Read every image of a folder of class folders.

    Args:
        root: Folder with one sub-folder per class; its name is the class name.
        img_size: Side of the square that images are scaled and cut to, in pixels.
        crop_pct: See `osdtw_models.pixels.fit_image`.
        interpolation: Likewise.
        lazy: Leave the images in their files until they are used; each has been opened once all the same.
        broken: See `osdtw_models.soundness.sound_images`.

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
    found: list[Path] = []
    labels = []
    for label, name in enumerate(class_names):
        files = sorted(f for f in (root / name).iterdir() if f.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise ValueError(f"Class folder {root / name} holds no image; add images to it or remove the folder.")
        found.extend(files)
        labels.extend([label] * len(files))
    kept, left_out = sound_images(found, [class_names[label] for label in labels], root, broken)
    photographs = Photographs(tuple(found[i] for i in kept), img_size, crop_pct, interpolation)
    names = tuple(str(file.relative_to(root)) for file in photographs.files)
    images = photographs if lazy else photographs[:]
    return ImageSet(images, torch.tensor([labels[i] for i in kept]), tuple(class_names), names, left_out)


def split_folder(root: Path, split: str) -> Path:
    """The folder of a split: ``root/train`` and ``root/test`` (or ``val``) where they exist, else ``root``.

    Returns:
        The folder that holds the class folders.

    Raises:
        FileNotFoundError: If the folder, or the test images of a folder with ``train/``, do not exist.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"No folder {root}; give 'digits', 'cifar100' or a folder of class folders.")
    if not (root / "train").is_dir():
        return root
    for name in ("train",) if split == "train" else ("test", "val"):
        if (root / name).is_dir():
            return root / name
    raise FileNotFoundError(f"{root} has train/ but neither test/ nor val/; add one, or give {root / 'train'} itself.")


def normalise(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Pixels -> what networks take.

    Args:
        images: Pixels, shape (B, C, H, W), uint8.
        mean: Mean per channel, of pixels scaled to 0 .. 1.
        std: Standard deviation per channel.

    Returns:
        Floats of the same shape, in channels-last memory (faster on CPUs).
    """
    centre, scale = torch.tensor(mean).view(1, -1, 1, 1), torch.tensor(std).view(1, -1, 1, 1)
    return ((images.float() / 255 - centre) / scale).contiguous(memory_format=torch.channels_last)


def resize(images: ImageSet, img_size: int) -> ImageSet:
    """Scale square images to another side (bilinear, antialiased)."""
    assert isinstance(images.images, Tensor)
    if images.images.shape[-1] == img_size:
        return images
    scaled = torch.nn.functional.interpolate(
        images.images.float(), size=(img_size, img_size), mode="bilinear", antialias=True, align_corners=False
    )
    return ImageSet(scaled.round().clamp(0, 255).to(torch.uint8), images.labels, images.class_names, images.names)


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
