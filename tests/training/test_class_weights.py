"""Class weights: their scale, their file, and that every method multiplies each image's loss by its own, once."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from osdtw_models.partition import ClassPartition
from osdtw_training import stages
from osdtw_training.batches import Batches
from osdtw_training.class_weights import class_weights, counted, read_weights, weighted_mean
from osdtw_training.data import load_data
from osdtw_training.methods import PEERS, bags, decoupled, nbn, single
from osdtw_training.objectives import task_objectives
from osdtw_training.observer import FisherKind, Observer
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe_checks import SET_CLASS_WEIGHTS
from osdtw_training.recipe_tables import Refit, Schedule
from osdtw_training.runs import Run

LABELS = [0] * 6 + [1] * 3 + [2]
RAW = [0.5, 4.0, 2.5]


@pytest.fixture
def batches(noise, tiny):
    def batches(**changes):
        return Batches(noise(LABELS), list(range(10)), tiny(**changes))

    return batches


@pytest.fixture
def file(tmp_path):
    """A file of the weights of the three classes."""
    path = tmp_path / "weights.csv"
    path.write_text("class,weight\nc2,2.5\nc0,0.5\nc1,4\n")
    return str(path)


def test_auto_is_what_scikit_learn_calls_balanced(batches):
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    found = class_weights(batches(class_weights="auto"))
    assert found.tolist() == pytest.approx(expected.tolist())
    assert found.tolist() == pytest.approx([10 / 18, 10 / 9, 10 / 3])


def test_over_all_images_the_weighted_mean_is_torchs(batches, file):
    logits, labels = torch.randn(10, 3), torch.tensor(LABELS)
    losses = F.cross_entropy(logits, labels, reduction="none")
    for raw, wanted in ((RAW, file), ([1, 2, 6], "auto"), ([1, 1, 1], "none")):
        found = weighted_mean(losses, labels, class_weights(batches(class_weights=wanted)))
        expected = F.cross_entropy(logits, labels, weight=torch.tensor(raw, dtype=torch.float32))
        torch.testing.assert_close(found, expected)


def test_an_images_part_does_not_depend_on_its_batch():
    losses, labels, weights = torch.tensor([1.0, 2.0]), torch.tensor([0, 1]), torch.tensor([3.0, 5.0])
    assert float(weighted_mean(losses, labels, weights)) == (3 * 1 + 5 * 2) / 2
    assert float(weighted_mean(losses[:1], labels[:1], weights)) == 3


def test_balanced_batches_need_no_weights_and_keep_given_ratios(batches, file):
    assert class_weights(batches(class_weights="auto", sampler="balanced")).tolist() == pytest.approx([1, 1, 1])
    found = class_weights(batches(class_weights=file, sampler="balanced"))
    assert found.tolist() == pytest.approx([3 * w / 7 for w in RAW])
    assert counted(batches(sampler="balanced")) == pytest.approx([10 / 3] * 3)
    assert counted(batches(class_weights="auto")) == pytest.approx([10 / 3] * 3)
    assert counted(batches()) == [6, 3, 1]


def test_csv_and_json_say_the_same(file, tmp_path):
    other = tmp_path / "weights.json"
    other.write_text(json.dumps({"c1": 4, "c0": 0.5, "c2": 2.5}))
    untitled = tmp_path / "untitled.csv"
    untitled.write_text("c0,0.5\n\nc1,4.0\nc2,2.5")
    for path in (file, other, untitled):
        assert read_weights(type(other)(path), ("c0", "c1", "c2")).tolist() == RAW


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("w.csv", "c0,1\nc1,2", r"has no weight for 'c2' \(1 missing\)"),
        ("w.csv", "", r"has no weight for 'c0' \(3 missing\)"),
        ("w.csv", "c0,1\nc1,2\nc2,3\nc2,3", "'c2' in .* has two weights"),
        ("w.csv", "c0,1\nc1,2\nc2,3\nc3,1", "'c3' in .* is no class of the data"),
        ("w.csv", "c0,1\nc1,0\nc2,3", r"weight of 'c1' .* is 0\.0; weights must be positive and finite"),
        ("w.csv", "c0,1\nc1,-2\nc2,3", "is -2"),
        ("w.csv", "c0,1\nc1,nan\nc2,3", "is nan"),
        ("w.csv", "c0,1\nc1,inf\nc2,3", "is inf"),
        ("w.csv", "c0,1\nc1,much\nc2,3", "holds no class weights .*much"),
        ("w.csv", "c0\nc1\nc2", "holds no class weights .*a row has not two cells"),
        ("w.json", "{", "holds no class weights"),
        ("w.json", "[1, 2, 3]", "holds no class weights"),
        ("w.json", "3", "holds no class weights"),
        ("w.json", '{"c0": 1, "c1": true, "c2": 3}', "holds no class weights"),
        ("w.json", '{"c0": 1, "c1": 2, "c2": NaN}', "is nan"),
        ("w.json", '{"c0": 1, "c0": 2, "c1": 2, "c2": 3}', "'c0' in .* has two weights"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        read_weights(tmp_path / name, ("c0", "c1", "c2"))


def test_a_missing_file_is_refused_before_there_is_a_folder(tiny, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file balanced; class_weights is 'none', 'auto' or a CSV or JSON"):
        run_recipe(tiny(class_weights="balanced"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("method", SET_CLASS_WEIGHTS)
def test_a_method_with_class_weights_of_its_own_takes_no_others(tiny, method):
    with pytest.raises(ValueError, match=f"{method} sets class weights itself"):
        tiny(method=method, class_weights="auto")


@pytest.fixture
def losses(monkeypatch, tiny, tmp_path):
    """Loss of every one of some images, one by one, in every stage of a peer; nothing is trained."""

    def losses(method, **changes):
        recipe = tiny(method=method, imbalance_factor=10, train=Schedule(1), refit=Refit(1), **changes)
        data, found = load_data(recipe), {}
        labels = torch.arange(12) % 10

        def look(stage, network, trained, loss, *_, **__):
            network.eval()
            found[stage] = torch.stack([loss(x[None], y[None]) for x, y in zip(images, labels, strict=True)]).detach()

        torch.manual_seed(1)
        images = torch.randn(12, 3, 16, 16)
        for module in (single, decoupled, bags, nbn):
            monkeypatch.setattr(module, "fit", look)
        PEERS[method](recipe, data, Run(tmp_path / str(len(list(tmp_path.iterdir())))))
        return found, labels, data

    return losses


@pytest.mark.parametrize("method", ["cross_entropy", "focal", "tau_norm", "ncm", "crt", "lws", "mislas", "bags", "nbn"])
def test_each_images_loss_is_multiplied_in_every_stage(losses, method, tmp_path):
    raw = [1 + c / 3 for c in range(10)]
    (tmp_path / "w.json").write_text(json.dumps({str(c): w for c, w in enumerate(raw)}))
    plain, labels, data = losses(method)
    found, _, _ = losses(method, class_weights=str(tmp_path / "w.json"))
    assert plain.keys() == found.keys()
    for stage, expected in plain.items():
        shares = [n / sum(data.counts) for n in data.counts]
        if stage == "refit" and method != "bags":  # class-balanced batches
            shares = [0.1] * 10
        mean = sum(s * w for s, w in zip(shares, raw, strict=True))
        factor = torch.tensor([raw[y] / mean for y in labels.tolist()])
        torch.testing.assert_close(found[stage], factor * expected)


@pytest.mark.parametrize("method", ["balanced_softmax", "logit_adjustment"])
@pytest.mark.parametrize("how", [{"class_weights": "auto"}, {"sampler": "balanced"}])
def test_what_weights_or_sampler_have_balanced_is_not_corrected_again(losses, method, how):
    torch.testing.assert_close(losses(method, **how)[0]["train"], losses("cross_entropy", **how)[0]["train"])
    assert not torch.allclose(losses(method)[0]["train"], losses("cross_entropy")[0]["train"])


@pytest.mark.parametrize("how", [{"class_weights": "auto"}, {"sampler": "balanced"}])
def test_tasks_correct_for_the_frequencies_of_weighted_and_sampled_images(tiny, tmp_path, how):
    recipe = tiny(**how)
    data = load_data(recipe)
    stage = stages.prepare(recipe, data, Run(tmp_path / "run"))
    for objective in stage.objectives:
        torch.testing.assert_close(objective.offsets, torch.zeros_like(objective.offsets), rtol=0, atol=1e-6)
        expected = [len(data.train) / 10 / n for n in data.counts] if "class_weights" in how else [1] * 10
        assert objective.class_weights.tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("tasks", [((0, 1, 2, 3, 4),), ((1, 0), (3, 2, 4))])
def test_labels_of_scores_are_drawn_as_often_as_they_are_shown(tasks):
    """At the optimum, whatever the weights, a task's classes are drawn by their posterior in training images."""
    partition, counts, given = ClassPartition(tasks), [60, 3, 25, 8, 4], torch.tensor([*RAW, 1.0, 3.0])
    objectives = task_objectives(partition, (torch.tensor(counts) * given).tolist(), True, math.inf, given)
    likelihood = torch.softmax(torch.randn(7, 5, dtype=torch.float64), 0)
    balanced = likelihood / likelihood.sum(1, keepdim=True)
    logits = []
    for task in partition.tasks:
        others = [c for c in range(5) if c not in task]
        none = [balanced[:, others].sum(1, keepdim=True)] if others else []
        logits.append(torch.cat([balanced[:, task], *none], 1).log())
    observer = Observer(
        SimpleNamespace(class_position=partition.class_position), [], objectives, FisherKind.EXACT, seed=0
    )
    classes, chances = observer._classes(logits, torch.zeros(7, dtype=torch.int64))
    shown = likelihood * torch.tensor(counts)
    assert classes[:, 0].tolist() == [0, 1, 2, 3, 4]
    for task in partition.tasks:
        found, expected = chances.T[:, task], shown[:, task]
        found, expected = found / found.sum(1, keepdim=True), expected / expected.sum(1, keepdim=True)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_weighted_run_says_and_keeps_its_weights_and_is_resumed_with_them_only(tiny, tmp_path, capsys, no_figures):
    path = tmp_path / "w.json"
    path.write_text(json.dumps({str(c): 1 + c for c in range(10)}))
    recipe = tiny(method="cross_entropy", train=Schedule(1, 0.05), class_weights=str(path))
    kept = run_recipe(recipe, tmp_path / "run").results["class_weights"]
    assert [weight / kept[0] for weight in kept] == pytest.approx([1 + c for c in range(10)], rel=1e-4)
    assert "Class weights: " in capsys.readouterr().out
    path.write_text(json.dumps(dict.fromkeys(map(str, range(10)), 1)))
    with pytest.raises(ValueError, match="no longer those"):
        run_recipe(recipe, tmp_path / "run", resume=True)


def test_weights_that_are_all_equal_change_nothing(tiny, tmp_path, no_figures, finished):
    path = tmp_path / "w.json"
    path.write_text(json.dumps(dict.fromkeys(map(str, range(10)), 7)))
    found = run_recipe(tiny(class_weights=str(path)), tmp_path / "run").network.state_dict()
    assert all(torch.equal(value, found[key]) for key, value in finished.network.state_dict().items())


@pytest.mark.parametrize("method", ["osdtw", pytest.param("all", marks=pytest.mark.slow)])
def test_every_method_trains_on_balanced_batches(tiny, tmp_path, no_figures, method):
    short = {"sampler": "balanced", "train": Schedule(2, 0.05), "imbalance_factor": 100}
    for name in [method] if method != "all" else [*PEERS]:
        result = run_recipe(tiny(method=name, **short), tmp_path / name)
        assert result.results["training_counts"][-1] == 1  # in one of the two halves only
        assert math.isfinite(result.results["test"]["overall"])
