"""From statistics to plan.json: what is fixed is kept, what is written adds up, and no data is touched."""

import dataclasses

import pytest
import torch

from osdtw_models.backbone import CifarResNet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import fisher, planning
from osdtw_training.data import Batches
from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.objectives import task_objectives
from osdtw_training.planning import (
    check_fixed,
    choose,
    load_statistics,
    plan_from_statistics,
    save_statistics,
    table,
    task_damping,
)
from osdtw_training.recipe import Schedule
from osdtw_training.runs import Run

PARTITION = ClassPartition(((0, 1), (2, 3)))


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run")


@pytest.fixture
def statistics():
    def block(parameters):
        root = torch.randn(parameters, 2, 3)
        positive = torch.rand(2, 2, parameters) + 0.1
        return BlockStatistics(positive[0], (root @ root.mT).permute(1, 2, 0), positive[1], torch.randn(2, parameters))

    return Statistics(tuple(block(p) for p in (3, 5, 2)), num_images=40, damping=0.05)


@pytest.fixture
def never(monkeypatch):
    """Statistics must not be measured."""
    monkeypatch.setattr(fisher, "measure", lambda *args, **kwargs: pytest.fail("measured"))


@pytest.fixture
def trained(noise, tiny):
    """What `choose` gets: task networks, objectives, batches."""
    images = noise(labels=[0] * 8 + [1] * 4 + [2] * 2 + [3])
    recipe = tiny(img_size=8)
    objectives = task_objectives(PARTITION, images.counts())
    network = OsdtwNet(CifarResNet(8), 4, shared_depth=0, task_classes=PARTITION.to_lists())
    return network, objectives, Batches(images, list(range(15)), recipe)


def test_statistics_come_back_as_they_were_saved(run, statistics):
    save_statistics(run, statistics, seconds=1.5)
    loaded, seconds = load_statistics(run)
    assert (loaded.num_images, loaded.damping, seconds) == (40, 0.05, 1.5)
    for block, expected in zip(loaded.blocks, statistics.blocks, strict=True):
        for name, value in vars(expected).items():
            assert torch.equal(getattr(block, name), value)


def test_without_statistics_the_way_out_is_told(run, tiny):
    with pytest.raises(FileNotFoundError, match="has no statistics yet; osdtw-train writes them after stage 1"):
        plan_from_statistics(run, tiny())


def test_the_plan_file_adds_up(run, tiny, statistics, capsys):
    save_statistics(run, statistics, seconds=1.5)
    choice = plan_from_statistics(run, tiny())
    plan = run.read_json("plan.json")
    assert plan["source"] == "search"
    assert (plan["shared_depth"], tuple(plan["task_weights"])) == (choice.shared_depth, choice.task_weights)
    assert 0 <= choice.shared_depth <= 3
    assert sum(choice.task_weights) == pytest.approx(1)
    assert plan["damping"] == pytest.approx(0.05)
    terms = plan["terms_nats"]
    assert {len(values) for values in terms.values()} == {4}
    for depth in range(4):
        parts = [terms[key][depth] for key in ("encoder_variance", "encoder_bias", "decoder_variance")]
        assert terms["proxy"][depth] == pytest.approx(sum(parts))
    said = capsys.readouterr().out
    assert f"share {choice.shared_depth} blocks" in said
    assert plan["why"] in said


@pytest.mark.parametrize("change", [{"shared_depth": 1}, {"task_weights": (0.3, 0.7)}])
def test_what_the_recipe_fixes_is_kept_and_the_rest_searched(run, tiny, statistics, change):
    save_statistics(run, statistics, seconds=1.5)
    choice = plan_from_statistics(run, tiny(**change))
    for name, value in change.items():
        assert getattr(choice, name) == value


def test_damping_is_the_recipes_factor_and_its_sensitivity_is_reported(run, tiny, statistics):
    save_statistics(run, statistics, seconds=1.5)
    choices = {}
    for factor in (0.1, 1.0, 10.0):
        recipe = tiny()
        recipe = dataclasses.replace(recipe, search=dataclasses.replace(recipe.search, damping=factor))
        choice = plan_from_statistics(run, recipe)
        assert run.read_json("plan.json")["damping"] == pytest.approx(factor * 0.05)
        choices[factor] = {"shared_depth": choice.shared_depth, "task_weights": list(choice.task_weights)}
    plan_from_statistics(run, tiny())
    assert run.read_json("plan.json")["damping_sensitivity"] == {str(f): choice for f, choice in choices.items()}


def test_the_table_shows_every_depth_and_marks_the_plan(run, tiny, statistics):
    save_statistics(run, statistics, seconds=1.5)
    depth = plan_from_statistics(run, tiny()).shared_depth
    lines = table(run).splitlines()
    assert len(lines) == 1 + 4
    assert ["<- plan, at weights" in line for line in lines[1:]] == [d == depth for d in range(4)]
    proxy = run.read_json("plan.json")["terms_nats"]["proxy"]
    assert [f"{value:.3e}" in line for value, line in zip(proxy, lines[1:], strict=True)] == [True] * 4


def test_a_plan_given_by_the_recipe_skips_statistics_and_search(run, tiny, trained, never):
    choice = choose(*trained, tiny(shared_depth=4, task_weights=(0.4, 0.6)), run)
    assert (choice.shared_depth, choice.task_weights) == (4, (0.4, 0.6))
    plan = run.read_json("plan.json")
    assert (plan["source"], plan["shared_depth"], plan["task_weights"]) == ("recipe", 4, [0.4, 0.6])
    assert run.load_checkpoint(planning.STATISTICS) is None


def test_statistics_are_measured_once(run, tiny, trained, monkeypatch):
    choice = choose(*trained, tiny(), run)
    monkeypatch.setattr(fisher, "measure", lambda *args, **kwargs: pytest.fail("measured again"))
    assert choose(*trained, tiny(), run) == choice
    statistics, _ = load_statistics(run)
    assert statistics.num_images == 15
    assert len(statistics.blocks) == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shared_depth": 8}, "shared_depth is 8, but osdtw_resnet14 has 7 blocks; choose 0"),
        ({"shared_depth": -1}, "shared_depth is -1"),
        ({"task_weights": (0.5, 0.3, 0.2)}, "3 task_weights for 2 tasks"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(tiny, change, said):
    with pytest.raises(ValueError, match=said):
        check_fixed(tiny(**change), num_blocks=7, num_tasks=2)


def test_training_longer_damps_less(tiny, trained):
    batches = trained[2]
    short, long, none = (task_damping(tiny(tasks=Schedule(n, 0.1)), batches) for n in (1, 4, 0))
    decay = tiny().weight_decay
    assert decay < long < short < none < float("inf")
    assert (short - decay) / (long - decay) == pytest.approx(4)
