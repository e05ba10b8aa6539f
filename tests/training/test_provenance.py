"""The commit of a run: of the checkout that the code lies in, and of no other."""

import subprocess

from osdtw_training.provenance import commit


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
