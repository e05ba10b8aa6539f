"""Which epoch counts: the best on held-out images, later ones of equals, resumed or not; by default the last."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osdtw_training import pipeline
from osdtw_training.batches import Batches
from osdtw_training.data import load_data
from osdtw_training.engine import fit
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Warmup
from osdtw_training.runs import Run
from osdtw_training.selection import LAST, BestEpoch, selection

SHORT = {"train": Schedule(4, 0.1), "refit": Refit(3, 0.05), "imbalance_factor": 10}


@pytest.fixture
def batches(noise, tiny):
    return Batches(noise(labels=[0, 1, 2, 0] * 4), list(range(16)), tiny(batch_size=8))


class Scripted(BestEpoch):
    """Finds the given values, one an epoch, and keeps what the network was."""

    def __init__(self, metric, values):
        super().__init__(metric, None, None)
        self.values, self.seen = list(values), []

    def value(self, network):
        self.seen.append({key: tensor.clone() for key, tensor in network.state_dict().items()})
        return self.values[int(self.epoch)]

    def look(self, network, epoch):
        self.epoch = epoch
        return super().look(network, epoch)


@pytest.fixture
def train(batches, tiny, tmp_path):
    """Train a linear network for as many epochs as the selection has values."""

    def train(chosen, run="run", epochs=None):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 3))

        def loss(images, labels):
            return F.cross_entropy(network(images), labels)

        length = len(chosen.values) if isinstance(chosen, Scripted) else 4
        folder = Run(tmp_path / run)
        fit("stage", network, [network], loss, batches, Schedule(length, 0.1), tiny(), folder, selection=chosen)
        return network, folder

    return train


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize(
    ("metric", "values", "best"),
    [
        ("balanced_acc", [50.0, 70.0, 70.0, 60.0], 2),  # of equals the later
        ("top1", [10.0, 9.0, 8.0], 0),
        ("macro_f1", [1.0, 2.0, 3.0], 2),
        ("nll", [2.0, 1.0, 1.5], 1),
        ("nll", [math.nan, 5.0, math.nan], 1),
    ],
)
def test_the_network_ends_with_the_weights_of_the_best_epoch(train, metric, values, best):
    chosen = Scripted(metric, values)
    network, run = train(chosen)
    assert same(network.state_dict(), chosen.seen[best])
    rows = [row[f"holdout_{metric}"] for row in run.metrics()]
    assert rows == pytest.approx(values, nan_ok=True)
    assert run.load_checkpoint("stage")[1]["best"] == [best, values[best]]


@pytest.mark.parametrize("stop", [1, 2, 3])
@pytest.mark.parametrize("after", [True, False])
def test_a_resumed_stage_takes_the_epoch_of_an_undisturbed_one(train, monkeypatch, stop, after):
    values = [50.0, 70.0, 60.0, 70.0]
    network, run = train(Scripted("top1", values), "whole")
    save = Run.save_checkpoint

    def stopped(self, stage, tensors, state):
        if after or state["epoch"] != stop:
            save(self, stage, tensors, state)
        if state["epoch"] == stop:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", stopped)
        with pytest.raises(KeyboardInterrupt):
            train(Scripted("top1", values), "again")
    resumed, other = train(Scripted("top1", values), "again")
    assert same(resumed.state_dict(), network.state_dict())
    assert same(other.load_checkpoint("stage")[0], run.load_checkpoint("stage")[0])
    assert other.load_checkpoint("stage")[1] == run.load_checkpoint("stage")[1]
    finished, _ = train(Scripted("top1", values), "again")  # nothing is left to train
    assert same(finished.state_dict(), network.state_dict())


def test_by_default_nothing_is_kept_and_the_last_epoch_counts(train):
    network, run = train(LAST)
    tensors, state = run.load_checkpoint("stage")
    assert state == {"epoch": 4}
    assert not [key for key in tensors if key.startswith("best.")]
    assert same(
        {f"model.{key}": value for key, value in network.state_dict().items()},
        {key: value for key, value in tensors.items() if key.startswith("model.")},
    )
    assert set(run.metrics()[0]) == {"stage", "epoch", "loss", "lr", "seconds"}


def test_a_figure_is_that_of_the_judged_logits(batches, noise):
    labels = batches.images.labels  # half of the images are of class 0

    def judge(images):
        return F.one_hot(torch.zeros(len(images), dtype=torch.int64), 3).double() * 2

    def value(metric):
        return BestEpoch(metric, batches, judge).value(nn.Identity())

    assert (labels == 0).double().mean() == 0.5
    assert value("top1") == pytest.approx(50)
    assert value("balanced_acc") == pytest.approx(100 / 3)
    assert value("macro_f1") == pytest.approx(100 * (2 * 0.5 / 1.5) / 3)
    right, wrong = math.log(1 + 2 * math.exp(-2)), math.log(2 + math.exp(2))
    assert value("nll") == pytest.approx((right + wrong) / 2)


@pytest.mark.parametrize(
    ("changes", "stage"),
    [
        ({"method": "focal"}, "train"),
        ({"method": "crt", "refit": Refit(2)}, "refit"),
        ({"method": "crt", "refit": Refit(0)}, "train"),
        ({}, "refit"),
        ({"refit": Refit(0)}, "joint"),
        ({"refit": Refit(2, decoders="joint")}, "joint"),
    ],
)
def test_only_the_stage_whose_network_is_the_result_is_judged(tiny, batches, changes, stage):
    recipe = tiny(**{"train": Schedule(1), "eval_metric": "top1", **changes})
    for name in ("warmup", "task0", "train", "joint", "refit"):
        assert isinstance(selection(recipe, name, batches, nn.Identity()), BestEpoch) == (name == stage)
        assert selection(dataclasses.replace(recipe, eval_metric="last"), name, batches, nn.Identity()) is LAST


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"ema": 0.9}, "eval_metric keeps one epoch, ema the average of all"),
        ({"holdout": 0.0}, "eval_metric chooses the epoch on held-out images; set holdout above 0"),
        ({"refit": Refit(2, decoders="tasks")}, "eval_metric judges epochs of the final network"),
        ({"method": "focal", "train": Schedule(0)}, r"set epochs in \[train\]"),
        ({"joint": Joint(0), "refit": Refit(0)}, r"set epochs in \[joint\]"),
    ],
)
def test_what_leaves_nothing_to_choose_is_refused(tiny, changes, said):
    with pytest.raises(ValueError, match=said):
        tiny(eval_metric="nll", **changes)


def test_a_held_out_part_without_images_is_refused_before_there_is_a_folder(tiny, tmp_path):
    with pytest.raises(ValueError, match="eval_metric found no held-out image"):
        run_recipe(tiny(eval_metric="nll", holdout=0.0001), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "method",
    [
        "cross_entropy",
        "ldam_drw",
        "logit_adjustment_post_hoc",
        "lws",
        pytest.param("balanced_softmax", marks=pytest.mark.slow),
        pytest.param("crt", marks=pytest.mark.slow),
        pytest.param("mislas", marks=pytest.mark.slow),
        pytest.param("bags", marks=pytest.mark.slow),
    ],
)
def test_the_epoch_taken_is_that_of_the_network_in_the_folder(tiny, tmp_path, no_figures, method):
    found = run_recipe(tiny(method=method, eval_metric="nll", **SHORT), tmp_path / "run").results
    taken = found["epoch_taken"]
    rows = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    values = [row["holdout_nll"] for row in rows if row["stage"] == taken["stage"]]
    assert len(values) == taken["of"]
    assert values[taken["epochs"] - 1] == min(values)
    assert found["holdout"]["nll"] == pytest.approx(min(values), rel=1e-3)
    assert (taken["metric"], taken["chosen_on"]) == ("nll", "holdout")


def test_osdtw_chooses_resumes_and_never_looks_at_test_images(tiny, tmp_path, no_figures, monkeypatch):
    short = {"warmup": Warmup(1, 0.05), "tasks": Schedule(1, 0.02), "joint": Joint(1, 0.02)}
    recipe = tiny(eval_metric="balanced_acc", shared_depth=6, task_weights=(0.5, 0.5), **short)
    whole = run_recipe(recipe, tmp_path / "whole")
    assert whole.results["epoch_taken"]["stage"] == "refit"

    def other_test(recipe):
        data = load_data(recipe)
        return dataclasses.replace(data, test=data.test.subset(range(5)))

    monkeypatch.setattr(pipeline, "load_data", other_test)
    again = run_recipe(recipe, tmp_path / "again")
    assert same(again.network.state_dict(), whole.network.state_dict())
    resumed = run_recipe(recipe, tmp_path / "again", resume=True)
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    assert resumed.results["epoch_taken"] == whole.results["epoch_taken"]


def test_without_a_metric_the_results_say_nothing_of_it(finished):
    assert "epoch_taken" not in finished.results
