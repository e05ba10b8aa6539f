"""Whole runs on long-tailed digits: what they leave, what they depend on, and what they refuse."""

import json

import pytest
import torch
from timm import create_model

from osdtw_models.load import load_model
from osdtw_models.zoo import CIFAR_MEAN, CIFAR_STD
from osdtw_training import data, responses
from osdtw_training.checks import check
from osdtw_training.data import load_data
from osdtw_training.networks import new_network
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Warmup
from osdtw_training.values import from_values

ONCE = {"warmup": Warmup(1, 0.05), "tasks": Schedule(1, 0.02), "joint": Joint(1, 0.02), "refit": Refit(1, 0.01)}
FIXED = {"shared_depth": 4, "task_weights": (0.4, 0.6)}


def assert_same_weights(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.fixture
def train(tiny, tmp_path, no_figures):
    def train(**changes):
        return run_recipe(tiny(**{**ONCE, **changes}), tmp_path / "run")

    return train


def test_a_run_leaves_everything_that_its_folder_promises(finished):
    left = {path.name for path in finished.folder.iterdir()}
    assert left >= {"recipe.json", "images.json", "metrics.jsonl", "plan.json", "results.json", "checkpoints"}
    assert left >= {"config.json", "model.safetensors", "learning_curves.png", "class_accuracy.png", "proxy_depth.png"}
    assert not [name for name in left if name.startswith(".")]
    assert all((finished.folder / name).stat().st_size > 5000 for name in left if name.endswith(".png"))


def test_the_metrics_have_every_epoch_once(finished):
    rows = [json.loads(line) for line in (finished.folder / "metrics.jsonl").read_text().splitlines()]
    halves = ("half0_task0", "half0_task1", "half1_task0", "half1_task1")
    names = ("warmup", "task0", "task1", *halves, "joint", "refit")
    expected = [(stage, epoch) for stage in names for epoch in (0, 1)]
    assert [(row["stage"], row["epoch"]) for row in rows] == expected


def test_the_results_have_every_number_and_what_it_depends_on(finished, tiny):
    results = json.loads((finished.folder / "results.json").read_text())
    assert results == json.loads(json.dumps(finished.results))
    plan = json.loads((finished.folder / "plan.json").read_text())
    stated = ("source", "shared_depth", "task_weights", "level_calibrated", "why")
    assert results["plan"] == {key: plan[key] for key in stated}
    assert (results["blocks"], results["image_size"]) == (finished.network.num_blocks, [16, 16])
    assert (results["method"], results["model"], results["seed"]) == ("osdtw", "osdtw_resnet14", 0)
    assert results["passes"] == tiny().passes() == 14
    assert results["parameters"] == sum(p.numel() for p in finished.network.parameters())
    assert torch.__version__.startswith(results["versions"]["torch"].partition("+")[0])
    assert results["hardware"]["threads"] == 1
    images = load_data(tiny())
    assert results["training_counts"] == images.counts
    assert results["class_counts"] == images.group_counts
    each = [
        100 * float((predict(finished, images.test)[images.test.labels == c] == c).double().mean()) for c in range(10)
    ]
    assert results["test"]["per_class"] == pytest.approx(each, abs=0.01)
    assert results["test"]["balanced"] == pytest.approx(sum(each) / 10, abs=0.01)
    assert results["test"]["few"] == pytest.approx(sum(each[5:]) / 5, abs=0.01)  # classes of fewer than 20 images
    assert results["holdout"]["per_class"][9] is None  # two images: none to spare


def predict(result, images):
    mean, std = (torch.tensor(value).view(1, 3, 1, 1) for value in (CIFAR_MEAN, CIFAR_STD))
    with torch.no_grad():
        return result.network((images.images.float() / 255 - mean) / std).argmax(1)


def test_the_images_are_listed_with_their_digests(finished, tiny):
    listed, images = json.loads((finished.folder / "images.json").read_text()), load_data(tiny())
    assert [row["index"] for row in listed["train"]] == images.train_indices
    assert [row["sha256"] for row in listed["holdout"]] == images.holdout.digests()
    assert [row["label"] for row in listed["train"]] == images.train.labels.tolist()
    assert listed["counts"] == images.group_counts


def test_the_recipe_is_kept_as_it_ran(finished, tiny):
    assert from_values(Recipe, json.loads((finished.folder / "recipe.json").read_text())) == tiny()


def load_by_timm(folder):
    return create_model(f"local-dir:{folder}", pretrained=True).eval()


@pytest.mark.parametrize("load", [load_model, load_by_timm])
def test_the_saved_folder_gives_the_trained_network(finished, load):
    loaded = load(finished.folder)
    assert_same_weights(loaded.state_dict(), finished.network.state_dict())
    images = torch.randn(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    loaded = loaded.to(memory_format=torch.channels_last)
    assert torch.equal(loaded(images), finished.network(images))
    assert loaded.class_counts == finished.results["class_counts"]
    assert loaded.pretrained_cfg["input_size"] == (3, 16, 16)
    assert list(loaded.pretrained_cfg["label_names"]) == [str(c) for c in range(10)]


@pytest.mark.usefixtures("no_figures")
def test_the_same_seed_gives_the_same_weights_whatever_the_test_images(finished, tiny, tmp_path, monkeypatch):
    read = data.read_images

    def poisoned(source, split, *args, **named):
        images = read(source, split, *args, **named)
        if split == "test":
            images.images.random_(0, 256)
            images.labels.fill_(3)
        return images

    monkeypatch.setattr(data, "read_images", poisoned)
    again = run_recipe(tiny(), tmp_path / "run")
    assert_same_weights(again.network.state_dict(), finished.network.state_dict())
    assert again.results["test"] != finished.results["test"]
    assert again.results["holdout"] == finished.results["holdout"]


def test_another_seed_gives_other_images_and_weights(tiny):
    partition = check(tiny(), load_data(tiny()))
    first, second = (new_network(tiny(seed=seed), partition).state_dict() for seed in (0, 1))
    assert not torch.equal(first["encoder.block1.conv1.weight"], second["encoder.block1.conv1.weight"])
    assert load_data(tiny()).train_indices != load_data(tiny(seed=1)).train_indices


@pytest.mark.parametrize("tasks", [1, 3])
def test_any_number_of_tasks_runs_to_its_end(train, tasks):
    result = train(num_tasks=tasks)
    assert result.network.partition.num_tasks == tasks
    assert result.results["passes"] == 3 + 2 * tasks
    assert 0 <= result.results["plan"]["shared_depth"] <= 7
    assert sum(result.results["plan"]["task_weights"]) == pytest.approx(1)
    assert len(result.results["plan"]["task_weights"]) == tasks
    assert_same_weights(load_model(result.folder).state_dict(), result.network.state_dict())


def test_a_given_plan_skips_the_search(train, monkeypatch):
    monkeypatch.setattr(responses, "measure", lambda *args, **kwargs: pytest.fail("measured"))
    result = train(**FIXED)
    assert result.network.shared_depth == 4
    assert result.results["plan"] == {"source": "recipe", "shared_depth": 4, "task_weights": [0.4, 0.6]}
    assert not (result.folder / "checkpoints" / "statistics.safetensors").exists()


def test_offsets_are_saved_with_a_network_that_needs_them(train):
    result = train(**FIXED, none_weights=False, refit=Refit(decoders="tasks"))
    loaded = load_model(result.folder)
    assert [len(offsets) for offsets in loaded.logit_offsets] == [6, 6]
    assert all(torch.equal(a, b) for a, b in zip(loaded.logit_offsets, result.network.logit_offsets, strict=True))
    images = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(loaded(images), result.network(images), rtol=1e-5, atol=1e-5)
    assert '"refit"' not in (result.folder / "metrics.jsonl").read_text()


def test_balanced_softmax_is_one_plain_network_judged_by_the_same_tasks(train):
    result = train(method="balanced_softmax", train=Schedule(2, 0.05))
    assert result.network.partition.num_tasks == 1
    assert "plan" not in result.results
    assert {"head", "tail", "task_right"} <= result.results["test"].keys()


def test_a_run_is_resumed_with_its_own_recipe_only(finished, tiny, no_figures):
    with pytest.raises(FileExistsError, match="--resume"):
        run_recipe(tiny(), finished.folder)
    with pytest.raises(ValueError, match="was begun with another joint, seed; resume it unchanged"):
        run_recipe(tiny(seed=1, joint=Joint(3, 0.02)), finished.folder, resume=True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_tasks": 11}, "10 classes cannot be split into 11 tasks"),
        ({"method": "balanced_softmax"}, r"trains for 0 epochs; set epochs in \[train\]"),
        ({"head_threshold": 1000}, "Threshold 1000 leaves the head task empty"),
    ],
)
def test_what_cannot_work_is_refused_before_there_is_a_folder(train, tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        train(**changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"shared_depth": 8}, {"task_weights": (0.2, 0.3, 0.5)}, {"num_tasks": 3, "fusion": "pool"}]
)
def test_a_plan_that_does_not_fit_is_refused_before_there_is_a_folder(train, tmp_path, changes):
    with pytest.raises(ValueError, match=r"shared_depth is 8|3 task_weights|'pool'"):
        train(**changes)
    assert not (tmp_path / "run").exists()
