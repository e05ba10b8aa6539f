"""Whatever step of writing fails, the old file stays, no other is left, and the error names file, reason and room."""

import errno
import os
import resource
import shutil
from contextlib import contextmanager

import pytest
import torch
from safetensors.torch import save_file

from osdtw_models.files import append_line, remove_drafts, write_text, write_whole
from osdtw_models.tables import write_table

SIZE = 50_000


@contextmanager
def no_room(size):
    """No file may grow beyond some bytes: the system's own error at a real write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


WRITERS = {
    "text.txt": lambda path, n: write_text(path, str(n) * SIZE),
    "bytes.bin": lambda path, n: write_whole(path, lambda draft: draft.write_bytes(bytes([n]) * SIZE)),
    "tensors.safetensors": lambda path, n: write_whole(
        path, lambda draft: save_file({"a": torch.full((SIZE,), n)}, draft)
    ),
    "table.csv": lambda path, n: write_table(path, [{"n": n}] * SIZE),
    "table.jsonl": lambda path, n: write_table(path, [{"n": n}] * SIZE),
    "table.parquet": lambda path, n: write_table(path, [{"n": i * n} for i in range(SIZE)]),
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("room", [0, 100, 8192])
def test_a_full_disk_keeps_the_old_file(tmp_path, name, room):
    path = tmp_path / name
    WRITERS[name](path, 1)
    old = path.read_bytes()
    words = r"File too large after [0-9,]+ bytes, [0-9,]+ bytes are free there"
    with pytest.raises(OSError, match=words) as told, no_room(room):
        WRITERS[name](path, 2)
    assert (told.value.errno, told.value.filename) == (errno.EFBIG, str(path))
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_step_that_fails_is_told_with_the_final_name(tmp_path, monkeypatch, step, number, old):
    path = tmp_path / "file.txt"
    if old:
        path.write_text(old)

    def fail(*args):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match=os.strerror(number)) as told:
        write_text(path, "new")
    assert told.value.filename == str(path)
    assert (path.read_text() if path.exists() else None) == old
    assert not list(tmp_path.glob(".*"))


def test_a_folder_that_cannot_be_opened_is_told_with_the_files_name(tmp_path, monkeypatch):
    def fail(path, flags):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(OSError, match="Input/output error") as told:
        write_text(tmp_path / "file.txt", "new")
    assert told.value.filename == str(tmp_path / "file.txt")


def test_a_copy_that_finds_no_room_is_told_with_its_own_name(tmp_path):
    source, path = tmp_path / "source.bin", tmp_path / "copy.bin"
    source.write_bytes(bytes(SIZE))
    with pytest.raises(OSError, match="bytes are free there") as told, no_room(SIZE // 2):
        write_whole(path, lambda draft: shutil.copyfile(source, draft))
    assert told.value.filename == str(path)
    assert list(tmp_path.iterdir()) == [source]


def test_file_and_folder_are_flushed_in_this_order(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace

    def flush(place):
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{place}") else "file")
        fsync(place)

    def rename(*names):
        steps.append("rename")
        replace(*names)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "replace", rename)
    write_text(tmp_path / "file.txt", "text")
    assert steps == ["file", "rename", "folder"]


def test_an_error_about_another_file_stays_as_it_is(tmp_path):
    def write(draft):
        draft.write_text("half")
        (tmp_path / "missing.png").read_bytes()

    with pytest.raises(FileNotFoundError) as told:
        write_whole(tmp_path / "file.txt", write)
    assert told.value.filename == str(tmp_path / "missing.png")
    assert not list(tmp_path.iterdir())


def test_a_line_is_appended_whole_or_not_at_all(tmp_path):
    path = tmp_path / "lines.jsonl"
    append_line(path, "first")
    with pytest.raises(OSError, match=r"lines\.jsonl"), no_room(10):
        append_line(path, "a second line")
    append_line(path, "third")
    assert path.read_text() == "first\nthird\n"


def test_drafts_are_removed_and_nothing_else(tmp_path):
    for name in (".a.json.123.tmp", ".tmpXyZ", "a.json", ".hidden", "b.tmp"):
        (tmp_path / name).touch()
    remove_drafts(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".hidden", "a.json", "b.tmp"]
