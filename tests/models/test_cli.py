"""The door osdtw-eval: what it prints and how it refuses."""

import json

import pytest
import torch
from PIL import Image
from timm.models import save_for_hf

from osdtw_models import create_model
from osdtw_models.cli import evaluate
from osdtw_models.datasets import read_images
from osdtw_models.evaluation import evaluate_logits, predict_images

COUNTS = [500, 300, 120, 110, 90, 50, 30, 19, 5, 2]


def saved(folder, counts):
    torch.manual_seed(0)
    overlay = {"input_size": (3, 16, 16), "num_classes": len(counts)}
    arguments = {"num_classes": len(counts), "class_counts": counts, "pretrained_cfg_overlay": overlay}
    model = create_model("osdtw_resnet14", **arguments).eval()
    names = [str(c) for c in range(len(counts))]
    save_for_hf(model, folder, model_config={"label_names": names}, safe_serialization=True)
    return model


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return saved(tmp_path / "run", COUNTS)


def refusal(capsys, *argv: str) -> str:
    """The one sentence on stderr with which the door refuses."""
    assert evaluate(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.startswith("osdtw-eval: ")
    assert err.count("\n") == 1
    return err


def test_it_prints_the_figures_of_the_test_images(run, capsys):
    images = read_images("digits", "test", 16)
    expected = dict(evaluate_logits(predict_images(run, images.images), images.labels, run.partition, COUNTS))
    assert evaluate(["run", "--data", "digits", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found.pop("source"), found.pop("data"), found.pop("images")) == ("run", "digits", 600)
    assert found.pop("broken_images_left_out") == 0
    assert found == pytest.approx(expected, rel=1e-5)
    assert evaluate(["run", "--data", "digits", "--batch-size", "7"]) == 0
    out = capsys.readouterr().out
    assert "run on 600 test images of digits" in out
    for name, value in expected.items():
        assert f"{name:<12}{value:8.2f}" in out


def test_training_images_must_be_asked_for(run, capsys):
    assert evaluate(["run", "--data", "digits", "--split", "train", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 1197


def test_an_empty_group_is_a_dash_and_still_json(tmp_path, capsys):
    saved(tmp_path / "run", [500] * 10)

    def refuse(word):
        raise AssertionError(word)

    assert evaluate([str(tmp_path / "run"), "--data", "digits", "--json"]) == 0
    json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert evaluate([str(tmp_path / "run"), "--data", "digits"]) == 0
    out = capsys.readouterr().out
    assert "nan" not in out
    assert "  few                -\n" in out


def test_a_prior_that_rules_classes_out_is_still_json(run, tmp_path, capsys):
    (tmp_path / "prior").write_text("\n".join(["0", *["1"] * 9]))
    assert evaluate(["run", "--data", "digits", "--json", "--prior", "prior"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["nll"] is None


def test_a_network_of_gray_images_is_refused_in_one_sentence(tmp_path, capsys):
    save_for_hf(create_model("osdtw_resnet14", num_classes=10, in_chans=1), tmp_path / "gray", safe_serialization=True)
    assert "square RGB images" in refusal(capsys, str(tmp_path / "gray"), "--data", "digits")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("run", "the following arguments are required: --data"),
        ("run --data digits --split holdout", "invalid choice: 'holdout'"),
        ("run --data digits --split val", "digits has no validation images"),
        ("run --data digits --batch-size 0", "--batch-size is 0; it must be at least 1"),
        ("run --data digits --batch-size many", "invalid int value"),
        ("none --data digits", "There is no folder 'none'"),
        ("run --data birds", "No folder birds"),
        ("run --data cifar100 --data-dir birds", "No folder birds"),
        ("run --data two", "two has 2 classes but run knows 10"),
        ("run --data train-only", "has train/ but neither test/ nor val/"),
    ],
)
def test_it_refuses_in_one_sentence(run, tmp_path, capsys, options, said):
    for place in ("two/test/a", "two/train/a", "two/test/b", "two/train/b", "train-only/train/a"):
        (tmp_path / place).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / place / "0.png")
    assert said in refusal(capsys, *options.split())


def test_other_classes_of_the_same_number_are_refused(run, tmp_path, capsys):
    for name in "abcdefghij":
        (tmp_path / "letters" / "test" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "letters" / "test" / name / "0.png")
    assert "'a'" in refusal(capsys, "run", "--data", "letters/test")


def test_debug_shows_the_error_itself(run):
    with pytest.raises(FileNotFoundError, match="No folder birds"):
        evaluate(["run", "--data", "birds", "--debug"])


def test_help_has_examples(capsys):
    with pytest.raises(SystemExit) as stopped:
        evaluate(["--help"])
    assert stopped.value.code == 0
    assert "examples:\n  osdtw-eval osdtw_resnet32 --data cifar100" in capsys.readouterr().out
