"""Uploading, through the Hub's own client, to a Hub on loopback: once however often, and every refusal a sentence."""

import re
import shutil

import pytest

from osdtw_export.upload import upload

REPO = "org/birds"
CONFIG = b'{"architecture": "osdtw_resnet14"}'
FILES = {
    "README.md": b"---\nlicense: mit\n---\n# Birds\n",
    "config.json": CONFIG,
    "model.safetensors": b"weights" * 9000,
    "onnx/model.onnx": b"graph" * 9000,
}


@pytest.fixture
def folder(tmp_path):
    return write(tmp_path / "folder", FILES)


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def refusal(error, *arguments, **options) -> str:
    with pytest.raises(error) as caught:
        upload(*arguments, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.endswith(".")
    return sentence


def held(hub, kind="model"):
    return {name: content for name, content in hub.files(REPO, kind).items() if name != ".gitattributes"}


def test_the_hub_then_holds_the_folder(hub, folder):
    published = upload(folder, REPO)
    assert held(hub) == FILES
    assert published.url == f"{hub.url}/{REPO}"
    assert published.revision == hub.commits(REPO)[-1]
    assert published.changed


def test_twice_is_once_and_a_change_is_one_commit(hub, folder):
    first = upload(folder, REPO)
    again = upload(folder, REPO)
    assert (again.revision, again.changed) == (first.revision, False)
    assert len(hub.asked("POST .*/commit/")) == len(hub.asked("PUT")) - 1 == 1
    (folder / "README.md").write_bytes(b"# Other words\n")
    assert upload(folder, REPO).changed
    assert len(hub.asked("POST .*/commit/")) == 2
    assert held(hub)["README.md"] == b"# Other words\n"


def test_files_of_older_weights_go_and_those_of_the_owner_stay(hub, folder):
    hub.create(REPO, {"config.json": CONFIG, "onnx/model_fp16.onnx": b"old", "NOTES.md": b"mine"})
    upload(folder, REPO)
    assert held(hub) == {**FILES, "NOTES.md": b"mine"}


@pytest.mark.parametrize("token", ["", "unknown"])
def test_without_a_token_that_the_hub_knows_nothing_is_sent(hub, folder, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    assert "'hf auth login', or set HF_TOKEN" in refusal(PermissionError, folder, REPO)
    assert not hub.repositories


def test_a_token_without_the_right_to_write(hub, folder, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert "no right to write to org/birds" in refusal(PermissionError, folder, REPO)
    hub.create(REPO, {})
    assert "no right to write to org/birds" in refusal(PermissionError, folder, REPO)
    assert len(hub.commits(REPO)) == 1


@pytest.mark.parametrize("files", [{"a.txt": b"else"}, {"config.json": b'{"architecture": "resnet50"}'}])
def test_a_name_that_is_taken_by_something_else(hub, folder, files):
    hub.create(REPO, files)
    assert "org/birds is taken by something else" in refusal(FileExistsError, folder, REPO)
    assert held(hub) == files


def test_a_new_repository_is_private_if_asked_and_a_public_one_is_not_taken_for_it(hub, folder):
    upload(folder, REPO, private=True)
    assert hub.repositories["model", REPO].private
    assert upload(folder, REPO, private=True).changed is False
    hub.repositories["model", REPO].private = False
    assert "everybody can see it" in refusal(FileExistsError, folder, REPO, private=True)
    upload(folder, "org/open")
    assert not hub.repositories["model", "org/open"].private


STEPS = ["POST /api/repos/create", "GET /api/models", "POST .*/preupload", "POST .*/commit/"]
REFUSALS = [
    (401, "does not accept the token"),
    (403, "no right to write to org/birds"),
    (409, "Somebody else is changing"),
    (429, "too many requests"),
    (500, "has trouble"),
]


@pytest.mark.parametrize(
    ("step", "status", "words"),
    # 409 of a repository to be made means that it is there, which is no refusal.
    [(step, *refused) for step in STEPS for refused in REFUSALS if (step, refused[0]) != (STEPS[0], 409)],
)
def test_every_refusal_is_a_sentence_and_the_next_try_goes_on(hub, folder, step, status, words):
    hub.create(REPO, {})
    hub.fail(step, status)
    if step == "POST /api/repos/create":  # where the repository can be seen, the client goes on
        hub.fail("GET /api/models", 404)
    assert words in refusal(OSError, folder, REPO)
    assert len(hub.commits(REPO)) == 1
    hub.faults.clear()
    assert upload(folder, REPO).changed
    assert held(hub) == FILES


def test_a_connection_cut_inside_a_file_goes_on_with_that_file(hub, folder):
    hub.fail("PUT", "cut", times=1)  # the client tries again by itself
    upload(folder, REPO)
    assert held(hub) == FILES


def test_a_connection_that_stays_cut_is_a_sentence_and_the_next_try_sends_only_what_is_missing(hub, folder):
    whole = upload_of_one_file(hub, folder)
    hub.fail("PUT", "cut")
    assert "connection was cut" in refusal(ConnectionError, folder, REPO)
    hub.faults.clear()
    hub.log.clear()
    upload(folder, REPO)
    assert held(hub) == FILES
    assert len(hub.asked("PUT")) == 1
    assert not hub.asked(f"PUT .*{whole}")


def upload_of_one_file(hub, folder):
    """Put the weights where the Hub keeps large files, as an upload does that was cut after them."""
    alone = folder.with_name("alone")
    shutil.copytree(folder, alone, ignore=lambda place, names: ["onnx"] if "onnx" in names else [])
    hub.fail("POST .*/commit/", 500, times=1)
    refusal(ConnectionError, alone, REPO)
    (whole,) = hub.large
    return whole


def test_a_file_that_arrives_as_another_is_noticed(hub, folder, monkeypatch):
    large = dict.__setitem__

    class Forger(dict):
        def __setitem__(self, oid, content):
            large(self, oid, content[::-1])

    hub.large = Forger()
    assert "model.safetensors did not arrive" in refusal(OSError, folder, REPO)
    hub.large = {}
    hub.repositories["model", REPO].commits[-1][1]["model.safetensors"] = b""
    assert upload(folder, REPO).changed
    assert held(hub) == FILES


def test_no_network_and_no_wish_for_one_are_sentences(hub, folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert "127.0.0.1:9) cannot be reached" in refusal(ConnectionError, folder, REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids the network" in refusal(FileNotFoundError, folder, REPO)


@pytest.mark.parametrize("repo", ["birds", "org/birds/more", "/birds", "org/", "hf-hub:org/bi rds", "org/bad--name"])
def test_a_name_of_another_form_is_refused(hub, folder, repo):
    assert re.search(r"org/name|is no name on the Hub", refusal((ValueError, OSError), folder, repo))
    assert not hub.log


@pytest.mark.parametrize("name", ["pytorch_model.bin", "old/last.pth", "data.pkl"])
def test_pickles_stay_at_home(hub, folder, name):
    write(folder, {name: b""})
    assert f"{name} may be a pickle" in refusal(ValueError, folder, REPO)
    assert not hub.log


def test_a_space_is_a_folder_of_static_pages(hub, tmp_path):
    pages = {"README.md": b"---\ntitle: Birds\nsdk: static\n---\n", "index.html": b"<html>", "model.onnx": b"graph"}
    assert upload(write(tmp_path / "demo", pages), REPO, "space").url == f"{hub.url}/spaces/{REPO}"
    assert held(hub, "space") == pages
    assert hub.repositories["space", REPO].sdk == "static"
    assert not upload(tmp_path / "demo", REPO, "space").changed


def test_a_folder_that_is_no_space_is_not_made_one(hub, folder, tmp_path):
    assert "does not say 'sdk: static'" in refusal(ValueError, folder, REPO, "space")
    assert "has no README.md" in refusal(FileNotFoundError, tmp_path / "none", REPO, "space")
    (folder / "README.md").write_bytes(b"---\n: [\n---\n")
    assert "is not YAML" in refusal(ValueError, folder, REPO, "space")
    hub.create(REPO, {"app.py": b""}, "space", sdk="gradio")
    (folder / "README.md").write_bytes(b"---\nsdk: static\n---\n")
    assert "taken by something else" in refusal(FileExistsError, folder, REPO, "space")
