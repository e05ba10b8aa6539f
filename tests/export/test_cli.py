"""The door: what it says, what it writes, and how it refuses."""

import os
import subprocess
import sys

import pytest
import torch
from timm.models import save_for_hf

from osdtw_export import cli
from osdtw_export.cli import main
from osdtw_export.door import source_name
from osdtw_export.runtime import OnnxClassifier
from osdtw_models import doors, hub, load


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys, *argv: str) -> str:
    """The one sentence on stderr with which the door refuses."""
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.startswith("osdtw-export: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err


def test_a_run_folder_becomes_a_file_of_its_name(exported, here, capfd):
    assert main(["--onnx", str(exported.run)]) == 0
    out, err = capfd.readouterr()
    assert err == ""  # the exporter's chatter stays inside
    for said in (
        "osdtw_resnet14, fusion raw",
        "5 of 7 blocks shared",
        "10 in 2 tasks (4 + 6)",
        "logits (batch, 10), logits_task0 (batch, 5), logits_task1 (batch, 7)",
        "MB, opset 20",
        "batch 1 ",
        "batch 3 ",
        "batch 8 ",
        "Packing  grouped\n",
        "pixel_values (batch, 3, 32, 32), float32",
        "Wrote    my_run.onnx",
    ):
        assert said in out
    classifier = OnnxClassifier(here / "my_run.onnx")
    assert classifier.label_names == [f"animal {c}" for c in range(10)]
    assert classifier.metadata.source == "my_run"  # not the path: it tells about the user's machine
    assert classifier.metadata.weights_sha256 == exported.weights_sha256


def test_without_a_source_it_exports_the_packaged_network_and_says_so(exported, here, capsys, monkeypatch):
    monkeypatch.setattr(load, "_released_folder", {"osdtw_resnet32": exported.run}.get)
    assert main(["--onnx", "-o", "out.onnx"]) == 0
    assert "No SOURCE given: exporting the packaged osdtw_resnet32" in capsys.readouterr().out
    assert OnnxClassifier("out.onnx").metadata.source == "osdtw_resnet32"


def test_options_shape_the_file_and_a_lost_packing_is_told(make_network, here, capsys):
    one = make_network(task_classes=[list(range(10))])
    save_for_hf(one, here / "one", safe_serialization=True)
    words = "--pack dense --batch 3 --uint8 --softmax --opset 18 -o one.onnx"
    assert main(["--onnx", str(here / "one"), *words.split()]) == 0
    out = capsys.readouterr().out
    assert "Packing  none instead of dense: there is one task only" in out
    assert "pixel_values (3, 32, 32, 3), uint8" in out
    assert "logits (3, 10), logits_task0 (3, 10), probabilities (3, 10)" in out
    assert "opset 18" in out
    known = OnnxClassifier(here / "one.onnx").metadata
    assert (known.packing, known.batch, known.uint8, known.softmax) == ("none", 3, True, True)


@pytest.mark.parametrize("batch", ["-1", "many", "0"])
def test_a_batch_must_be_a_number_of_images(capsys, batch):
    assert "atch" in refusal(capsys, "--onnx", f"--batch={batch}")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("osdtw_resnet32", "osdtw_resnet32"),
        ("osdtw_resnet32.cifar100_lt_if100", "osdtw_resnet32.cifar100_lt_if100"),
        ("runs/birds/", "birds"),
        ("hf-hub:org/birds", "birds"),
        ("hf-hub:org/birds@v1", "birds"),
    ],
)
def test_the_file_is_named_after_its_source(source, name):
    assert source_name(source) == name


def test_help_teaches_and_needs_no_torch():
    code = (
        "import sys\nfrom osdtw_export.cli import main\n"
        "try: main(['--help'])\nfinally: assert 'torch' not in sys.modules"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, check=True, capture_output=True, text=True)
    assert "examples:" in done.stdout
    assert "osdtw-export --onnx runs/birds -o birds.onnx" in done.stdout


def test_without_a_format_it_asks_for_one(capsys):
    assert refusal(capsys) == "osdtw-export: No format to write; pass --onnx.\n"


def test_an_unknown_option_points_to_the_help(capsys):
    assert "--tensorrt; see osdtw-export --help." in refusal(capsys, "--onnx", "--tensorrt")


def test_a_missing_extra_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setattr(doors, "find_spec", lambda name: None)
    assert "pip install 'osdtw-models[export]'" in refusal(capsys, "--onnx")


def test_an_unknown_source_lists_the_names(here, capsys):
    assert "osdtw_resnet32.cifar100_lt_if100" in refusal(capsys, "--onnx", "nothing")


def test_a_repository_out_of_reach_is_one_sentence(capsys, monkeypatch):
    def offline(*args, **kwargs):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    assert "check the network and try hf-hub:org/name again" in refusal(capsys, "--onnx", "hf-hub:org/name")


def test_a_folder_that_does_not_exist_is_named(exported, here, capsys):
    assert "There is no folder no" in refusal(capsys, "--onnx", str(exported.run), "-o", "no/model.onnx")


def test_an_error_of_the_operating_system_is_one_sentence(capsys, monkeypatch):
    def locked(options):
        raise PermissionError(13, "Permission denied", "model.onnx")

    monkeypatch.setattr(cli, "_export", locked)
    assert refusal(capsys, "--onnx") == ("osdtw-export: model.onnx cannot be read or written: Permission denied.\n")


def test_a_failed_export_leaves_no_file_and_shows_its_trace_only_when_asked(exported, here, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(torch.onnx, "export", fail)
    assert "first line" in refusal(capsys, "--onnx", str(exported.run))
    with pytest.raises(ValueError, match="first line"):
        main(["--onnx", str(exported.run), "--debug"])
    assert list(here.iterdir()) == []
