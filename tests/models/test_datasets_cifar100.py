"""CIFAR-100 is the same data set from its three sources, or it is refused. A small fake one stands in for it."""

import hashlib
import io
import pickle

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from torchvision.datasets import CIFAR100

from osdtw_models.datasets import read_images
from osdtw_models.sources import cifar_images
from osdtw_models.sources.cifar_images import CIFAR100_CLASSES, cifar100

IMAGES = 200


@pytest.fixture(autouse=True)
def fake(monkeypatch):
    """Images of two per class, and the digest that says so."""
    stream = np.random.default_rng(0)
    pixels = stream.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)
    labels = np.arange(IMAGES) % 100
    pairs = sorted((hashlib.sha256(image.tobytes()).hexdigest(), y) for image, y in zip(pixels, labels, strict=True))
    digest = hashlib.sha256("".join(f"{name}{y}" for name, y in pairs).encode()).hexdigest()
    monkeypatch.setattr(cifar_images, "CIFAR100_SHA256", {"train": digest, "test": digest})
    return pixels, labels


def shuffled(fake, seed):
    order = np.random.default_rng(seed).permutation(IMAGES)
    return fake[0][order], fake[1][order]


def write_parquet(folder, images, split="train", files=1):
    """The Hub's layout: encoded images with their path, and fine labels."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, (pixels, labels) in enumerate(zip(*(np.array_split(part, files) for part in images), strict=True)):
        cells = []
        for image in pixels:
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "PNG")
            cells.append({"bytes": buffer.getvalue(), "path": None})
        table = pa.table({"img": cells, "fine_label": labels.tolist(), "coarse_label": [0] * len(labels)})
        parquet.write_table(table, folder / f"{split}-{i:05d}-of-{files:05d}.parquet")


def write_torchvision(folder, images, monkeypatch):
    """The folder that torchvision unpacks, its table of checksums made to fit."""
    home = folder / "cifar-100-python"
    home.mkdir(parents=True)
    pixels, labels = images
    rows = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    (home / "train").write_bytes(pickle.dumps({"data": rows, "fine_labels": labels.tolist()}))
    (home / "test").write_bytes((home / "train").read_bytes())
    (home / "meta").write_bytes(pickle.dumps({"fine_label_names": list(CIFAR100_CLASSES)}))

    def checksum(name):
        return hashlib.md5((home / name).read_bytes(), usedforsecurity=False).hexdigest()

    monkeypatch.setattr(CIFAR100, "train_list", [["train", checksum("train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", checksum("test")]])
    monkeypatch.setattr(CIFAR100, "meta", {**CIFAR100.meta, "md5": checksum("meta")})


@pytest.mark.parametrize("split", ["train", "test"])
def test_all_sources_give_the_same_images_at_the_same_index(fake, tmp_path, monkeypatch, split):
    asked = []
    write_parquet(tmp_path / "local" / "cifar100", shuffled(fake, 1), split, files=3)
    write_parquet(tmp_path / "hub" / "cifar100", shuffled(fake, 2), split)
    write_torchvision(tmp_path / "torchvision", shuffled(fake, 3), monkeypatch)

    def fetch(name, repo_type, allow_patterns):
        asked.append((name, repo_type, *allow_patterns))
        return str(tmp_path / "hub")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    local = cifar100(split, str(tmp_path / "local"))
    for other in (cifar100(split, str(tmp_path / "torchvision")), cifar100(split)):
        assert torch.equal(local.images, other.images)
        assert torch.equal(local.labels, other.labels)
        assert local.class_names == other.class_names
    assert asked == [("uoft-cs/cifar100", "dataset", f"cifar100/{split}-*.parquet")]
    label_of = {image.tobytes(): label for image, label in zip(*fake, strict=True)}
    found = [label_of[image.tobytes()] for image in local.images.permute(0, 2, 3, 1).contiguous().numpy()]
    assert found == local.labels.tolist()
    assert len(set(local.digests())) == IMAGES


def test_images_that_are_not_the_data_sets_are_refused(fake, tmp_path):
    pixels, labels = shuffled(fake, 1)
    pixels = pixels.copy()
    pixels[7, 3, 3, 0] ^= 1
    write_parquet(tmp_path, (pixels, labels))
    with pytest.raises(ValueError, match=r"are not those of CIFAR-100 \(SHA-256 .*download the data again"):
        cifar100("train", str(tmp_path))


def test_missing_images_are_refused(fake, tmp_path):
    pixels, labels = fake
    write_parquet(tmp_path, (pixels[1:], labels[1:]))
    with pytest.raises(ValueError, match="are not those of CIFAR-100"):
        cifar100("train", str(tmp_path))


def test_wrong_labels_are_refused(fake, tmp_path):
    pixels, labels = fake
    write_parquet(tmp_path, (pixels, (labels + 1) % 100))
    with pytest.raises(ValueError, match="are not those of CIFAR-100"):
        cifar100("train", str(tmp_path))


def test_a_missing_column_is_named(tmp_path):
    parquet.write_table(pa.table({"image": [1], "fine_label": [1]}), tmp_path / "train-0.parquet")
    with pytest.raises(ValueError, match="has no column 'img'"):
        cifar100("train", str(tmp_path))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*none; point data_dir at CIFAR-100"):
        read_images("cifar100", "train", data_dir=str(tmp_path / "none"))


def test_an_empty_folder_and_no_network_are_one_sentence(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(CIFAR100, "download", fail)
    with pytest.raises(FileNotFoundError, match=r"holds neither train-\*\.parquet nor torchvision's"):
        cifar100("train", str(tmp_path))


def test_an_unreachable_hub_is_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(FileNotFoundError, match=r"Cannot fetch uoft-cs/cifar100 from the Hub \(ConnectionError\)"):
        cifar100("train")
