"""The commit of a run: of the checkout that the code lies in, and of no other."""

import subprocess
from pathlib import Path

import pytest
import torch

from osdtw_training.checks import check
from osdtw_training.data import load_data
from osdtw_training.inventory import announce
from osdtw_training.provenance import commit, has_bfloat16


def git(folder, *words):
    identity = ["-c", "user.name=n", "-c", "user.email=e"]
    done = subprocess.run(["git", "-C", str(folder), *identity, *words], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_names_the_commit_and_marks_changes_since(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "provenance.py").write_text("one")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert head.startswith(commit(package))
    (tmp_path / "results.json").write_text("{}")  # not code
    git(tmp_path, "add", ".")
    assert commit(package) == head[:8]
    (package / "provenance.py").write_text("two")
    assert commit(package) == f"{head[:8]}+"


def test_a_package_inside_somebody_elses_checkout_has_none(tmp_path):
    (tmp_path / "theirs.py").write_text("")
    git(tmp_path, "init")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "theirs")
    package = tmp_path / "site-packages"
    package.mkdir()
    (package / "provenance.py").write_text("")
    assert commit(package) is None


def test_outside_a_checkout_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    (tmp_path / "provenance.py").write_text("")
    assert commit(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert commit(tmp_path) is None


def test_knows_bfloat16_as_linux_does():
    cpuinfo = Path("/proc/cpuinfo")
    told = getattr(torch.cpu, "get_capabilities", dict)()
    if told.get("architecture") != "x86_64" or not cpuinfo.is_file():
        pytest.skip("needs Linux on an x86 processor, and a torch that tells what the processor has")
    flags = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")).split()
    assert has_bfloat16() == bool({"avx512_bf16", "amx_bf16"} & set(flags))


@pytest.mark.parametrize(
    ("amp", "has", "said"),
    [
        ("bfloat16", {"avx512_bf16": False, "avx2": True}, True),
        ("bfloat16", {"avx512_bf16": True}, False),
        ("bfloat16", {}, False),  # torch cannot tell
        ("none", {"avx512_bf16": False, "avx2": True}, False),
    ],
)
def test_says_when_half_precision_is_slower(tiny, capsys, monkeypatch, amp, has, said):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has, raising=False)
    recipe = tiny(amp=amp)
    data = load_data(recipe)
    announce(recipe, data, check(recipe, data))
    assert ("--amp none is faster here" in capsys.readouterr().out) == said
