"""From statistics to plan.json: what is fixed is kept, what is written adds up, and no data is touched."""

import dataclasses

import pytest
import torch

from osdtw_models.cifar import CifarResNet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import fisher, responses, store
from osdtw_training.batches import Batches
from osdtw_training.fisher import BlockStatistics, Statistics
from osdtw_training.objectives import task_objectives
from osdtw_training.planning import check_fixed, given, measure, plan_from_statistics, table, task_damping
from osdtw_training.recipe_tables import Schedule, Search
from osdtw_training.responses import Responses
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

    return Statistics(tuple(block(p) for p in (3, 5, 2)), num_images=40, damping=0.05, samples=9, trace_error=0.1)


@pytest.fixture
def trained(noise, tiny):
    """What `measure` gets: task networks, objectives, batches."""
    images = noise(labels=[0] * 8 + [1] * 4 + [2] * 2 + [3])
    recipe = tiny(img_size=8)
    objectives = task_objectives(PARTITION, images.counts())
    network = OsdtwNet(CifarResNet(8), 4, shared_depth=0, task_classes=PARTITION.to_lists())
    return network, objectives, Batches(images, list(range(15)), recipe)


def test_statistics_come_back_as_they_were_saved(run, statistics):
    with_replicates = dataclasses.replace(statistics.blocks[0], replicates=torch.randn(2, 2, 3))
    for kept in (statistics, dataclasses.replace(statistics, blocks=(with_replicates, *statistics.blocks[1:]))):
        store.save(run, kept, seconds=1.5)
        loaded, seconds = store.load(run)
        assert (loaded.num_images, loaded.damping, loaded.samples, loaded.trace_error) == (40, 0.05, 9, 0.1)
        assert seconds == 1.5
        for block, expected in zip(loaded.blocks, kept.blocks, strict=True):
            for name, value in vars(expected).items():
                assert torch.equal(getattr(block, name), value) if value is not None else getattr(block, name) is None


def test_responses_come_back_as_they_were_saved(run):
    kept = Responses(torch.randn(2, 3, 3, 5), torch.randn(2, 4, 5, 5), 0.05, 0.1)
    store.save(run, kept, seconds=1.5)
    loaded, _ = store.load(run)
    assert isinstance(loaded, Responses)
    assert (loaded.damping, loaded.trace_error, loaded.samples) == (0.05, 0.1, 5)
    assert all(torch.equal(getattr(loaded, name), getattr(kept, name)) for name in ("slopes", "gram"))


def test_without_statistics_the_way_out_is_told(run, tiny):
    with pytest.raises(FileNotFoundError, match="has no statistics yet; osdtw-train writes them after stage 1"):
        plan_from_statistics(run, tiny())


def test_the_plan_file_adds_up(run, tiny, statistics, capsys):
    store.save(run, statistics, seconds=1.5)
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
    near = plan["within_one_standard_error"]
    assert choice.shared_depth in [row["shared_depth"] for row in near]
    assert set(plan["ends"]) == {"bias_optimal", "variance_optimal", "of_each_block"}
    assert len(plan["ends"]["of_each_block"]) == 3
    said = capsys.readouterr().out
    assert f"share {choice.shared_depth} blocks" in said
    assert plan["why"] in said


@pytest.mark.parametrize("change", [{"shared_depth": 1}, {"task_weights": (0.3, 0.7)}])
def test_what_the_recipe_fixes_is_kept_and_the_rest_searched(run, tiny, statistics, change):
    store.save(run, statistics, seconds=1.5)
    choice = plan_from_statistics(run, tiny(**change))
    for name, value in change.items():
        assert getattr(choice, name) == value


def test_damping_is_the_recipes_factor_and_its_sensitivity_is_reported(run, tiny, statistics):
    store.save(run, statistics, seconds=1.5)
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
    store.save(run, statistics, seconds=1.5)
    depth = plan_from_statistics(run, tiny()).shared_depth
    lines = table(run).splitlines()
    assert len(lines) == 1 + 4
    assert ["<- plan, at weights" in line for line in lines[1:]] == [d == depth for d in range(4)]
    proxy = run.read_json("plan.json")["terms_nats"]["proxy"]
    assert [f"{value:.4g}" in line for value, line in zip(proxy, lines[1:], strict=True)] == [True] * 4


def test_a_plan_given_by_the_recipe_needs_no_search(run, tiny):
    choice = given(tiny(shared_depth=4, task_weights=(0.4, 0.6)), run)
    assert (choice.shared_depth, choice.task_weights) == (4, (0.4, 0.6))
    plan = run.read_json("plan.json")
    assert (plan["source"], plan["shared_depth"], plan["task_weights"]) == ("recipe", 4, [0.4, 0.6])
    assert given(tiny(shared_depth=4), run) is None
    assert given(tiny(task_weights=(0.4, 0.6)), run) is None


@pytest.mark.parametrize("structure", ["diagonal", "ekfac", "refit"])
def test_statistics_are_measured_once_and_planned_with(run, tiny, trained, monkeypatch, structure):
    recipe = tiny(search=Search(structure=structure, samples=12, weights=5))
    measure(*trained, recipe, run, [trained[0], trained[0]])
    for module in (fisher, responses):
        monkeypatch.setattr(module, "measure", lambda *args, **kwargs: pytest.fail("measured again"))
    measure(*trained, recipe, run, [trained[0], trained[0]])
    statistics, _ = store.load(run)
    assert isinstance(statistics, Responses) == (structure == "refit")
    assert (statistics.num_blocks, statistics.num_tasks) == (4, 2)
    plan_from_statistics(run, recipe)
    plan = run.read_json("plan.json")
    assert plan["level_calibrated"]
    assert plan["structure"] == structure


def test_without_replicates_the_level_is_said_not_to_be_calibrated(run, tiny, trained, capsys):
    recipe = tiny(search=Search(structure="diagonal", replicates=False, samples=12, weights=5))
    measure(*trained, recipe, run)
    plan_from_statistics(run, recipe)
    assert not run.read_json("plan.json")["level_calibrated"]
    assert "the level of the terms is not calibrated" in capsys.readouterr().out


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
