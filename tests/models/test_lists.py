"""List files: what they name is read, in their order; what is wrong in them is told by file and line."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from osdtw_models import image_set
from osdtw_models.datasets import has_split, read_images, short_name
from osdtw_models.photographs import Photographs
from osdtw_models.sources import published
from osdtw_models.sources.lists import Lists
from osdtw_models.sources.published import LISTS, SETS, Published

PATHS = ("a/x.png", "b/deep er/y.png", "b/z.png", "c/w.png")


@pytest.fixture
def root(tmp_path):
    """Four images of one grey each, below a folder."""
    for i, path in enumerate(PATHS):
        file = tmp_path / "images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * i,) * 3).save(file)
    return tmp_path / "images"


def written(root, text, name="train.txt"):
    file = root.parent / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(file)


def read(root, data, split="train", **options):
    return read_images(data, split, 8, str(root), **options)


def greys(images):
    return (images.images[:][:, 0, 4, 4] // 60).tolist()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_is_read_in_its_own_order(root, end):
    data = written(root, end.join(["b/z.png 1", "", "a/x.png 0", "b/deep er/y.png\t2", "c/w.png 0 ", ""]))
    images = read(root, data)
    assert greys(images) == [2, 0, 1, 3]
    assert images.labels.tolist() == [1, 0, 2, 0]
    assert images.class_names == ("0", "1", "2")
    assert images.names == tuple(os.path.normpath(p) for p in ("b/z.png", "a/x.png", "b/deep er/y.png", "c/w.png"))
    lazy = read(root, data, lazy=True)
    assert isinstance(lazy.images, Photographs)
    assert torch.equal(lazy.images[:], images.images)
    assert lazy.list_sha256 is None
    assert len(set(lazy.digests())) == 4


def test_the_folder_of_a_list_is_its_root_unless_another_is_given(root):
    (root / "mine.txt").write_text("a/x.png 0\nc/w.png 1\n")
    assert greys(read_images(str(root / "mine.txt"), "train", 8)) == [0, 3]


@pytest.mark.parametrize(
    "text",
    [
        "a/x.png,ant\nb/z.png,bee\nc/w.png,ant\n",
        '\ufeff"a/x.png","ant"\r\n"b/z.png","bee"\r\n"c/w.png","ant"\r\n',
        "path,label\na/x.png,ant\nb/z.png,bee\n\nc/w.png,ant\n",
        "class_name,width,file\nant,8,a/x.png\nbee,8,b/z.png\nant,8,c/w.png\n",
        "Image,Class\na/x.png, ant\nb/z.png, bee\nc/w.png, ant",
    ],
)
def test_a_csv_of_class_names_with_or_without_header(root, text):
    images = read(root, written(root, text, "train.csv"))
    assert (greys(images), images.labels.tolist(), images.class_names) == ([0, 2, 3], [0, 1, 0], ("ant", "bee"))


def test_a_csv_of_numbers_is_a_list(root):
    images = read(root, written(root, "path,label\na/x.png,1\nb/z.png,0\n", "train.csv"))
    assert (images.labels.tolist(), images.class_names) == ([1, 0], ("0", "1"))


def test_names_come_from_a_file_or_are_known(root):
    data = written(root, "a/x.png 0\nb/z.png 1\n")
    names = written(root, "ant\nbee \n", "names.txt")
    assert read(root, data, lists=Lists(class_names=names)).class_names == ("ant", "bee")
    assert read(root, data, "test", class_names=["x", "y", "z"]).class_names == ("x", "y", "z")
    csv = written(root, "c/w.png,y\na/x.png,x\n", "other.csv")
    assert read(root, csv, "test", class_names=["y", "x"]).labels.tolist() == [0, 1]


def test_test_and_validation_lists_are_companions(root):
    data, test = written(root, "a/x.png 0\nb/z.png 1\n"), written(root, "c/w.png 1\n", "test.txt")
    lists = Lists(test=test)
    assert has_split(data, "test", str(root), lists)
    assert not has_split(data, "val", str(root), lists)
    assert greys(read(root, data, "test", lists=lists, class_names=("0", "1"))) == [3]
    assert greys(read(root, data, "test")) == [0, 2]  # alone, a list is what is evaluated
    with pytest.raises(FileNotFoundError, match=r"has no list of val images; give it as --val-list"):
        read(root, data, "val", lists=lists)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a/x.png 0\nb/\xff.png 1\n", "line 2 is not UTF-8"),
        ("a/x.png 0\n\nb/z.png\n", "line 3 is 'b/z.png'; write a path, a space and a label"),
        ("a/x.png 0\nb/z.png one\n", "line 2 has the label 'one'"),
        ("a/x.png 0\nb/z.png -1\n", "line 2 has the label '-1'"),
        ("a/x.png 0\nb/z.png 1.0\n", "line 2 has the label '1.0'"),
        ("a/x.png 0\nb/z.png 99999999999\n", "line 2 has the label '99999999999'"),
        ("a/x.png 0\nb/z.png 7\n", "line 2 has the label 7; it lists fewer images than that"),
        ("a/x.png 0\nb/z.png 2\nc/w.png 0\n", "has no training image of class '1'"),
        ("a/x.png 0\nb/none.png 1\n", "line 2: the path 'b/none.png' is no file in"),
        ("a/x.png 0\nb 1\n", "line 2: the path 'b' is no file in"),
        ("a/x.png 0\nb/../../secret.png 1\n", "line 2: the path 'b/../../secret.png' leaves"),
        ("a/x.png 0\n../secret.png 1\n", "line 2: the path '../secret.png' leaves"),
        ("a/x.png 0\n/etc/hosts 1\n", "line 2: the path '/etc/hosts' leaves"),
        ("a/x.png 0\nout.png 1\n", "line 2: the path 'out.png' leaves"),
        ("a/x.png 0\nout/secret.png 1\n", "line 2: the path 'out/secret.png' leaves"),
        ("a/x.png 0\nb\0.png 1\n", "leaves"),
        ("", "lists no image"),
        ("\n \n", "lists no image"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(root, text, said):
    Image.new("RGB", (8, 8)).save(root.parent / "secret.png")
    (root / "out.png").symlink_to(root.parent / "secret.png")
    (root / "out").symlink_to(root.parent)
    data = written(root, text)
    with pytest.raises(ValueError, match=r"^\S+train\.txt") as caught:
        read(root, data)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_link_inside_the_root_is_followed(root):
    (root / "again.png").symlink_to(root / "c" / "w.png")
    assert greys(read(root, written(root, "a/x.png 0\nagain.png 1\n"))) == [0, 3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a/x.png,ant\nb/z.png,1\n", "line 1 has the label 'ant'"),
        ("name,kind\na/x.png,ant\n", "line 1 is neither an image and its label nor a header"),
        ("path,label,class\na/x.png,0,ant\n", "line 1 is neither"),
        ("a/x.png,ant,3\n", "line 1 is neither"),
        ("a/x.png,ant\nb/z.png\n", "line 2 is not 2 cells with a path and a label"),
        ("a/x.png,ant\nb/z.png,\n", "line 2 is not 2 cells"),
        ("path,label,note\na/x.png,ant\n", "line 2 is not 3 cells"),
        ('a/x.png,ant\n"b/z.png,bee\n', "line 2 is not CSV"),
        ("a/x.png,ant\nc/w.png,\n", "line 2"),
        ("path,label\n", "lists no image"),
    ],
)
def test_a_csv_line_that_cannot_be_used_is_named(root, text, said):
    with pytest.raises(ValueError, match=r"^\S+train\.csv") as caught:
        read(root, written(root, text, "train.csv"))
    assert said in str(caught.value)


def test_what_the_known_classes_do_not_hold_is_named(root):
    numbers = written(root, "a/x.png 0\nb/z.png 2\n")
    with pytest.raises(ValueError, match=r"line 2 has the label 2; there are 2 classes, numbered from 0"):
        read(root, numbers, "test", class_names=("x", "y"))
    names = written(root, "a/x.png,x\nb/z.png,eel\n", "test.csv")
    with pytest.raises(ValueError, match=r"test\.csv, line 2 has the class 'eel', which is none of the known ones"):
        read(root, names, "test", class_names=("x", "y"))


@pytest.mark.parametrize(("text", "said"), [("ant\nant\n", "line 2 repeats"), ("ant\n\nbee\n", "line 2 is empty")])
def test_class_names_are_all_different(root, text, said):
    with pytest.raises(ValueError, match=rf"names\.txt, {said}"):
        read(root, written(root, "a/x.png 0\n"), lists=Lists(class_names=written(root, text, "names.txt")))


def test_a_missing_list_or_folder_is_named(root):
    with pytest.raises(FileNotFoundError, match=r"No list .*none\.txt"):
        read(root, "none.txt")
    with pytest.raises(FileNotFoundError, match=r"No folder .*nowhere; give the folder that the paths in .*train\.txt"):
        read(root / "nowhere", written(root, "a/x.png 0\n"))
    with pytest.raises(ValueError, match=r"places_lt needs data_dir .*Places_LT_train\.txt"):
        read_images("places_lt", "train", 8)


def test_an_image_that_cannot_be_read_is_named(root):
    (root / "a" / "x.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"Cannot read 1 of 1 images under .*train\.txt: a.x\.png \(not an image\)"):
        read(root, written(root, "a/x.png 0\n"), lazy=True)
    data = written(root, "a/x.png 0\nb/z.png 0\nc/w.png 1\n", "more.txt")
    images = read(root, data, lazy=True, broken="leave_out")
    assert (greys(images), [each.name.replace("\\", "/") for each in images.left_out]) == ([2, 3], ["a/x.png"])


# What the field's papers print of their sets (docs of the published splits): images, classes, largest and smallest.
@pytest.mark.parametrize(
    ("name", "train", "val", "test"),
    [
        ("imagenet_lt", (115_846, 1000, 1280, 5), 20, 50),
        ("places_lt", (62_500, 365, 4980, 5), 20, 100),
        ("inaturalist2018", (437_513, 8142, 1000, 2), None, 3),
    ],
)
def test_the_numbers_of_the_published_sets(name, train, val, test):
    assert LISTS[SETS[name]["train"]] == Published(*train)
    for split, each in {"val": val, "test": test}.items():
        if each is None:
            assert split not in SETS[name]
        else:
            assert LISTS[SETS[name][split]] == Published(each * train[1], train[1], each, each)


@pytest.fixture
def small_places(root, monkeypatch):
    """Places-LT as if it had two classes and three training images; its lists lie among the images."""
    known = {"train": Published(3, 2, 2, 1), "val": Published(2, 2, 1, 1), "test": Published(2, 2, 1, 1)}
    monkeypatch.setattr(published, "LISTS", LISTS)
    for split, values in known.items():
        monkeypatch.setitem(LISTS, f"Places_LT_{split}.txt", values)
    lists = {
        "train": "a/x.png 0\nb/z.png 0\nc/w.png 1\n",
        "val": "a/x.png 0\nc/w.png 1\n",
        "test": "b/z.png 0\nc/w.png 1\n",
    }
    for split, text in lists.items():
        (root / f"Places_LT_{split}.txt").write_text(text)
    return root


def test_a_published_set_is_found_in_its_folder_or_beside_its_list(small_places, tmp_path):
    root = small_places
    assert all(has_split("places_lt", split, str(root)) for split in ("val", "test"))
    images = read(root, "places_lt", lazy=True)
    assert images.counts() == [2, 1]
    assert len(images.list_sha256) == 64
    assert images.subset([0]).list_sha256 == images.list_sha256
    elsewhere = tmp_path / "lists"
    elsewhere.mkdir()
    for file in list(root.glob("*.txt")):
        file.rename(elsewhere / file.name)
    data = str(elsewhere / "Places_LT_train.txt")
    assert read(root, data, lazy=True).names == images.names
    assert greys(read(root, data, "test")) == [2, 3]
    assert not has_split("places_lt", "val", str(root))
    with pytest.raises(FileNotFoundError, match=r"No list .*Places_LT_train\.txt"):
        read(root, "places_lt")


def test_another_list_under_a_published_name_is_refused(small_places):
    file = small_places / "Places_LT_train.txt"
    file.write_text(file.read_text() + "a/x.png 1\n")
    with pytest.raises(ValueError, match="has 4 images in 2 classes of 2 to 2, but the published list has 3 images"):
        read(small_places, "places_lt")
    own = small_places / "mine.txt"
    file.rename(own)
    assert read(small_places, str(own)).counts() == [2, 2]


@pytest.mark.slow
def test_a_list_of_a_published_size_is_read(tmp_path, monkeypatch):
    """ImageNet-LT in counts: its paths all name one image."""
    monkeypatch.setattr(image_set, "sound_images", lambda files, *_: (list(range(len(files))), ()))
    counts = np.diff(np.linspace(0, 1, 999) ** 2)  # any profile will do if the ends and the sum are right
    counts = np.sort(np.clip((counts / counts.sum() * 113_000).astype(int), 6, 1279))[::-1]
    counts = np.concatenate([[1280], counts, [5]])
    missing = 115_846 - counts.sum()
    counts[500 : 500 + abs(missing) % 400] += np.sign(missing)
    counts[1:401] += np.sign(missing) * (abs(missing) // 400)
    assert (counts.sum(), counts.max(), counts.min()) == (115_846, 1280, 5)
    Image.new("RGB", (8, 8)).save(tmp_path / "one.png")
    lines = [f"one.png {c}\n" for c, n in enumerate(counts) for _ in range(n)]
    (tmp_path / "ImageNet_LT_train.txt").write_text("".join(lines))
    images = read_images("imagenet_lt", "train", 8, str(tmp_path), lazy=True)
    assert images.counts() == counts.tolist()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("lists/birds.csv", "birds"),
        ("imagenet_lt", "imagenet_lt"),
        ("photos/birds", "birds"),
        ("torch/cifar10", "cifar10"),
        ("hfds/uoft-cs/cifar100?input_key=img", "cifar100"),
    ],
)
def test_a_run_is_called_after_its_data(data, name):
    assert short_name(data) == name
