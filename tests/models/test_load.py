"""Names, folders and repositories lead to the same network; damaged or foreign files to one sentence."""

import json
import pickle
import shutil
from hashlib import sha256

import pytest
import torch
from timm.models import save_for_hf

from osdtw_models import create_model, hub, load
from osdtw_models.checksums import write_sums
from osdtw_models.load import load_model

RELEASE = "osdtw_resnet32.cifar100_lt_if100"
TASKS = [[7, 0, 2, 9], [1, 3, 4, 5, 6, 8]]


def saved(folder, **kwargs):
    """A trained run as training leaves it."""
    torch.manual_seed(0)
    model = create_model("osdtw_resnet14", **{"num_classes": 10, "task_classes": TASKS, **kwargs}).eval()
    save_for_hf(model, folder, model_config={"label_names": list("abcdefghij")}, safe_serialization=True)
    return model


@pytest.fixture
def run(tmp_path):
    saved(tmp_path / "run")
    return tmp_path / "run"


def refusal(source, error=ValueError) -> str:
    """The sentence with which a source is refused."""
    with pytest.raises(error) as caught:
        load_model(source)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def edit_config(run, **changes):
    config = json.loads((run / "config.json").read_text())
    config.update(changes)
    (run / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    "plan",
    [
        {"shared_depth": 0, "fusion": "valid"},
        {"shared_depth": 7, "fusion": "pool"},
        {"task_classes": [list(range(10))]},
        {"logit_offsets": [[0.5, -1.0, 0.0, 2.0, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -0.7]]},
    ],
)
def test_a_folder_gives_back_the_network_that_was_saved(tmp_path, plan):
    model, images = saved(tmp_path, **plan), torch.randn(2, 3, 32, 32)
    loaded = load_model(tmp_path)
    assert not loaded.training
    assert loaded.model_args() == model.model_args()
    assert torch.equal(loaded(images), model(images))


def test_a_folder_may_be_a_path_a_string_or_timms_form_and_keeps_its_labels(run, monkeypatch):
    monkeypatch.chdir(run.parent)
    for source in (run, str(run), "run", "./run/", f"local-dir:{run}"):
        assert list(load_model(source).pretrained_cfg["label_names"]) == list("abcdefghij")


def test_a_released_name_comes_before_a_folder_of_that_name(run, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "_released_folder", {"osdtw_resnet32": run}.get)
    monkeypatch.chdir(tmp_path)
    saved(tmp_path / "osdtw_resnet32", task_classes=[list(range(10))])
    assert load_model("osdtw_resnet32").partition.num_tasks == 2
    assert load_model("./osdtw_resnet32").partition.num_tasks == 1


def test_released_names_load_as_timm_loads_them():
    expected = create_model("osdtw_resnet32", pretrained=True).eval().state_dict()
    for name in ("osdtw_resnet32", RELEASE):
        loaded = load_model(name).state_dict()
        assert all(torch.equal(value, expected[key]) for key, value in loaded.items())


def test_released_weights_that_are_not_installed_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(load, "_released_folder", lambda name: tmp_path / "gone")
    assert "osdtw_resnet32 are not in this installation" in refusal("osdtw_resnet32", FileNotFoundError)


def test_a_repository_loads_from_the_folder_it_was_fetched_to(run, monkeypatch):
    asked = []

    def fetch(name, revision, allow_patterns, cache_dir):
        asked.append((name, revision, allow_patterns))
        return str(run)

    monkeypatch.setattr(hub, "snapshot_download", fetch)
    assert load_model("hf-hub:org/name").partition.to_lists() == TASKS
    assert load_model("hf-hub:org/name@v1").partition.to_lists() == TASKS
    files = ["config.json", "model.safetensors"]
    assert asked == [("org/name", None, files), ("org/name", "v1", files)]


def test_an_unreachable_repository_is_one_sentence(monkeypatch):
    def fail(*args, **kwargs):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(hub, "snapshot_download", fail)
    sentence = refusal("hf-hub:org/name", ConnectionError)
    assert "cannot be reached, or the connection was cut (no network); check the network" in sentence
    assert "hf-hub:org/name" in sentence


def test_an_unknown_name_lists_the_known_ones(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for source in ("resnet50", "osdtw_resnet33", "runs/none", tmp_path / "none"):
        assert RELEASE in refusal(source, FileNotFoundError)


@pytest.mark.parametrize("name", ["osdtw_resnet14", "osdtw_resnet32.imagenet_lt"])
def test_a_network_without_released_weights_says_so(name):
    assert "no released weights" in refusal(name)
    assert RELEASE in refusal(name)


def test_a_file_in_place_of_a_folder_says_so(run):
    assert "is a file; give the folder" in refusal(run / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    assert f"has no {name}" in refusal(run, FileNotFoundError)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


def test_pickles_are_never_opened(run):
    trap = pickle.dumps(Trap())
    for name in ("pytorch_model.bin", "model.pth", "weights.pth.tar"):
        (run / name).write_bytes(trap)
    load_model(run)
    (run / "model.safetensors").write_bytes(trap)
    assert "damaged or cut short" in refusal(run)
    (run / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(run, FileNotFoundError)


def test_a_flipped_bit_is_found_where_sums_lie_beside_the_files(run):
    names = ("model.safetensors", "config.json")
    write_sums(run, names)
    load_model(run)
    sums = dict(reversed(line.split("  ")) for line in (run / "SHA256SUMS").read_text().splitlines())
    assert sums == {name: sha256((run / name).read_bytes()).hexdigest() for name in names}
    for name in (*names, "SHA256SUMS"):
        whole = (run / name).read_bytes()
        places = range(len(whole)) if name == "SHA256SUMS" else (0, len(whole) // 2, len(whole) - 1)
        flipped = [whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :] for place in places]
        for damaged in (*flipped, whole[:-1]):
            (run / name).write_bytes(damaged)
            assert "is not the file that SHA256SUMS beside it speaks of" in refusal(run)
        (run / name).write_bytes(whole)
    load_model(run)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.99])
def test_weights_that_were_cut_short_are_refused(run, share):
    whole = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").write_bytes(whole[: int(len(whole) * share)])
    assert "model.safetensors is damaged or cut short" in refusal(run)


@pytest.mark.parametrize(
    "other",
    [
        {"task_classes": [TASKS[1], TASKS[0]]},
        {"task_classes": [list(range(10))]},
        {"num_classes": 12, "task_classes": None},
    ],
)
def test_weights_of_another_partition_are_refused(run, tmp_path, other):
    saved(tmp_path / "other", **other)
    shutil.copy(tmp_path / "other" / "model.safetensors", run)
    assert "do not fit each other" in refusal(run)


def test_weights_that_share_fewer_blocks_are_refused(run, tmp_path):
    saved(tmp_path / "other", shared_depth=2)
    shutil.copy(tmp_path / "other" / "model.safetensors", run)
    assert "shares 2 blocks" in refusal(run)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[]", b"null", b"{}", b'{"architecture": 3}', b"[" * 100_000]
)
def test_a_config_that_is_none_is_refused(run, content):
    (run / "config.json").write_bytes(content)
    assert "config.json" in refusal(run)


@pytest.mark.parametrize("name", ["resnet18", "osdtw_resnet999", "osdtw", None])
def test_a_config_of_another_family_is_refused(run, name):
    edit_config(run, architecture=name)
    assert "is not an OSDTW network: osdtw_" in refusal(run)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"no_such": 1}},
        {"model_args": {"features_only": True}},
        {"model_args": {"checkpoint_path": "evil.pth"}},
        {"model_args": {"task_classes": [[0, 0]]}},
        {"model_args": {"task_classes": "abc"}},
        {"model_args": 7},
        {"num_classes": -1},
        {"num_classes": 5},
        {"model_args": {"num_classes": 5, "task_classes": TASKS}},
        {"model_args": {"num_classes": 0, "task_classes": TASKS}},
        {"num_classes": "ten"},
        {"pretrained_cfg": 7},
        {"pretrained_cfg": {"no_such": 1}},
    ],
)
def test_a_config_that_makes_no_sense_is_one_sentence(run, changes):
    edit_config(run, **changes)
    refusal(run)


def test_a_config_cannot_send_timm_to_other_weights(run, tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Trap()))
    config = json.loads((run / "config.json").read_text())["pretrained_cfg"]
    for elsewhere in (
        {"file": str(tmp_path / "evil.pth")},
        {"url": (tmp_path / "evil.pth").as_uri(), "source": "url"},
        {"hf_hub_id": "org/evil", "source": "hf-hub", "custom_load": True},
    ):
        edit_config(run, pretrained_cfg={**config, **elsewhere})
        assert load_model(run).partition.to_lists() == TASKS
