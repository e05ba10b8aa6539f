"""Fetching from a Hub on loopback through its own client: what was published arrives, or a sentence says why not."""

import json
import pickle
from hashlib import sha256
from pathlib import Path

import pytest
import timm
import torch
from timm.models import save_for_hf

from osdtw_models import releases
from osdtw_models.hub import fetch
from osdtw_models.load import load_model

REPO = "org/birds"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, make_network):
    """A trained network, as training saves it."""
    folder = tmp_path_factory.mktemp("birds")
    save_for_hf(make_network(task_classes=[[7, 0, 2, 9], [1, 3, 4, 5, 6, 8]]), folder, safe_serialization=True)
    return folder


@pytest.fixture
def birds(hub, trained):
    """The repository of a run, and the network in it."""
    hub.create(REPO, {name: (trained / name).read_bytes() for name in ("config.json", "model.safetensors")})
    return load_model(trained)


def refusal(repository, error=OSError) -> str:
    with pytest.raises(error) as caught:
        fetch(repository)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "org/" in sentence
    assert sentence.endswith(".")
    return sentence


def same(one, other):
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_a_repository_gives_back_the_network_and_only_two_files_are_asked_for(hub, birds):
    hub.repositories["model", REPO].commit({**hub.files(REPO), "pytorch_model.bin": pickle.dumps(print)})
    assert same(load_model(f"hf-hub:{REPO}"), birds)
    assert {line.rpartition("/")[2] for line in hub.asked("resolve")} == {"config.json", "model.safetensors"}


def test_a_revision_is_what_it_was(hub, birds):
    old = hub.commits(REPO)[-1]
    hub.repositories["model", REPO].commit({**hub.files(REPO), "model.safetensors": b"other"})
    assert same(load_model(f"hf-hub:{REPO}@{old}"), birds)
    assert "no such revision" in refusal(f"{REPO}@{'0' * 7}")


def test_timms_own_door_fetches_by_ours_and_opens_no_pickle(hub, birds):
    assert same(timm.create_model(f"hf-hub:{REPO}", pretrained=True), birds)
    config = hub.files(REPO)["config.json"]
    hub.create("org/pickled", {"config.json": config, "pytorch_model.bin": pickle.dumps(birds.state_dict())})
    with pytest.raises(FileNotFoundError, match=r"org/pickled has no model\.safetensors, and no other weights"):
        timm.create_model("hf-hub:org/pickled", pretrained=True)
    assert not hub.asked("pytorch_model.bin")


def test_a_warm_cache_needs_no_network_and_a_cold_one_says_so(hub, birds, monkeypatch):
    load_model(f"hf-hub:{REPO}")
    asked = len(hub.log)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert same(load_model(f"hf-hub:{REPO}"), birds)
    assert same(timm.create_model(f"hf-hub:{REPO}", pretrained=True), birds)
    sentence = refusal("org/other", FileNotFoundError)
    assert "not in the cache" in sentence
    assert "HF_HUB_OFFLINE forbids the network; unset it" in sentence
    assert len(hub.log) == asked


def test_a_hub_that_cannot_be_reached_is_named(hub, birds, monkeypatch):
    load_model(f"hf-hub:{REPO}")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert same(load_model(f"hf-hub:{REPO}"), birds)
    assert "http://127.0.0.1:9) cannot be reached" in refusal("org/other", ConnectionError)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "does not accept the token"),
        (403, "no right to read"),
        (429, "too many requests"),
        (500, "has trouble"),
        (418, "refuses hf-hub:org/birds (Client error '418 I'm a Teapot'"),
    ],
)
@pytest.mark.parametrize("step", ["GET /api/models", "GET .*safetensors"])
def test_every_refusal_is_a_sentence_and_the_next_try_succeeds(hub, birds, step, status, words):
    hub.fail(step, status)
    assert words in refusal(REPO)
    hub.faults.clear()
    assert same(load_model(f"hf-hub:{REPO}"), birds)


def test_what_does_not_exist_or_is_private_looks_the_same(hub, birds, monkeypatch):
    hub.repositories["model", REPO].private = True
    assert same(load_model(f"hf-hub:{REPO}"), birds)
    monkeypatch.setenv("HF_TOKEN", "reader")
    assert "There is no hf-hub:org/none on the Hub, or it is private" in refusal("org/none")
    for name in ("org/bad--name", "org/two\nlines"):
        assert "is no name on the Hub" in refusal(name)


def test_a_connection_cut_inside_a_file_goes_on_from_there(hub, birds):
    hub.fail("GET .*safetensors", "cut", times=2)
    assert same(load_model(f"hf-hub:{REPO}"), birds)


def test_a_connection_that_stays_cut_is_a_sentence_and_leaves_no_half_file(hub, birds):
    hub.fail("GET /org/birds/resolve/.*config.json", "cut")
    hub.files(REPO)["config.json"] = b"{}"  # of which half is one byte, and half of that none
    assert "cut" in refusal(REPO, ConnectionError)


def test_weights_that_are_not_the_announced_ones_are_removed_and_fetched_again(hub, birds):
    true = hub.files(REPO)["model.safetensors"]
    hub.forged["model.safetensors"] = true[:-4] + b"\0\0\0\1"
    sentence = refusal(REPO)
    assert "is not the announced file" in sentence
    assert "fetch it again" in sentence
    hub.forged.clear()
    assert same(load_model(f"hf-hub:{REPO}"), birds)


class TestRelease:
    """A release on the Hub whose weights are not in the package."""

    NAME = "osdtw_resnet14.birds"

    @pytest.fixture
    def release(self, hub, birds, trained, tmp_path, monkeypatch):
        folder = tmp_path / "weights" / self.NAME
        folder.mkdir(parents=True)
        monkeypatch.setattr(releases, "RELEASES", folder.parent)
        self.record(hub, folder, (trained / "model.safetensors").read_bytes())
        (folder / "config.json").write_bytes((trained / "config.json").read_bytes())
        return folder

    @staticmethod
    def record(hub, folder, weights):
        values = {
            "hf_hub_id": REPO,
            "revision": hub.commits(REPO)[0],
            "sha256": sha256(weights).hexdigest(),
        }
        (folder / "hub.json").write_text(json.dumps(values))

    @pytest.fixture
    def named(self, release, monkeypatch):
        """The name as timm's registry has it after the next start."""
        cfg = timm.models.get_pretrained_cfg("osdtw_resnet14").to_dict()
        cfg |= {**releases.weight_sources(self.NAME), "num_classes": 10, "tag": "birds"}
        known = timm.models.PretrainedCfg(**cfg)
        monkeypatch.setitem(timm.models._registry._model_pretrained_cfgs, self.NAME, known)
        return known

    def test_its_name_carries_repository_and_commit(self, hub, release):
        assert releases.record(self.NAME).sha256
        pinned = f"{REPO}@{hub.commits(REPO)[0]}"
        assert releases.weight_sources(self.NAME) == {"hf_hub_id": pinned}
        (release / "model.safetensors").touch()
        assert releases.weight_sources(self.NAME) == {
            "file": str(release / "model.safetensors"),
            "hf_hub_id": pinned,
        }
        (release / "hub.json").unlink()
        assert releases.record(self.NAME) is None
        assert releases.weight_sources(self.NAME) == {"file": str(release / "model.safetensors")}

    def test_its_weights_come_from_that_commit(self, hub, birds, named):
        hub.repositories["model", REPO].commit({**hub.files(REPO), "model.safetensors": b"newer"})
        assert same(load_model(self.NAME), birds)
        model = timm.create_model(self.NAME, pretrained=True)
        assert same(model, birds)
        assert model.partition == birds.partition
        assert Path(model.pretrained_cfg["file"]).name == "model.safetensors"

    def test_other_weights_are_refused(self, hub, release, named):
        self.record(hub, release, b"other weights")
        for load in (load_model, lambda name: timm.create_model(name, pretrained=True)):
            with pytest.raises(
                OSError, match=r"is not the announced file .* removed from the cache; fetch it again\.$"
            ):
                load(self.NAME)
