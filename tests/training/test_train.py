"""Training from Python: the same run as by the command, fields as strict as in a recipe file."""

import json

import pytest
import torch

from osdtw_training import train
from osdtw_training.cli import train as command

SHORT = {"img_size": 16, "imbalance_factor": 20, "holdout": 0.1}
STAGES = {"warmup": {"epochs": 2}, "tasks": {"epochs": 1}, "joint": {"epochs": 1}, "refit": {"epochs": 1}}


def test_it_is_the_run_of_the_command(tmp_path, no_figures):
    plan = {"shared_depth": 7, "task_weights": [0.5, 0.5]}
    run = train("digits", tmp_path / "python", "small_images", model="osdtw_resnet14", **SHORT, **STAGES, **plan)
    words = ["small_images", "--data", "digits", "--output", str(tmp_path / "command"), "--model", "osdtw_resnet14"]
    words += [f"--{name.replace('_', '-')}={value}" for name, value in {**SHORT, "shared_depth": 7}.items()]
    words += [f"--{stage}.epochs={value['epochs']}" for stage, value in STAGES.items()]
    assert command([*words, "--task-weights", "0.5", "0.5"]) == 0
    other = json.loads((tmp_path / "command" / "results.json").read_text())
    assert run.results["test"] == other["test"]
    assert run.results["command"] == other["command"]
    assert run.results["command"].startswith("osdtw-train small_images --model osdtw_resnet14 --data digits --imb")
    assert run.folder == tmp_path / "python"
    assert run.network(torch.zeros(1, 3, 16, 16)).shape == (1, 10)


def test_what_practitioners_ask_for_are_keywords(tmp_path, no_figures):
    weights = tmp_path / "weights.csv"
    weights.write_text("".join(f"{c},{c + 1}\n" for c in range(10)))
    asked = {"class_weights": str(weights), "sampler": "balanced", "eval_metric": "balanced_acc", "broken": "error"}
    method = {"method": "cross_entropy", "train": {"epochs": 2, "lr": 0.05}}
    run = train("digits", tmp_path / "run", "small_images", model="osdtw_resnet14", **SHORT, **method, **asked)
    kept = json.loads((run.folder / "recipe.json").read_text())
    assert {name: kept[name] for name in asked} == asked
    assert run.results["class_weights"] == pytest.approx([2 * (c + 1) / 11 for c in range(10)], rel=1e-4)
    assert run.results["epoch_taken"]["metric"] == "balanced_acc"


def test_the_run_lands_under_the_name_of_its_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="No folder"):
        train("birds", recipe="small_images")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"epochs": 3}, "unknown key 'epochs'"),
        ({"warmup": {"epoch": 3}}, r"unknown key 'warmup\.epoch'"),
        ({"seed": "one"}, "'seed' must be of type int"),
        ({"warmup": 3}, "'warmup' must be a table"),
    ],
)
def test_fields_are_as_strict_as_in_a_file(fields, said):
    with pytest.raises(ValueError, match=said):
        train("digits", recipe="small_images", **fields)
