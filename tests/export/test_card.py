"""Cards and README's table say what the results files say, and nothing else."""

import copy
import json
import re
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st

from osdtw_export.card import PLANS, card
from osdtw_export.documents import main, render
from osdtw_export.table import table
from osdtw_training import planning
from osdtw_training.recipe import Recipe

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "model_cards" / "template.md").read_text(encoding="utf-8")
RELEASE = "osdtw_resnet32.tag"
FIGURES = "overall head tail task_right many medium few nll ece".split()


def results(**changes):
    return {
        "recipe": "some_recipe",
        "method": "osdtw",
        "model": "osdtw_resnet32",
        "data": "cifar100",
        "imbalance_factor": 100.0,
        "seed": 3,
        "passes": 61,
        "training_hours": 0.53,
        "parameters": 470004,
        "hardware": {"processor": "a processor", "threads": 1, "device": "cpu", "amp": "none"},
        "versions": {"torch": "2.99.0"},
        "date": "2026-11-01",
        "class_counts": [900, 40, 4],
        "training_counts": [855, 38, 4],
        "test_images": 10,
        "plan": {"source": "search", "shared_depth": 11, "task_weights": [0.25, 0.75]},
        "test": {name: 40.0 + i / 7 for i, name in enumerate(FIGURES)},
        **changes,
    }


def peer(**changes):
    values = results(method="balanced_softmax", recipe="peer", **changes)
    del values["plan"]
    return values


def leaves(values, path=()):
    """The path of every value in nested results."""
    for key, value in values.items():
        yield from leaves(value, (*path, key)) if isinstance(value, dict) else [(*path, key)]


def with_leaf(path, change):
    """Results in which one value is another, or is gone."""
    values = copy.deepcopy(results())
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    if change is None:
        del inner[path[-1]]
    else:
        inner[path[-1]] = change(inner[path[-1]])
    return values


def another(value):
    """A value of the same type that differs, and that a card can state."""
    if value == "osdtw_resnet32":
        return "osdtw_resnet20"
    if value == "search":
        return "recipe"
    if isinstance(value, list):
        return [value[0] / 2, *value[1:]] if isinstance(value[0], float) else [value[0] - 1, *value[1:]]
    return f"{value}x" if isinstance(value, str) else value + 1


# A card is OSDTW's: its method names no field, it decides which runs are peers.
STATED = [path for path in leaves(results()) if path != ("method",)]


def test_committed_documents_are_the_generated_ones(capsys):
    assert main([str(ROOT), "--check"]) == 0, f"{capsys.readouterr().out}run python -m osdtw_export.documents"
    assert ROOT / "README.md" in render(ROOT)


def test_every_release_has_a_card():
    cards = {path.stem for path in (ROOT / "model_cards").glob("*.md")} - {"template"}
    assert cards == {path.parent.name for path in (ROOT / "osdtw_models" / "weights").glob("*/results.json")}


def test_template_holds_no_number_but_the_papers():
    assert set(re.findall(r"\d[\d.]*\d|\d", TEMPLATE)) == {"2605.24969"}


def test_metadata_is_what_the_hub_reads():
    shown = ModelCard(card(RELEASE, results(), TEMPLATE)).data
    assert shown.license == "apache-2.0"
    assert shown.library_name == "timm"
    assert shown.pipeline_tag == "image-classification"
    assert shown.datasets == ["uoft-cs/cifar100"]
    assert {"timm", "long-tailed-recognition"} <= set(shown.tags)
    assert shown.model_name == RELEASE
    (accuracy,) = shown.eval_results
    assert (accuracy.metric_type, accuracy.metric_value) == ("accuracy", 40.0)
    assert accuracy.dataset_type == "uoft-cs/cifar100"


def test_card_states_plan_counts_and_cost():
    text = card(RELEASE, results(), TEMPLATE)
    assert "share 11 of 16 blocks" in text
    assert "0.250, 0.750; found by the search; the level of its proxy is not calibrated yet" in text
    assert "3 classes with 900 to 4 images, 944 in all (1 many, 1 medium, 1 few)" in text
    assert "Held out: 47 of them, never trained on; 1 classes" in text
    assert "61 passes" in text
    assert "0.53 hours" in text
    assert "a processor, 1 thread, cpu" in text
    assert "osdtw-train some_recipe\n" in text
    assert f"osdtw-eval {RELEASE} --data cifar100\n" in text


@given(name=st.sampled_from(FIGURES), value=st.floats(0, 100))
def test_every_figure_is_stated_with_two_digits(name, value):
    changed = results(test={**results()["test"], name: value})
    row = next(line for line in card(RELEASE, changed, TEMPLATE).splitlines() if line.startswith("| ") and "%" in line)
    assert row.split("|")[1 + FIGURES.index(name)].strip(" %") == f"{value:.2f}"


@pytest.mark.parametrize("path", STATED, ids=".".join)
def test_another_value_makes_another_card(path):
    assert card(RELEASE, with_leaf(path, another), TEMPLATE) != card(RELEASE, results(), TEMPLATE)


@pytest.mark.parametrize("path", [path for path in STATED if path[0] != "versions"], ids=".".join)
def test_a_missing_field_is_named_in_one_sentence(path):
    with pytest.raises(ValueError, match=rf"^The results of {RELEASE} lack '{path[-1]}'; [^.]*\.$"):
        card(RELEASE, with_leaf(path, None), TEMPLATE)


def test_every_source_that_planning_writes_can_be_stated():
    given = [{}, {"shared_depth": 1}, {"task_weights": (0.5, 0.5)}]
    assert {planning._source(Recipe(**fixed)) for fixed in given} | {"recipe"} == PLANS.keys()
    for source, words in PLANS.items():
        plan = {**results()["plan"], "source": source}
        assert words in card(RELEASE, results(plan=plan), TEMPLATE)
        assert ("not calibrated" in words) == ("search" in source)
    with pytest.raises(ValueError, match="source is 'guess'"):
        card(RELEASE, results(plan={**results()["plan"], "source": "guess"}), TEMPLATE)


def test_table_follows_the_results():
    text = table({RELEASE: results()}, {"peer": peer(test={**results()["test"], "few": 77.77})})
    head, _, released, compared, *_ = text.splitlines()
    assert all(len(row.split("|")) == len(head.split("|")) for row in (released, compared))
    assert "OSDTW (released)" in released
    assert "11 shared (search)" in released
    assert "balanced softmax |" in compared
    assert "one network" in compared
    assert "77.77" in compared
    assert "77.77" not in released
    assert "Hardware: a processor, 1 thread, cpu." in text
    with pytest.raises(ValueError, match="The results of odd lack 'ece'"):
        table({}, {"odd": peer(test={"overall": 1.0, "many": 1.0, "medium": 1.0, "few": 1.0, "nll": 1.0})})


def test_a_card_names_its_peers_and_no_others():
    others = {"peer": peer(test={**results()["test"], "overall": 77.77}), "short": peer(passes=9)}
    text = card(RELEASE, results(), TEMPLATE, others)
    assert "balanced softmax reaches overall 77.77 %" in text
    assert text.count("`osdtw-train peer`") == 1
    assert "No other method was run" in card(RELEASE, results(), TEMPLATE, {"short": peer(passes=9)})


def test_an_absent_group_and_more_tasks_are_no_errors():
    no_few = results(test={**results()["test"], "few": None})
    assert "| - |" in card(RELEASE, no_few, TEMPLATE)
    assert "| - |" in table({}, {"no_few": no_few})
    three = {name: value for name, value in results()["test"].items() if name not in ("head", "tail")}
    three |= {f"task{k}": 11.11 * (k + 1) for k in range(3)}
    plan = {"source": "recipe", "shared_depth": 5, "task_weights": [0.2, 0.3, 0.5]}
    text = card(RELEASE, results(test=three, plan=plan), TEMPLATE)
    assert "33.33 %" in text
    assert "3\ntasks" in text
    assert "calibrated" not in text


def test_a_users_path_stays_out_of_the_documents():
    own = results(data="/home/someone/birds", imbalance_factor=None)
    text = card(RELEASE, own, TEMPLATE)
    assert "someone" not in text
    assert "Trained on birds." in text


def test_the_door_writes_once_and_checks(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "template.md; run this at the root of the repository" in capsys.readouterr().err
    (tmp_path / "model_cards").mkdir()
    (tmp_path / "model_cards" / "template.md").write_text(TEMPLATE, encoding="utf-8")
    assert main([str(tmp_path)]) == 2
    assert "README.md; run this" in capsys.readouterr().err
    readme = tmp_path / "README.md"
    readme.write_text("before <!-- /results --> <!-- results -->")
    assert main([str(tmp_path)]) == 2
    assert "followed by" in capsys.readouterr().err
    readme.write_text("before <!-- results --> old <!-- /results --> after")
    release = tmp_path / "osdtw_models" / "weights" / RELEASE
    release.mkdir(parents=True)
    (release / "results.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "is not JSON" in capsys.readouterr().err
    (release / "results.json").write_text(json.dumps(results()))
    assert main([str(tmp_path), "--check"]) == 1
    assert not (tmp_path / "model_cards" / f"{RELEASE}.md").exists()
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before <!-- results -->\n|")
    assert text.endswith("<!-- /results --> after")
