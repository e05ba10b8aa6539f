"""Data sets by the names that timm gives them: torch/, hfds/, wds/, tfds/, and folder.

timm's own data sets put another image in the place of one that cannot be read. Here only its readers are used, and
torchvision's data sets: what cannot be read is an error. What can only be streamed is read once, into memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import torch
from PIL import Image

from osdtw_models.doors import first_line
from osdtw_models.image_set import ImageSet, Reading, check_classes, photograph_set
from osdtw_models.lazy_images import Gallery, GalleryImages, HeldImages
from osdtw_models.names import check_class_names
from osdtw_models.pixels import decode_image

# What has to be installed for a prefix: the module, and what pip calls it.
NEEDED = {
    "torch": ("torchvision", "torchvision"),
    "hfds": ("datasets", "datasets"),
    "wds": ("webdataset", "webdataset"),
    "tfds": ("tensorflow_datasets", "tensorflow tensorflow-datasets"),
}
OPTIONS = ("input_key", "target_key")
FOLDERS = ("folder", "torch/folder", "torch/image_folder")
FETCHED = tuple(f"torch/{name}" for name in "cifar10 cifar100 mnist kmnist fashion_mnist qmnist".split())
# What a split may be called, by folders and by everybody else.
FOLDER_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "val", "valid", "validation", "eval", "evaluation"),
}
SPLIT_NAMES = {"train": ("train",), "test": ("test", "validation", "val")}
MOST_BYTES = 8 << 30


def is_timm_name(data: str, data_dir: str | None) -> bool:
    """Whether a data set is named as timm names it; "folder" only with a folder, for one may be called so."""
    prefix, _, rest = data.partition("/")
    return bool(rest and prefix.lower() in (*NEEDED, "hfids")) or (data == "folder" and data_dir is not None)


def has_timm_test(data: str, data_dir: str | None) -> bool:
    """Whether a data set has test (else validation) images that can be opened."""
    if data.lower() in FOLDERS and data_dir is not None:
        return all(_split_folder(Path(data_dir), split) is not None for split in FOLDER_NAMES)
    try:
        open_split(data, "test", data_dir)
    except (ValueError, FileNotFoundError):
        return False
    return True


def read_timm(
    data: str,
    split: str,
    data_dir: str | None,
    known: Sequence[str] | None,
    reading: Reading,
) -> ImageSet:
    """The images of one split, in the order of their source.

    Args:
        data: timm's name, with options if needed: "hfds/uoft-cs/cifar100?input_key=img&target_key=fine_label".
        split: "train" or "test"; validation images stand in for missing test images.
        data_dir: The folder of the data, or for hfds/ and tfds/ where they are kept once fetched.
        known: The classes where they are known already, for data whose classes have numbers only.
        reading: How the images are read.

    Returns:
        The images.

    Raises:
        ValueError: If the name, the split or a label is unusable, or streamed images are too many for memory.
    """
    dataset = open_split(data, split, data_dir)
    reader = getattr(dataset, "reader", dataset)
    files = _files(reader)
    if files is not None:
        root, (found, labels) = Path(reader.root), files
        images = photograph_set(root, found, labels, _names(reader, labels, known), reading)
    else:
        gallery, given = _gallery(dataset, reader, data)
        labels = [_label(label, data) for label in given]
        held = GalleryImages(gallery, tuple(range(len(labels))), *reading.fit)
        names = tuple(f"{split}[{i}]" for i in range(len(labels)))
        class_names = _names(reader, labels, known)
        images = ImageSet(held if reading.lazy else held[:], torch.tensor(labels), class_names, names)
    check_class_names(images.class_names, data)
    if split == "train":
        check_classes(images, data)
    return images


def open_split(data: str, split: str, data_dir: str | None) -> Any:
    """timm's data set of a split.

    Args:
        data: See `read_timm`.
        split: Likewise.
        data_dir: Likewise.

    Returns:
        The data set, its images not yet read.

    Raises:
        ValueError: If the name cannot be used, or the split not be opened.
        FileNotFoundError: If a folder is needed and is not there.
        ModuleNotFoundError: If the library behind a prefix is not installed.
    """
    from timm.data import create_dataset  # needs torchvision

    name, _, query = data.partition("?")
    options: dict[str, Any] = dict(parse_qsl(query))
    prefix = name.partition("/")[0].lower()
    odd = sorted(set(options) - set(OPTIONS))
    if odd:
        raise ValueError(f"{data} has the option {odd[0]!r}; only {' and '.join(OPTIONS)} can be given.")
    if prefix == "hfids":
        raise ValueError(f"{data} is streamed and cannot be indexed; use hfds{name[5:]}, the same data on disk.")
    if split not in SPLIT_NAMES:
        raise ValueError(f"{data} has no {split} images of its own; choose train or test.")
    module, package = NEEDED.get(prefix, NEEDED["torch"])
    if find_spec(module) is None:
        raise ModuleNotFoundError(f"{name} needs {module}, which is not installed; run: pip install {package}")
    root = data_dir
    if prefix in ("torch", "wds", "folder"):  # a folder only: webdataset would run what follows "pipe:"
        root = _root(name, split, data_dir)
    problem: Exception | None = None
    for word in SPLIT_NAMES[split]:
        try:
            return create_dataset(
                name, root=root, split=word, search_split=False, download=name.lower() in FETCHED, **options
            )
        except (ValueError, RuntimeError, LookupError, TypeError, AssertionError, FileNotFoundError) as error:
            problem = problem or error
    assert problem is not None
    raise ValueError(f"The {split} images of {data} cannot be opened ({first_line(problem)}).") from problem


def _root(name: str, split: str, data_dir: str | None) -> str:
    """Folder of a data set that lies in one; of its split where every split has its own."""
    if data_dir is None or not Path(data_dir).expanduser().is_dir():
        place = f"no folder {data_dir}" if data_dir else "no folder given"
        raise FileNotFoundError(f"{name} lies in a folder, but there is {place}; give it as --data-dir.")
    root = Path(data_dir).expanduser()
    if name.lower() not in FOLDERS or _split_folder(root, "train") is None:
        return str(root)
    found = _split_folder(root, split)
    if found is None:
        raise FileNotFoundError(f"{root} has training but no test images; add test/, or give the class folders alone.")
    return str(found)


def _split_folder(root: Path, split: str) -> Path | None:
    return next((root / name for name in FOLDER_NAMES[split] if (root / name).is_dir()), None)


def _files(reader: Any) -> tuple[list[Path], list[int]] | None:
    """Files and labels of a reader that knows them."""
    samples = getattr(reader, "samples", None) or getattr(reader, "imgs", None)
    if hasattr(reader, "all_categories"):  # iNaturalist: in the order of the file system
        samples = [(Path(reader.root, reader.all_categories[c], name), c) for c, name in sorted(reader.index)]
    if samples is None:
        return None
    return [Path(file) for file, _ in samples], [int(label) for _, label in samples]


def _gallery(dataset: Any, reader: Any, data: str) -> tuple[Gallery, Iterable[Any]]:
    """Images that are in no files, and their labels."""
    if hasattr(reader, "iter_targets"):
        return _Encoded(reader, data), reader.iter_targets()
    if hasattr(reader, "data") and hasattr(reader, "targets"):
        targets = torch.as_tensor(reader.targets)
        pixels = [np.asarray(Image.fromarray(np.asarray(image)).convert("RGB")) for image in reader.data]
        return HeldImages(pixels), (targets if targets.ndim == 1 else targets[:, 0]).tolist()
    if isinstance(dataset, torch.utils.data.IterableDataset):
        return _stream(dataset, data)
    raise ValueError(f"{data} gives neither files nor pixels; use a folder or a list of its images instead.")


def _stream(dataset: Any, data: str) -> tuple[Gallery, list[Any]]:
    """Everything that a stream gives, once."""
    pixels, labels, size = [], [], 0
    for image, label in dataset:
        pixels.append(np.asarray(image.convert("RGB")))
        labels.append(label)
        size += pixels[-1].nbytes
        if size > MOST_BYTES:
            raise ValueError(
                f"{data} can only be streamed, and its images take more than {MOST_BYTES >> 30} GiB of memory; unpack "
                "them into a folder, or use hfds/."
            )
    expected = len(dataset)
    if expected and len(labels) != expected:  # the readers of streams leave out what they cannot read
        raise ValueError(f"{data} gave {len(labels)} of {expected} images; mend those that cannot be read.")
    return HeldImages(pixels), labels


@dataclass(frozen=True)
class _Encoded:
    """The images of a table of encoded images."""

    reader: Any
    data: str

    def picture(self, index: int) -> Image.Image:
        """One image, RGB."""
        return decode_image(self.content(index), f"{self.data}[{index}]")

    def content(self, index: int) -> bytes:
        """The bytes that encode it."""
        with self.reader[index][0] as file:
            content: bytes = file.read()
        return content


def _label(label: Any, data: str) -> int:
    if isinstance(label, bool) or not isinstance(label, int | np.integer) or label < 0:
        raise ValueError(f"{data} has the label {label!r}; every image needs one class number (?target_key=COLUMN).")
    return int(label)


def _names(reader: Any, labels: Sequence[int], known: Sequence[str] | None) -> tuple[str, ...]:
    """Class names in label order: the source's, those known, or the numbers."""
    if getattr(reader, "all_categories", None):
        return tuple(reader.all_categories)
    if getattr(reader, "classes", None):
        return tuple(name if isinstance(name, str) else ", ".join(name) for name in reader.classes)
    named = {int(c): str(name) for name, c in (getattr(reader, "class_to_idx", None) or {}).items()}
    number = max([*labels, *named, -1]) + 1
    if not named and known is not None and number <= len(known):
        return tuple(known)
    return tuple(named.get(c, str(c)) for c in range(number))
