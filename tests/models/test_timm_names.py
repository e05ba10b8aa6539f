"""Data sets by timm's names: torchvision's for real, the others through stand-ins for libraries that are not here."""

import gzip
import io
import os
import re
import struct
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import timm.data
import torch
from PIL import Image

from osdtw_models.datasets import has_split, read_images
from osdtw_models.lazy_images import GalleryImages
from osdtw_models.photographs import Photographs
from osdtw_models.sources import timm_names


def picture(grey, side=8):
    return Image.new("RGB", (side, side), (grey,) * 3)


def greys(images):
    return images.images[:][:, 0, 4, 4].tolist()


@pytest.fixture
def tree(tmp_path):
    """Class folders in train/ and val/."""
    for split, classes in {"train": {"ant": 2, "bee": 1}, "val": {"ant": 1, "bee": 1}}.items():
        for c, (name, number) in enumerate(classes.items()):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(number):
                picture(50 * c + 10 * i + (5 if split == "val" else 0)).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


@pytest.mark.parametrize("name", ["torch/image_folder", "torch/folder", "folder"])
def test_trees_of_class_folders(tree, name):
    train = read_images(name, "train", 8, str(tree), lazy=True)
    assert isinstance(train.images, Photographs)
    assert (greys(train), train.labels.tolist(), train.class_names) == ([0, 10, 50], [0, 0, 1], ("ant", "bee"))
    assert [n.replace("\\", "/") for n in train.names] == ["ant/0.png", "ant/1.png", "bee/0.png"]
    assert has_split(name, "test", str(tree))
    assert not has_split(name, "val", str(tree))
    assert greys(read_images(name, "test", 8, str(tree))) == [5, 55]
    assert not has_split(name, "test", str(tree / "train"))
    assert greys(read_images(name, "test", 8, str(tree / "train"))) == [0, 10, 50]
    (tree / "val").rename(tree / "other")
    assert not has_split(name, "test", str(tree))
    with pytest.raises(FileNotFoundError, match="has training but no test images"):
        read_images(name, "test", 8, str(tree))


def test_a_broken_image_is_named_and_not_replaced(tree):
    (tree / "train" / "ant" / "1.png").write_bytes(b"no image")
    for name in ("torch/image_folder", "folder"):
        with pytest.raises(ValueError, match=r"Cannot read 1 of 3 images under .*ant.1\.png"):
            read_images(name, "train", 8, str(tree))


def write_mnist(root, split, pixels, labels):
    """The files that torchvision unpacks: big-endian sizes, then bytes."""
    home = root / "MNIST" / "raw"
    home.mkdir(parents=True, exist_ok=True)
    images = struct.pack(">IIII", 2051, *pixels.shape) + pixels.tobytes()
    named = struct.pack(">II", 2049, len(labels)) + bytes(labels)
    for kind, content in {"images-idx3": images, "labels-idx1": named}.items():
        for file in ("train", "t10k"):
            if file == split or not (home / f"{file}-{kind}-ubyte").exists():
                (home / f"{file}-{kind}-ubyte").write_bytes(content)
                (home / f"{file}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


def test_torchvisions_mnist_is_held_in_memory(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    labels = [i % 10 for i in range(20)]
    write_mnist(tmp_path, "train", pixels, labels)
    write_mnist(tmp_path, "t10k", pixels[:3], labels[:3])
    train = read_images("torch/mnist", "train", 28, str(tmp_path), lazy=True)
    assert isinstance(train.images, GalleryImages)
    assert (train.labels.tolist(), len(train.class_names), train.names[3]) == (labels, 10, "train[3]")
    assert torch.equal(train.images[:], torch.from_numpy(pixels)[:, None].expand(-1, 3, -1, -1))
    held = read_images("torch/mnist", "train", 28, str(tmp_path))
    assert torch.equal(held.images, train.images[:])
    assert held.digests() == train.digests()
    part = train.subset([5, 2])
    assert torch.equal(part.images[torch.tensor([1])], held.images[[2]])
    assert part.digests() == [held.digests()[5], held.digests()[2]]
    assert np.array_equal(np.asarray(part.images.picture(0))[..., 0], pixels[5])
    assert has_split("torch/mnist", "test", str(tmp_path))
    test = read_images("torch/mnist", "test", 28, str(tmp_path), class_names=train.class_names)
    assert (len(test), test.class_names) == (3, train.class_names)


def test_inaturalist_is_in_order_whatever_the_file_system_says(tmp_path, monkeypatch):
    for folder in ("00000_Animalia_Chordata_Aves_A_B_c_d", "00001_Animalia_Chordata_Aves_A_B_c_e"):
        (tmp_path / "2021_train" / folder).mkdir(parents=True)
        for i in range(3):
            picture(10 * i + int(folder[4])).save(tmp_path / "2021_train" / folder / f"{i}.jpg", quality=100)
    listdir = os.listdir
    monkeypatch.setattr(os, "listdir", lambda path: sorted(listdir(path), reverse=True))
    images = read_images("torch/inaturalist", "train", 8, str(tmp_path))
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert greys(images) == pytest.approx([0, 10, 20, 1, 11, 21], abs=2)
    assert images.class_names[1].startswith("00001_Animalia")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("torch/none", "Unknown torchvision dataset none"),
        ("torch/cifar10?speed=3", "has the option 'speed'; only input_key and target_key"),
        ("hfds/x?trust_remote_code=True", "has the option 'trust_remote_code'"),
        ("hfids/uoft-cs/cifar100", "is streamed and cannot be indexed; use hfds/uoft-cs/cifar100"),
        ("torch/places365", "The train images of torch/places365 cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(tmp_path, name, said):
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_images(name, "train", 8, str(tmp_path))
    assert "\n" not in str(caught.value)
    assert not has_split(name, "test", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "package"), [("hfds/a/b", "datasets"), ("wds/a", "webdataset"), ("tfds/a", "tensorflow-datasets")]
)
def test_a_missing_library_is_named_with_its_command(monkeypatch, tmp_path, name, package):
    monkeypatch.setattr(timm_names, "find_spec", lambda module: None)
    with pytest.raises(ModuleNotFoundError, match=f"run: pip install .*{package}"):
        read_images(name, "train", 8, str(tmp_path))


@pytest.mark.parametrize("place", [None, "none", "pipe:touch x"])
def test_data_in_a_folder_need_one(tmp_path, monkeypatch, place):
    monkeypatch.setattr(timm_names, "find_spec", lambda module: object())
    for name in ("wds/a", "torch/cifar10"):
        with pytest.raises(FileNotFoundError, match="lies in a folder, but there is no folder"):
            read_images(name, "train", 8, place)


def test_folder_is_a_folder_unless_another_is_given(tree, monkeypatch):
    (tree / "train").rename(tree / "folder")
    monkeypatch.chdir(tree)
    assert greys(read_images("folder", "train", 8)) == [0, 10, 50]


class Table:
    """What `datasets.load_dataset` gives, as far as timm's reader uses it."""

    def __init__(self, rows, names):
        self.rows, self.info = rows, SimpleNamespace(features={"fine": SimpleNamespace(names=names)}, splits=None)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index]

    def __iter__(self):
        return iter(self.rows)

    def cast_column(self, *_):
        return self

    def remove_columns(self, *_):
        return self


def encoded(grey):
    file = io.BytesIO()
    picture(grey).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def hub(monkeypatch):
    """A stand-in for the library `datasets`, with one data set: train and validation."""
    rows = [{"img": {"bytes": encoded(10 * i), "path": None}, "fine": i % 2} for i in range(5)]
    splits = {"train": rows, "validation": rows[:2]}
    asked = []

    def load_dataset(name, split, cache_dir, **options):
        asked.append((name, split, cache_dir, options))
        if split not in splits:
            raise ValueError(f'Unknown split "{split}". Should be one of {list(splits)}.')
        return Table(splits[split], ["ant", "bee"])

    module = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    module.load_dataset, module.Image = load_dataset, lambda decode: None
    monkeypatch.setitem(sys.modules, "datasets", module)
    monkeypatch.delitem(sys.modules, "timm.data.readers.reader_hfds", raising=False)
    yield SimpleNamespace(rows=rows, asked=asked)
    sys.modules.pop("timm.data.readers.reader_hfds", None)


NAME = "hfds/org/Set?input_key=img&target_key=fine"


def test_a_table_of_the_hub_is_decoded_when_it_is_used(hub):
    images = read_images(NAME, "train", 8, lazy=True)
    assert hub.asked[0][:3] == ("org/Set", "train", None)
    assert not hub.asked[0][3].get("trust_remote_code")
    assert (images.labels.tolist(), images.class_names) == ([0, 1, 0, 1, 0], ("ant", "bee"))
    assert greys(images.subset([3, 1])) == [30, 10]
    assert has_split(NAME, "test")
    assert len(read_images(NAME, "test", 8)) == 2
    hub.rows[1]["img"] = {"bytes": b"no image", "path": None}
    with pytest.raises(ValueError, match=r"Cannot read the image .*\[1\] \(not an image\)"):
        greys(images)


def test_a_label_that_is_no_class_is_told(hub):
    hub.rows[2]["fine"] = [0, 1]
    with pytest.raises(ValueError, match=r"has the label \[0, 1\]; every image needs one class number"):
        read_images(NAME, "train", 8)


def test_a_class_without_training_image_is_told(hub):
    for row in hub.rows:
        row["fine"] = 0
    with pytest.raises(ValueError, match="has no training image of class 'bee'"):
        read_images(NAME, "train", 8)


class Stream(torch.utils.data.IterableDataset):
    """A stream of images and labels as timm gives it."""

    def __init__(self, number, said=None):
        self.number, self.said = number, number if said is None else said
        self.reader = SimpleNamespace()

    def __iter__(self):
        return ((picture(10 * i), i % 2) for i in range(self.number))

    def __len__(self):
        return self.said


def test_a_stream_is_read_once_into_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(timm_names, "find_spec", lambda module: object())
    opened = []

    def create(name, split, **options):
        opened.append(split)
        return Stream(6 if split == "train" else 2, None if split == "train" else 0)

    monkeypatch.setattr(timm.data, "create_dataset", create)
    images = read_images("wds/shards", "train", 8, str(tmp_path), lazy=True)
    assert (greys(images), images.labels.tolist()) == ([0, 10, 20, 30, 40, 50], [0, 1, 0, 1, 0, 1])
    assert images.class_names == ("0", "1")
    assert greys(images) == [0, 10, 20, 30, 40, 50]
    assert opened == ["train"]
    assert len(read_images("wds/shards", "test", 8, str(tmp_path))) == 2


def test_a_stream_that_leaves_images_out_or_is_too_large_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(timm_names, "find_spec", lambda module: object())
    monkeypatch.setattr(timm.data, "create_dataset", lambda *args, **options: Stream(5, 6))
    with pytest.raises(ValueError, match="gave 5 of 6 images"):
        read_images("tfds/set", "train", 8, str(tmp_path))
    monkeypatch.setattr(timm_names, "MOST_BYTES", 4 * 8 * 8 * 3)
    with pytest.raises(ValueError, match="can only be streamed, and its images take more than"):
        read_images("tfds/set", "train", 8, str(tmp_path))
