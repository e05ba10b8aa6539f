"""Readers of images: an image that cannot be read is an error that names it, never something in its place."""

import hashlib
import shutil

import pytest
import torch
from PIL import Image

from osdtw_models.datasets import has_split, read_images
from osdtw_models.image_set import ImageSet, Reading, canonical_order, resize
from osdtw_models.sources.digits import digits
from osdtw_models.sources.folders import image_folder
from osdtw_models.sources.lists import Lists


@pytest.fixture
def folder(tmp_path):
    """Two classes in train/, with files out of order and one that is no image."""
    for split, classes in {"train": {"dog": 3, "cat": 2}, "val": {"cat": 1, "dog": 1}}.items():
        for name, number in classes.items():
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for i in reversed(range(number)):
                Image.new("RGB", (12, 10), (10 * i, 200, len(name))).save(place / f"{i}.PNG")
            (place / "notes.txt").write_text("no image")
    return tmp_path


def test_a_folder_is_read_in_alphabetical_order(folder):
    images = read_images(str(folder), "train", 8)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1, 1]
    assert [name.replace("\\", "/") for name in images.names] == [
        *(f"cat/{i}.PNG" for i in range(2)),
        *(f"dog/{i}.PNG" for i in range(3)),
    ]
    assert images.images.shape == (5, 3, 8, 8)
    assert images.images[:, 0, 4, 4].tolist() == [0, 10, 0, 10, 20]
    assert images.counts() == [2, 3]


def test_splits_are_found_by_name(folder):
    assert has_split(str(folder), "test")
    assert len(read_images(str(folder), "test", 8)) == 2  # val/ stands in for test/
    (folder / "val").rename(folder / "test")
    assert len(read_images(str(folder), "test", 8)) == 2


def test_validation_images_are_their_own_only_beside_test_images(folder):
    assert not has_split(str(folder), "val")
    (folder / "val").rename(folder / "test")
    with pytest.raises(FileNotFoundError, match="has train/ but no val/"):
        read_images(str(folder), "val", 8)
    shutil.copytree(folder / "train", folder / "val")
    assert has_split(str(folder), "val")
    assert len(read_images(str(folder), "val", 8)) == 5
    assert len(read_images(str(folder), "test", 8)) == 2


def test_a_plain_folder_has_no_split(folder):
    assert not has_split(str(folder / "train"), "test")
    assert len(read_images(str(folder / "train"), "train", 8)) == 5


def test_train_without_test_images_is_refused(folder):
    (folder / "val").rename(folder / "validation")
    with pytest.raises(FileNotFoundError, match="has train/ but neither test/ nor val/"):
        read_images(str(folder), "test", 8)


def test_a_missing_folder_and_an_unknown_split_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No folder .*birds; .* imagenet_lt"):
        read_images(str(tmp_path / "birds"), "train")
    with pytest.raises(ValueError, match="Unknown split 'holdout'"):
        read_images("digits", "holdout")


def test_an_empty_class_folder_is_named(folder):
    (folder / "train" / "eel").mkdir()
    with pytest.raises(ValueError, match=r"Class folder .*eel holds no image"):
        image_folder(folder / "train", Reading(8))


def test_a_folder_without_class_folders_is_named(folder):
    with pytest.raises(ValueError, match=r"cat holds no class folders"):
        image_folder(folder / "train" / "cat", Reading(8))


@pytest.mark.parametrize("content", [b"", b"no image", "cut"])
def test_an_image_that_cannot_be_read_is_named(folder, content):
    file = folder / "train" / "dog" / "1.PNG"
    file.write_bytes(file.read_bytes()[:45] if content == "cut" else content)
    with pytest.raises(ValueError, match=r"Cannot read 1 of 5 images under .*dog.1\.PNG \(.*\); mend or remove them"):
        read_images(str(folder), "train", 8)


def test_digits_are_split_evenly_and_without_overlap():
    train, test = digits("train"), digits("test")
    assert test.counts() == [60] * 10
    assert len(train) + len(test) == 1797
    assert not set(train.names) & set(test.names)
    assert train.images.shape[1:] == (3, 8, 8)
    assert int(train.images.max()) == 255
    assert torch.equal(train.images[:, 0], train.images[:, 2])


def test_images_are_scaled_to_the_wanted_side():
    images = read_images("digits", "test", 16)
    small = digits("test")
    assert images.images.shape == (600, 3, 16, 16)
    assert images.images.dtype == torch.uint8
    means = images.images.float().mean((1, 2, 3)) - small.images.float().mean((1, 2, 3))
    assert means.abs().max() < 8
    assert resize(small, 8) is small


@pytest.fixture
def pixels():
    return ImageSet(
        torch.randint(0, 256, (6, 3, 4, 5), dtype=torch.uint8),
        torch.tensor([2, 0, 1, 2, 2, 0]),
        ("a", "b", "c", "d"),
        tuple("uvwxyz"),
    )


def test_a_subset_keeps_images_labels_and_names_together(pixels):
    subset = pixels.subset([4, 0, 2])
    assert torch.equal(subset.images, pixels.images[[4, 0, 2]])
    assert (subset.labels.tolist(), subset.names, subset.class_names) == (
        [2, 2, 1],
        ("y", "u", "w"),
        pixels.class_names,
    )
    assert subset.counts() == [0, 1, 2, 0]


def test_digests_are_those_of_rows_of_rgb_pixels(pixels):
    by_hand = [
        bytes(int(image[c, y, x]) for y in range(4) for x in range(5) for c in range(3)) for image in pixels.images
    ]
    assert pixels.digests() == [hashlib.sha256(data).hexdigest() for data in by_hand]


def test_the_canonical_order_does_not_depend_on_the_order_of_the_source(pixels):
    first, digests = canonical_order(pixels)
    second, _ = canonical_order(pixels.subset([3, 5, 1, 0, 4, 2]))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.labels, second.labels)
    assert digests == sorted(pixels.digests()) == first.digests()


def test_equal_images_are_ordered_by_label(pixels):
    same = ImageSet(pixels.images[:1].expand(6, -1, -1, -1), pixels.labels, pixels.class_names, pixels.names)
    assert canonical_order(same)[0].labels.tolist() == [0, 0, 1, 2, 2, 2]


def test_lists_without_a_list_are_refused():
    with pytest.raises(ValueError, match="go with a list of training images, but data is digits"):
        read_images("digits", "train", lists=Lists(test="nowhere.txt"))
