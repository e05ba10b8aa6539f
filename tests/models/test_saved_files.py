"""A config is held against its weights before anything is built of it."""

import json
import os
import pickle

import pytest
from families import FOREIGN, plain
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf

from osdtw_models import create_model, decouple
from osdtw_models.load import load_model
from osdtw_models.names import printable
from osdtw_models.pixels import MAX_RATIO, open_image
from osdtw_models.predict import Predictor


@pytest.fixture
def run(tmp_path):
    model = create_model("osdtw_resnet14", num_classes=6, widths=(4, 8, 16)).eval()
    save_for_hf(model, tmp_path / "run", model_config={"label_names": list("abcdef")}, safe_serialization=True)
    return tmp_path / "run"


def refusal(run, **changes):
    """The sentence with which changed tables of a config are refused."""
    config = json.loads((run / "config.json").read_text())
    for name, value in changes.items():
        config[name] = {**config[name], **value} if isinstance(value, dict) else value
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the sentence is compared by whoever asks)
        load_model(run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Trap:
    def __reduce__(self):
        return pytest.fail, ("a pickle was opened",)


@pytest.mark.parametrize("word", ["checkpoint_path", "pretrained", "pretrained_cfg_overlay", "cache_dir", "pruned"])
def test_a_config_cannot_steer_timms_factory_not_even_through_the_backbone(run, tmp_path, word):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Trap()))
    value = str(tmp_path / "evil.pth")
    said = refusal(run, architecture="osdtw_resnet10", model_args={"backbone_args": {word: value}, "widths": None})
    assert f"asks timm's factory for '{word}'" in said


@pytest.mark.parametrize("word", ["fixed", "named", "levels", "timm_name", "backbone_pretrained", "kernel_size"])
def test_a_config_says_nothing_but_arguments_of_networks(run, tmp_path, word):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Trap()))
    overlay = {"pretrained": True, "pretrained_cfg_overlay": {"file": str(tmp_path / "evil.pth")}}
    said = refusal(run, architecture="osdtw_resnet18", model_args={word: overlay, "widths": None})
    assert f"has the argument '{word}', which OSDTW networks do not have" in said


@pytest.mark.parametrize("name", ["hf-hub:org/evil", "local-dir:evil", "no_such", 7])
def test_a_config_names_backbones_that_timm_knows_and_no_others(run, name):
    assert "which timm does not know" in refusal(run, architecture="osdtw_timm", model_args={"backbone": name})


@pytest.mark.parametrize(
    "changes",
    [
        {"model_args": {"widths": [4, 8, 10**6]}},
        {"model_args": {"in_chans": 10**9}},
        {"num_classes": 10**9},
        {"model_args": {"num_classes": 10**9}},
        {"architecture": "osdtw_resnet110"},
    ],
)
def test_a_network_larger_than_its_weights_is_refused_before_it_is_built(run, changes):
    assert "do not fit each other" in refusal(run, **changes)


def test_tasks_and_depth_count_in_a_networks_size(run):
    """A name of its own says nothing of how many decoders there are; sixty of ResNet-110 take 400 MB."""
    changes = {"widths": None, "shared_depth": 0, "fusion": "mean", "task_classes": [list(range(6))] * 60}
    assert "a network of 1" in refusal(run, architecture="osdtw_resnet110", model_args=changes)


def test_more_tasks_than_tensors_are_refused_before_they_are_built(run):
    changes = {"fusion": "mean", "task_classes": [list(range(6))] * 10**4}
    assert "has 10000 tasks, more than" in refusal(run, model_args=changes)


def test_weights_that_do_not_say_how_many_classes_they_are_of_are_refused(run):
    tensors = load_file(run / "model.safetensors")
    del tensors["class_position"]
    save_file(tensors, run / "model.safetensors")
    assert "lack class_position" in refusal(run, num_classes=10**9, model_args={"num_classes": 10**9})


def test_more_blocks_than_tensors_are_refused_before_they_are_built(run):
    changes = {"backbone_args": {"layers": [1, 1, 10**5, 1]}, "widths": None}
    assert "layers 100000, more than" in refusal(run, architecture="osdtw_resnet50", model_args=changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("input_size", [3, 10**6, 10**6]),
        ("input_size", [3, 0, 0]),
        ("mean", [0.5, float("nan"), 0.5]),
        ("std", [1, 1, 0]),
        ("std", [1]),
        ("crop_pct", "1"),
        ("crop_pct", 1e-9),
        ("interpolation", 3),
        ("crop_mode", "squash"),
    ],
)
def test_images_that_no_network_takes_are_refused(run, field, value):
    assert field in refusal(run, pretrained_cfg={field: value})


@pytest.mark.parametrize("names", [["a"], [*"abcde", 3], "abcdef", [*"abcde", "\x1b]0;owned\x07"]])
def test_labels_are_one_printable_name_a_class(run, names):
    assert "config.json has" in refusal(run, label_names=names)


def test_a_header_is_not_read_at_any_length(run):
    tensors = load_file(run / "model.safetensors")
    save_file(tensors, run / "model.safetensors", metadata={"x": "x" * (17 << 20)})
    with pytest.raises(ValueError, match="header of more than 16 MB"):
        load_model(run)


def test_networks_of_other_images_load_but_do_not_classify_pictures(tmp_path):
    model = create_model("osdtw_resnet14", num_classes=6, widths=(4, 8, 16), in_chans=1).eval()
    save_for_hf(model, tmp_path, safe_serialization=True)
    assert load_model(tmp_path).in_chans == 1
    with pytest.raises(ValueError, match="square RGB images"):
        Predictor(tmp_path)


@pytest.mark.parametrize("family", FOREIGN)
def test_every_family_is_measured_without_memory(family, tmp_path):
    """What `decouple` saves comes back: shapes alone can be built of timm's models."""
    save_for_hf(decouple(plain(family)), tmp_path, safe_serialization=True)
    assert load_model(tmp_path).num_classes == 6


def test_pipes_and_strips_are_no_pictures(tmp_path):
    from PIL import Image

    os.mkfifo(tmp_path / "pipe.png")
    Image.new("L", (MAX_RATIO + 1, 1)).save(tmp_path / "strip.png")
    Image.new("L", (MAX_RATIO, 1)).save(tmp_path / "long.png")
    for name, said in (("pipe", "there is no such file"), ("strip", "are a strip")):
        with pytest.raises(ValueError, match=said):
            open_image(tmp_path / f"{name}.png")
    assert open_image(tmp_path / "long.png").size == (MAX_RATIO, 1)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("plain é 猫", "plain é 猫"),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\udcff.png", "\\udcff.png"),
        ("a\u200c", "a\u200c"),
    ],
)
def test_names_are_shown_on_one_line(name, shown):
    assert printable(name) == shown
    shown.encode()
