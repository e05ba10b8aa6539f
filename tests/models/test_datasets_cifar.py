"""CIFAR is the same data set from its three sources, or it is refused. Small fake ones stand in for it."""

import dataclasses
import hashlib
import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
import torchvision.datasets
from PIL import Image
from pyarrow import parquet

from osdtw_models import datasets
from osdtw_models.datasets import has_split, read_images
from osdtw_models.sources import cifar_images
from osdtw_models.sources.cifar_images import CIFAR10, CIFAR100

IMAGES = 200
# torchvision's keys of labels and class names, and the names of its training and its test file.
LAYOUT = {
    "cifar10": ("labels", "label_names", "data_batch_1", "test_batch", "batches.meta"),
    "cifar100": ("fine_labels", "fine_label_names", "train", "test", "meta"),
}


@pytest.fixture(params=["cifar10", "cifar100"])
def fake(request, monkeypatch):
    """Images of every class, as many of each; what is known of the data set is made to fit."""
    which = {"cifar10": CIFAR10, "cifar100": CIFAR100}[request.param]
    stream = np.random.default_rng(0)
    pixels = stream.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(IMAGES) % len(which.class_names)
    if which.sha256:
        pairs = sorted(
            (hashlib.sha256(image.tobytes()).hexdigest(), y) for image, y in zip(pixels, labels, strict=True)
        )
        digest = hashlib.sha256("".join(f"{name}{y}" for name, y in pairs).encode()).hexdigest()
        which = dataclasses.replace(which, sha256={"train": digest, "test": digest})
    monkeypatch.setitem(datasets.CIFAR, request.param, which)
    monkeypatch.setattr(cifar_images, "SPLIT_SIZES", {"train": IMAGES, "test": IMAGES})
    return request.param, which, pixels, labels


def read(fake, split="train", data_dir=None):
    return read_images(fake[0], split, data_dir=None if data_dir is None else str(data_dir))


def shuffled(fake, seed):
    order = np.random.default_rng(seed).permutation(IMAGES)
    return fake[2][order], fake[3][order]


def write_parquet(folder, fake, images, split="train", files=1):
    """The Hub's layout: encoded images with their path, and labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (pixels, labels) in enumerate(zip(*(np.array_split(part, files) for part in images), strict=True)):
        cells = []
        for image in pixels:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": cells, fake[1].label: labels.tolist(), "coarse_label": [0] * len(labels)})
        parquet.write_table(table, folder / f"{split}-{i:05d}-of-{files:05d}.parquet")


def write_torchvision(folder, fake, images, monkeypatch):
    """The folder that torchvision unpacks, its table of checksums made to fit."""
    name, which = fake[:2]
    label, names, train, test, meta = LAYOUT[name]
    home = folder / which.unpacked
    home.mkdir(parents=True)
    rows = images[0].transpose(0, 3, 1, 2).reshape(len(images[0]), -1)
    for file in (train, test):
        (home / file).write_bytes(pickle.dumps({"data": rows, label: images[1].tolist()}))
    (home / meta).write_bytes(pickle.dumps({names: list(which.class_names)}))

    def checksum(name):
        return hashlib.md5((home / name).read_bytes(), usedforsecurity=False).hexdigest()

    source = getattr(torchvision.datasets, name.upper())
    monkeypatch.setattr(source, "train_list", [[train, checksum(train)]])
    monkeypatch.setattr(source, "test_list", [[test, checksum(test)]])
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": checksum(meta)})


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_sources_give_the_same_images_at_the_same_index(fake, tmp_path, monkeypatch, split):
    asked, (name, which, pixels, labels) = [], fake
    write_parquet(tmp_path / "local" / which.folder, fake, shuffled(fake, 1), split, files=3)
    write_parquet(tmp_path / "hub" / which.folder, fake, shuffled(fake, 2), split)
    write_torchvision(tmp_path / "torchvision", fake, shuffled(fake, 3), monkeypatch)

    def fetch(repository, repo_type, allow_patterns):
        asked.append((repository, repo_type, *allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    local = read(fake, split, tmp_path / "local")
    for other in (read(fake, split, tmp_path / "torchvision"), read(fake, split)):
        assert torch.equal(local.images, other.images)
        assert torch.equal(local.labels, other.labels)
        assert local.class_names == other.class_names
    folder = {"cifar10": "plain_text", "cifar100": "cifar100"}[name]
    assert asked == [(f"uoft-cs/{name}", "dataset", f"{folder}/{split}-*.parquet")]
    label_of = {image.tobytes(): label for image, label in zip(pixels, labels, strict=True)}
    found = [label_of[image.tobytes()] for image in local.images.permute(0, 2, 3, 1).contiguous().numpy()]
    assert found == local.labels.tolist()
    assert len(set(local.digests())) == IMAGES
    assert has_split(name, "test")
    assert not has_split(name, "val")


@pytest.mark.parametrize("fake", ["cifar100"], indirect=True)  # no digest of CIFAR-10 is known
def test_pixels_that_are_not_those_of_cifar_100_are_refused(fake, tmp_path):
    pixels, labels = shuffled(fake, 1)
    pixels = pixels.copy()
    pixels[7, 3, 3, 0] ^= 1
    write_parquet(tmp_path, fake, (pixels, labels))
    with pytest.raises(ValueError, match=r"are not those of CIFAR-100 \(SHA-256 .*download the data again"):
        read(fake, "train", tmp_path)


def test_missing_images_and_wrong_labels_are_refused(fake, tmp_path):
    pixels, labels = fake[2:]
    wrong = labels.copy()
    wrong[0] = 1
    beyond = labels.copy()
    beyond[0] = len(fake[1].class_names)
    for images in ((pixels[1:], labels[1:]), (pixels, wrong), (pixels, beyond)):
        write_parquet(tmp_path, fake, images)
        with pytest.raises(ValueError, match=rf"(are not those|label) of {fake[1].name}\b.*download the data again"):
            read(fake, "train", tmp_path)


def test_a_missing_column_is_named(fake, tmp_path):
    parquet.write_table(pa.table({"image": [1], fake[1].label: [1]}), tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match="has no column 'img'"):
        read(fake, "train", tmp_path)


def test_a_missing_folder_is_named(fake, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*none; point data_dir at CIFAR-10"):
        read(fake, "train", tmp_path / "none")


def test_an_empty_folder_and_no_network_are_one_sentence(fake, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(getattr(torchvision.datasets, fake[0].upper()), "download", fail)
    with pytest.raises(FileNotFoundError, match=r"holds neither train-\*\.parquet nor torchvision's cifar-10"):
        read(fake, "train", tmp_path)


def test_an_unreachable_hub_is_one_sentence(fake, monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"Cannot fetch uoft-cs/cifar10+ from the Hub \(ConnectionError\)"):
        read(fake)
