"""The no-training check: where the encoder settles, what is refit, and which images are asked."""

import dataclasses
import shutil

import pytest
import torch

from osdtw_training import cli, planning, stages, store
from osdtw_training.checking import check_plans, held_out_loss, merge
from osdtw_training.data import load_data
from osdtw_training.networks import new_network
from osdtw_training.recipe_tables import Search
from osdtw_training.runs import Run


@pytest.fixture
def finished_stage(finished, tiny):
    """Data, run and task networks of the finished run."""
    data = load_data(tiny())
    stage = stages.prepare(tiny(), data, Run(finished.folder, resume=True))
    return data, stage, stages.train_tasks(stage, stages.warm_up(stage))


def test_the_best_depths_are_checked_in_the_order_of_the_proxy(finished_stage, tiny, capsys):
    data, stage, _ = finished_stage
    statistics, _ = store.load(stage.run)
    plan = planning.find(statistics, tiny())
    rows = check_plans(tiny(), data, stage.run, statistics, plan, 2)
    least = plan.terms.proxy.min(1).values
    assert [row["shared_depth"] for row in rows] == least.argsort()[:2].tolist()
    assert [row["proxy"] for row in rows] == pytest.approx(least.sort().values[:2].tolist())
    assert all(0 < row["held_out_loss"] < 20 for row in rows)
    assert capsys.readouterr().out.count("held-out loss") == 2


def test_with_diagonal_statistics_parameters_settle_at_their_fisher_weighted_mean(finished_stage, tiny):
    _, stage, tasks = finished_stage
    recipe = tiny(search=Search(structure="diagonal", replicates=False, samples=12))
    stage = dataclasses.replace(stage, recipe=recipe)
    run = Run(stage.run.folder.parent / "diagonal", resume=True)
    planning.measure(tasks, stage.objectives, stage.batches, recipe, run)
    statistics, _ = store.load(run)
    network = merge(stage, tasks, statistics, 3, (0.3, 0.7))
    own = network.encoder.block2.conv1.weight
    head, tail = statistics.blocks[1].optimum[:, : own.numel()]
    h = statistics.blocks[1].curvature[:, : own.numel()] + statistics.damping
    expected = (0.3 * h[0] * head + 0.7 * h[1] * tail) / (0.3 * h[0] + 0.7 * h[1])
    torch.testing.assert_close(own.flatten(), expected)
    for k in range(2):  # decoders are those of stage 1
        theirs = dict(tasks.decoders[k].named_parameters())
        assert all(torch.equal(value, theirs[name]) for name, value in network.decoders[k].named_parameters())


def test_every_class_weighs_the_same_in_the_held_out_loss(finished_stage):
    data, stage, _ = finished_stage
    network = new_network(stage.recipe, stage.partition).eval()
    expected, classes = 0.0, data.holdout.labels.unique()
    pixels, labels = next(dataclasses.replace(stage.batches, images=data.holdout, indices=data.holdout_indices).plain())
    with torch.no_grad():
        for objective, logits in zip(stage.objectives, network.forward_tasks(pixels), strict=True):
            losses = torch.nn.functional.cross_entropy(logits, objective.label_map[labels], reduction="none")
            expected += sum(float(losses[labels == c].mean()) for c in classes) / len(classes)
    assert held_out_loss(stage, network, data) == pytest.approx(expected, rel=1e-5)


def test_without_held_out_images_the_way_out_is_told(finished_stage, tiny):
    _, stage, _ = finished_stage
    statistics, _ = store.load(stage.run)
    recipe = tiny(holdout=0.0)
    with pytest.raises(ValueError, match=r"holds no images out; train with --holdout 0\.05"):
        check_plans(recipe, load_data(recipe), stage.run, statistics, planning.find(statistics, recipe), 1)


def test_the_command_writes_the_check_beside_the_plan(finished, tmp_path, monkeypatch, no_figures):
    folder = shutil.copytree(finished.folder, tmp_path / "run")
    assert cli.search([str(folder), "--check", "1"]) == 0
    (row,) = Run(folder, resume=True).read_json("plan.json")["check"]
    assert row["held_out_loss"] > 0
