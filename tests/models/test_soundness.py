"""Every file is opened whole, once; broken ones are named, left out or refused, and nothing takes their place."""

import json
import os
import zlib

import numpy as np
import pytest
import timm
from PIL import Image
from timm.models import save_for_hf

from osdtw_models import soundness
from osdtw_models.cli import evaluate
from osdtw_models.image_set import Reading
from osdtw_models.soundness import find_broken, sound_images
from osdtw_models.sources.folders import image_folder


def chunk(kind, content):
    return len(content).to_bytes(4, "big") + kind + content + zlib.crc32(kind + content).to_bytes(4, "big")


def bomb():
    """A PNG of some eighty bytes that claims 400 million pixels."""
    size = (20_000).to_bytes(4, "big") * 2
    head = chunk(b"IHDR", size + bytes([8, 2, 0, 0, 0]))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def folder(tmp_path):
    """Two classes of six photographs: no two files alike."""
    stream = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(6):
            picture = Image.fromarray(stream.integers(0, 256, (40, 50, 3), dtype=np.uint8))
            picture.save(tmp_path / "data" / name / f"{i}.jpg")
    return tmp_path / "data"


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that were opened since."""
    names, real = [], soundness.open_image
    monkeypatch.setattr(soundness, "open_image", lambda file: names.append(file.name) or real(file))
    return names


def files(folder):
    return sorted(folder.rglob("*.jpg"))


def memory(folder):
    return soundness._memory(folder)


BREAK = {
    "empty": lambda content: b"",
    "garbage": lambda content: b"no image",
    "cut at the end": lambda content: content[:-200],
    "cut in the head": lambda content: content[:30],
    "a bomb": lambda content: bomb(),
    "a page, named like a photograph": lambda content: b"%PDF-1.7\n%%EOF",
}


@pytest.mark.parametrize("how", BREAK)
def test_a_broken_file_is_named_and_left_out_and_the_others_stay_as_they_were(folder, how):
    whole = image_folder(folder, Reading(16))
    file = folder / "cat" / "3.jpg"
    file.write_bytes(BREAK[how](file.read_bytes()))
    for lazy in (True, False):
        found = image_folder(folder, Reading(16, lazy=lazy, broken="leave_out"))
        kept = [i for i, name in enumerate(whole.names) if name != os.path.join("cat", "3.jpg")]
        assert found.names == tuple(whole.names[i] for i in kept)
        assert found.labels.tolist() == whole.labels[kept].tolist()
        assert (found.images[:] == whole.images[kept]).all()
        assert found.counts() == [5, 6]
        (broken,) = found.left_out
        assert (broken.name, broken.class_name) == (os.path.join("cat", "3.jpg"), "cat")
        assert broken.reason
        with pytest.raises(ValueError, match=r"Cannot read 1 of 12 images under .*data: cat.3\.jpg \(.*\); mend or"):
            image_folder(folder, Reading(16, lazy=lazy))


def test_an_image_under_another_suffix_is_still_an_image(folder):
    Image.new("RGB", (20, 20)).save(folder / "cat" / "3.jpg", "PNG")
    assert not image_folder(folder, Reading(16, broken="leave_out")).left_out


def test_a_class_that_loses_all_its_images_is_named(folder):
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(
        ValueError, match=r"Class 'dog' under .* has no image that can be read \(dog.0\.jpg: it is empty"
    ):
        image_folder(folder, Reading(16, broken="leave_out"))


def test_a_second_start_opens_only_what_is_new_changed_or_broken(folder, opened):
    (folder / "cat" / "1.jpg").write_bytes(b"no image")
    assert len(find_broken(files(folder), folder)) == 1
    assert len(opened) == 12
    opened.clear()
    changed, new = folder / "cat" / "4.jpg", folder / "dog" / "new.jpg"
    new.write_bytes((folder / "dog" / "0.jpg").read_bytes())
    os.utime(changed, ns=(1, 1))
    assert find_broken(files(folder), folder) == {folder / "cat" / "1.jpg": "not an image"}
    assert sorted(opened) == ["1.jpg", "4.jpg", "new.jpg"]


def test_a_file_that_broke_since_is_found(folder):
    file = folder / "cat" / "2.jpg"
    assert not find_broken(files(folder), folder)
    file.write_bytes(file.read_bytes()[:-100])
    assert list(find_broken(files(folder), folder)) == [file]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"sound": {}}',
        json.dumps({"opener": soundness.OPENER, "sound": [1]}).encode(),
        json.dumps({"opener": soundness.OPENER, "sound": {"cat/0.jpg": "no stamp"}}).encode(),
    ],
)
def test_a_damaged_memory_only_means_to_look_again(folder, opened, damage):
    find_broken(files(folder), folder)
    memory(folder).write_bytes(damage)
    opened.clear()
    find_broken(files(folder), folder)
    assert len(opened) == 12
    opened.clear()
    find_broken(files(folder), folder)
    assert not opened


def test_cutting_or_flipping_the_memory_never_passes_a_broken_file(folder):
    file = folder / "dog" / "5.jpg"
    file.write_bytes(file.read_bytes()[:-300])
    find_broken(files(folder), folder)
    whole, stream = memory(folder).read_bytes(), np.random.default_rng(1)
    for _ in range(40):
        place = int(stream.integers(len(whole)))
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(stream.integers(8))
        memory(folder).write_bytes(bytes(flipped) if place % 2 else whole[:place])
        assert list(find_broken(files(folder), folder)) == [file]


def test_another_decoder_judges_anew(folder, opened, monkeypatch):
    find_broken(files(folder), folder)
    opened.clear()
    monkeypatch.setattr(soundness, "OPENER", "another")
    find_broken(files(folder), folder)
    assert len(opened) == 12


def test_where_nothing_can_be_written_it_goes_on_without_memory(folder, opened, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    for _ in range(2):
        assert not find_broken(files(folder), folder)
    assert len(opened) == 24


def test_what_was_opened_before_ctrl_c_is_remembered(folder, monkeypatch):
    real, seen = soundness.open_image, []

    def stop(file):
        seen.append(file)
        if file.name == "5.jpg":
            raise KeyboardInterrupt
        return real(file)

    with monkeypatch.context() as patch:
        patch.setattr(soundness, "open_image", stop)
        with pytest.raises(KeyboardInterrupt):
            find_broken(files(folder), folder)
    seen.clear()
    monkeypatch.setattr(soundness, "open_image", lambda file: seen.append(file) or real(file))
    find_broken(files(folder), folder)
    assert 0 < len(seen) < 12


def test_reasons_are_said_of_the_first_few(folder):
    for file in (folder / "dog").iterdir():
        file.write_bytes(b"")
    listed = files(folder)
    with pytest.raises(ValueError, match=r"Cannot read 6 of 12 images .*dog.4\.jpg \(it is empty\) and 1 more; mend"):
        sound_images(listed, [file.parent.name for file in listed], folder, "error")


def test_a_file_that_is_gone_is_broken(folder):
    gone = folder / "cat" / "9.jpg"
    assert find_broken([gone], folder) == {gone: "there is no such file"}


def test_an_evaluation_says_what_it_left_out(folder, tmp_path, capsys):
    network = timm.create_model("osdtw_resnet14", num_classes=2, task_classes=[[0, 1]], class_counts=[6, 6])
    save_for_hf(network, tmp_path / "run", model_config={"label_names": ["cat", "dog"]}, safe_serialization=True)
    (folder / "cat" / "3.jpg").write_bytes(b"")
    words = [str(tmp_path / "run"), "--data", str(folder)]
    assert evaluate([*words, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["images"] == 11
    assert json.loads(said.out)["broken_images_left_out"] == 1
    assert "1 broken images are left out: cat" in said.err
    assert evaluate([*words, "--broken", "error"]) == 2
    assert "Cannot read 1 of 12 images" in capsys.readouterr().err


def test_a_list_on_another_drive_than_its_images(monkeypatch):
    def on_windows(path, start):
        raise ValueError(f"path is on mount {path}, start on mount {start}")

    monkeypatch.setattr(os.path, "relpath", on_windows)
    assert soundness._name("images/a.jpg", "lists/train.csv") == os.path.abspath("images/a.jpg")
