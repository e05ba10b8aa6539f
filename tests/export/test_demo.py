"""The folder of the demo, without a browser: what is in it, what is refused, what is never taken from anywhere."""

import base64
import hashlib
import io
import json
import re
import tarfile
import threading
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from osdtw_export.demo import web_runtime
from osdtw_export.demo.serving import address, server
from osdtw_export.demo.words import Words, page_model, space_card
from osdtw_export.demo_cli import main

PAGES = Path(web_runtime.__file__).parent / "page"


@pytest.fixture
def package(monkeypatch):
    """A small package in place of npm's 33 MB, with its own digests pinned; a file beside the wanted ones tempts."""
    files = {name: f"content of {name}".encode() for name in web_runtime.FILES}
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        tempting = {"package/dist/../../escaped": b"!", "package/package.json": b"{}"}
        for name, data in {**{f"package/dist/{name}": data for name, data in files.items()}, **tempting}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    digest = base64.b64encode(hashlib.sha512(content.getvalue()).digest()).decode()
    monkeypatch.setattr(web_runtime, "INTEGRITY", f"sha512-{digest}")
    monkeypatch.setattr(web_runtime, "FILES", {name: hashlib.sha256(data).hexdigest() for name, data in files.items()})
    return content.getvalue(), files


@pytest.fixture
def npm(tmp_path, monkeypatch, package):
    """An npm that packs the small package, and writes down what it was asked for."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "package.tgz").write_bytes(package[0])
    (folder / "npm").write_text(f'#!/bin/sh\necho "$@" >> {folder}/asked\n/bin/cp {folder}/package.tgz .\n')
    (folder / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def refusal(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    said = capsys.readouterr().err
    assert said.startswith("osdtw-demo: ")
    assert said.count("\n") == 1
    return said


def test_npm_is_asked_once_and_runs_no_script(npm, package, tmp_path):
    assert web_runtime.runtime_files() == package[1]
    (npm / "npm").unlink()  # from now on without network
    assert web_runtime.runtime_files() == package[1]
    assert (npm / "asked").read_text() == f"pack --ignore-scripts --silent onnxruntime-web@{web_runtime.VERSION}\n"
    assert {path.name for path in web_runtime.cache_folder().iterdir()} == package[1].keys()
    assert not list(tmp_path.rglob("escaped"))


def test_a_damaged_copy_is_fetched_again(npm, package):
    web_runtime.runtime_files()
    kept = web_runtime.cache_folder() / "ort.wasm.min.mjs"
    kept.write_bytes(kept.read_bytes()[:-1] + b"?")
    assert web_runtime.runtime_files() == package[1]
    assert kept.read_bytes() == package[1][kept.name]
    assert (npm / "asked").read_text().count("pack") == 2


def test_a_flipped_byte_is_refused_wherever_it_comes_from(npm, package, tmp_path):
    for place in (0, 40, len(package[0]) // 2, len(package[0]) - 1):
        flipped = bytearray(package[0])
        flipped[place] ^= 1
        (npm / "package.tgz").write_bytes(flipped)
        with pytest.raises(ValueError, match="SHA-512 differs"):
            web_runtime.runtime_files()
    assert not web_runtime.cache_folder().exists()
    folder = tmp_path / "dist"
    folder.mkdir()
    for name, content in package[1].items():
        (folder / name).write_bytes(content)
    assert web_runtime.runtime_files(folder) == package[1]
    (folder / "ort-wasm-simd-threaded.wasm").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"ort-wasm-simd-threaded\.wasm .* SHA-256 differs"):
        web_runtime.runtime_files(folder)
    (folder / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no ort-wasm-simd-threaded\.wasm"):
        web_runtime.runtime_files(folder)


def test_without_npm_or_network_a_sentence_says_what_to_do(npm):
    (npm / "npm").write_text("#!/bin/sh\necho 'npm error network no route' >&2\nexit 1\n")
    with pytest.raises(FileNotFoundError, match=r"npm error network no route.*--runtime"):
        web_runtime.runtime_files()
    (npm / "npm").unlink()
    with pytest.raises(FileNotFoundError, match=r"install Node\.js, or .*--runtime"):
        web_runtime.runtime_files()


@pytest.fixture
def photo(tmp_path):
    """A large photograph that tells where it was taken."""
    exif = Image.Exif()
    exif[0x010E] = "my home"
    file = tmp_path / "photos" / "red & <b>.jpg"
    file.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (600, 900, 3), dtype=np.uint8)).save(file, exif=exif)
    return file


def test_the_folder_is_complete_and_can_be_written_again(exported, npm, package, tmp_path, photo, capsys):
    folder = tmp_path / "demo"
    command = [
        str(exported.file.path),
        "-o",
        str(folder),
        "--title",
        'Birds: "rare" \N{BIRD}',
        "--license",
        "cc-by-4.0",
    ]
    assert main([*command, "--samples", str(photo.parent)]) == 0
    assert "http.server" in capsys.readouterr().out
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    pages = {path.name for path in PAGES.iterdir()} - {"LICENSE"}
    runtime = {f"onnxruntime/{name}" for name in (*package[1], "LICENSE")}
    assert found == pages | runtime | {"model.json", "model.onnx", "README.md", "samples/00.png"}
    assert (folder / "model.onnx").read_bytes() == exported.file.path.read_bytes()
    told = json.loads((folder / "model.json").read_text())
    assert told["labels"] == exported.file.metadata.label_names
    assert told["samples"] == [{"file": "samples/00.png", "name": "red & <b>"}]
    with Image.open(folder / "samples" / "00.png") as sample:
        assert sample.size == (384, 256)
        assert not sample.getexif()
    assert b"my home" not in (folder / "samples" / "00.png").read_bytes()
    header = yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])
    assert (header["sdk"], header["title"], header["license"]) == ("static", 'Birds: "rare" \N{BIRD}', "cc-by-4.0")
    assert (folder / header["app_file"]).is_file()
    (folder / ".git").mkdir()  # a clone of a Space
    assert main(command) == 0
    assert not list((folder / "samples").iterdir())
    assert (folder / ".git").is_dir()


def test_what_cannot_be_done_is_one_sentence(exported, npm, tmp_path, photo, capsys):
    onnx = exported.file.path
    assert "holds other files (red & <b>.jpg)" in refusal(capsys, onnx, "-o", photo.parent)
    assert "is a file" in refusal(capsys, onnx, "-o", photo)
    assert "no runtime" in refusal(capsys, onnx, "-o", tmp_path / "demo", "--runtime", tmp_path / "none")
    assert "No file" in refusal(capsys, onnx, "-o", tmp_path / "demo", "--samples", tmp_path / "none.png")
    assert "no file" in refusal(capsys, tmp_path / "none.onnx", "-o", tmp_path / "demo")
    assert not (tmp_path / "demo").exists()
    assert photo.is_file()


def test_networks_that_pages_cannot_feed_are_refused(exported):
    grey = replace(exported.file.metadata, input_size=(1, 28, 28), mean=(0.5,), std=(0.5,))
    with pytest.raises(ValueError, match="1 x 28 x 28"):
        page_model(grey, Words("", ""), {})


def test_what_the_pages_are_told(exported):
    counts = [9, 1, 8, 1, 2, 1, 1, 7, 1, 6]
    told = page_model(replace(exported.file.metadata, class_counts=counts), Words("title", "pick"), {})
    assert [(task["name"], task["detail"]) for task in told["tasks"]] == [
        ("head", "4 classes, 6 to 9 training pictures each"),
        ("tail", "6 classes, 1 to 2 training pictures each"),
    ]
    assert told["class_counts"] == counts
    assert (told["none"], told["open_none"]) == (True, False)
    assert page_model(replace(exported.file.metadata, fusion="mean"), Words("", ""), {})["open_none"]
    every = list(range(10))
    experts = page_model(replace(exported.file.metadata, task_classes=[every, every], fusion="mean"), Words("", ""), {})
    assert (experts["experts"], experts["none"], experts["open_none"]) == (True, False, False)
    assert [task["name"] for task in experts["tasks"]] == ["expert 0", "expert 1"]
    nameless = page_model(replace(exported.file.metadata, label_names=None), Words("", ""), {})
    assert nameless["labels"] == list("0123456789")


@pytest.mark.parametrize("title", ["a: b", "---", '"\n- x: !!python/object', "{x}", "é\u2028#"])
def test_titles_cannot_break_the_header(exported, title):
    header = yaml.safe_load(space_card(exported.file.metadata, Words(title, "")).split("\n---\n")[0])
    assert header["title"] == title
    assert header["sdk"] == "static"
    assert "license" not in header


def test_pages_hold_to_their_own_files_and_put_text_in_as_text():
    """No other origin but in links, no inline script or style, no markup made of strings, nothing evaluated."""
    for page in PAGES.iterdir():
        text = page.read_text(encoding="utf-8")
        others = set(re.findall(r"https?://[^\s\"'<)]+", text)) - {"https://arxiv.org/abs/2605.24969"}
        assert others <= {"http://www.w3.org/2000/svg"}, page.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|new Function", text), page.name
    index = (PAGES / "index.html").read_text()
    assert not re.search(r"<style|<script(?![^>]*src=)|\son\w+=|\sstyle=", index)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', index)[1]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'"
    assert rules["script-src"] == "'self' 'wasm-unsafe-eval'"
    assert set(rules.values()) <= {"'none'", "'self'", "'self' 'wasm-unsafe-eval'"}


def test_the_local_server_is_for_this_machine_and_names_types(tmp_path):
    for name in ("a.mjs", "a.wasm"):
        (tmp_path / name).write_text("")
    with server(tmp_path) as running:
        assert running.server_address[0] == "127.0.0.1"
        assert address(running) == f"http://localhost:{running.server_port}/"
        with pytest.raises(ValueError, match="choose another one with --serve"):
            server(tmp_path, running.server_port)
        threading.Thread(target=running.serve_forever, daemon=True).start()
        types = {}
        for name in ("a.mjs", "a.wasm"):
            with urllib.request.urlopen(f"http://127.0.0.1:{running.server_port}/{name}") as answer:
                types[name] = answer.headers["Content-Type"]
        running.shutdown()
    assert types == {"a.mjs": "text/javascript", "a.wasm": "application/wasm"}
