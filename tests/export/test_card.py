"""Cards and README's table say what the results files say, and nothing else."""

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import ModelCard
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from card_pictures import pictures
from osdtw_export.card import CAPTIONS, Release, card, template
from osdtw_export.card_fields import PLANS
from osdtw_export.documents import main, render
from osdtw_export.results import METHODS
from osdtw_export.table import table
from osdtw_training import planning
from osdtw_training.figures import save
from osdtw_training.recipe import Recipe

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "model_cards" / "template.md").read_text(encoding="utf-8")
RELEASE = Release("osdtw_resnet32.tag")
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


def test_the_list_of_the_released_networks_has_their_results():
    """They are kept twice: with the weights, and beside the runs that they are compared with."""
    listed = [json.loads(file.read_text()) for file in (ROOT / "benchmarks/results/cifar100_lt_strong").glob("*.json")]
    for file in (ROOT / "osdtw_models" / "weights").glob("*/results.json"):
        released = json.loads(file.read_text())
        same = [run for run in listed if {**run, **released} == run]
        assert len(same) == 1, f"{file} is not among the results of cifar100_lt_strong"


def test_template_holds_no_number_but_the_papers():
    assert set(re.findall(r"\d[\d.]*\d|\d", TEMPLATE)) == {"2605.24969", "2026"}


def test_metadata_is_what_the_hub_reads():
    shown = ModelCard(card(RELEASE, results(), TEMPLATE)).data
    assert shown.license == "apache-2.0"
    assert shown.library_name == "timm"
    assert shown.pipeline_tag == "image-classification"
    assert shown.datasets == ["uoft-cs/cifar100"]
    assert {"timm", "long-tailed-recognition"} <= set(shown.tags)
    assert shown.model_name == RELEASE.name
    figures = {result.metric_name: (result.metric_type, result.metric_value) for result in shown.eval_results}
    assert figures["Accuracy"] == ("accuracy", 40.0)
    assert figures["Accuracy, few"] == ("accuracy", round(results()["test"]["few"], 2))
    assert figures["Expected calibration error"] == ("ece", round(results()["test"]["ece"], 2))
    assert len(figures) == 5
    for result in shown.eval_results:
        assert (result.task_type, result.dataset_type) == ("image-classification", "uoft-cs/cifar100")
        assert (result.dataset_split, result.dataset_args) == ("test", {"imbalance_factor": 100.0})


def test_card_states_plan_counts_and_cost():
    text = card(RELEASE, results(), TEMPLATE)
    assert "share 11 of 16 blocks" in text
    assert "11 of 16 blocks shared, task weights 0.250, 0.750: found by the search." in text
    assert "3 classes with 900 to 4 images, 944 in all" in text
    assert "| few | fewer than 20 | 1 | 4 |" in text
    assert "Held out: 47 of them, never trained on; 1 classes gave none. Trained on the other 897." in text
    assert "61 passes" in text
    assert "0.53 hours" in text
    assert "a processor, 1 thread, cpu" in text
    assert "osdtw-train some_recipe\n" in text
    assert f"osdtw-eval {RELEASE.name} --data cifar100\n" in text


@given(name=st.sampled_from(FIGURES), value=st.floats(0, 100))
def test_every_figure_is_stated_with_two_digits(name, value):
    changed = results(test={**results()["test"], name: value})
    text = card(RELEASE, changed, TEMPLATE).partition("## Results")[2]
    before = {
        "overall": r"\| overall \| any \| 3 \| 944 \| ",
        "head": "By task: head ",
        "tail": "By task: head [^,]*, tail ",
        "task_right": "into the right task for ",
        "many": r"\| many \| more than 100 \| 1 \| 900 \| ",
        "medium": r"\| medium \| 20 to 100 \| 1 \| 40 \| ",
        "few": r"\| few \| fewer than 20 \| 1 \| 4 \| ",
        "nll": "negative log-likelihood ",
        "ece": r"Calibration error \(ECE\) ",
    }[name]
    assert re.search(f"{before}{value:.2f}{' nats' if name == 'nll' else ' %'}", text)


@pytest.mark.parametrize("path", STATED, ids=".".join)
def test_another_value_makes_another_card(path):
    assert card(RELEASE, with_leaf(path, another), TEMPLATE) != card(RELEASE, results(), TEMPLATE)


@pytest.mark.parametrize("path", [path for path in STATED if path[0] != "versions"], ids=".".join)
def test_a_missing_field_is_named_in_one_sentence(path):
    with pytest.raises(ValueError, match=rf"^The results of {RELEASE.name} lack '{path[-1]}'; [^.]*\.$"):
        card(RELEASE, with_leaf(path, None), TEMPLATE)


def test_every_source_that_planning_writes_can_be_stated():
    given = [{}, {"shared_depth": 1}, {"task_weights": (0.5, 0.5)}]
    assert {planning._source(Recipe(**fixed)) for fixed in given} | {"recipe"} == PLANS.keys()
    for source, words in PLANS.items():
        plan = {**results()["plan"], "source": source}
        text = card(RELEASE, results(plan=plan), TEMPLATE)
        assert words in text
        assert ("not calibrated" in text) == source.startswith("search")
        plan |= {"level_calibrated": True, "why": "A reason."}
        text = card(RELEASE, results(plan=plan), TEMPLATE)
        assert "not calibrated" not in text
        assert ("A reason." in text) == source.startswith("search")
    with pytest.raises(ValueError, match="source is 'guess'"):
        card(RELEASE, results(plan={**results()["plan"], "source": "guess"}), TEMPLATE)


def test_table_follows_the_results():
    text = table({RELEASE.name: results()}, {"peer": peer(test={**results()["test"], "few": 77.77})})
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
    assert "No other method was run" not in card(RELEASE, results(), TEMPLATE)


def test_peers_are_those_of_the_same_cost_not_of_as_many_epochs():
    """Two decoders cost more than a plain network, so as many passes of both are not the same."""
    ours = results(passes=95, training_passes={"joint": 99.5, "refit": 0.1})
    others = {"dear": peer(passes=95), "alike": peer(passes=99, training_passes={"train": 99.0})}
    others["alike"]["command"] = "osdtw-train alike --seed 3"
    text = card(RELEASE, ours, TEMPLATE, others)
    assert text.count("balanced softmax reaches") == 1
    assert "(`osdtw-train alike --seed 3`)" in text


def test_the_command_of_a_run_is_stated_with_its_options():
    run = results(command="osdtw-train strong --imbalance-factor 50", imbalance_factor=50.0)
    assert "    osdtw-train strong --imbalance-factor 50\n" in card(RELEASE, run, TEMPLATE)
    assert "| OSDTW | 50 |" in (text := table({}, {"run": run}))
    assert "| `osdtw-train strong --imbalance-factor 50` |" in text


def test_the_readmes_table_has_every_run_of_a_released_architecture_once(tmp_path):
    for name in ("README.md", "model_cards/template.md", "osdtw_models/weights/osdtw_resnet32.tag/config.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "README.md").write_text("<!-- results -->\n<!-- /results -->\n")
    (tmp_path / "model_cards" / "template.md").write_text(TEMPLATE)
    release = tmp_path / "osdtw_models" / "weights" / "osdtw_resnet32.tag"
    (release / "config.json").write_text('{"architecture": "osdtw_resnet32"}')
    (release / "results.json").write_text(json.dumps(results()))
    other = {**results()["test"], "overall": 12.34}
    runs = {"list/same": results(command="osdtw-train one"), "list/other": results(test=other)}
    runs |= {"first": peer(test=other), "list/small": peer(model="osdtw_resnet20", test=other)}
    for name, run in runs.items():
        file = tmp_path / "benchmarks" / "results" / f"{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(run))
    lines = render(tmp_path)[tmp_path / "README.md"].splitlines()
    assert [line.split(" | ")[0] for line in lines if "resnet" in line] == [
        "| OSDTW (released)",
        "| OSDTW",
        "| balanced softmax",
    ]


def test_an_absent_group_and_more_tasks_are_no_errors():
    no_few = results(test={**results()["test"], "few": None})
    assert "| - |" in card(RELEASE, no_few, TEMPLATE)
    assert "| - |" in table({}, {"no_few": no_few})
    three = {name: value for name, value in results()["test"].items() if name not in ("head", "tail")}
    three |= {f"task{k}": 11.11 * (k + 1) for k in range(3)}
    plan = {"source": "recipe", "shared_depth": 5, "task_weights": [0.2, 0.3, 0.5]}
    text = card(RELEASE, results(test=three, plan=plan), TEMPLATE)
    assert "33.33 %" in text
    assert "3 tasks" in text
    assert "calibrated" not in text


def test_a_users_path_stays_out_of_the_documents():
    own = results(data="/home/someone/birds", imbalance_factor=None)
    text = card(RELEASE, own, TEMPLATE)
    assert "someone" not in text
    assert "Trained on birds." in text
    assert "Of the data nothing is known here but the name" in text
    assert text.endswith("\nData: birds.\n")
    assert "Of the data nothing is known" not in card(RELEASE, results(), TEMPLATE)


def test_a_users_run_is_carded_as_what_it_is():
    """A folder without a test set, a peer's method, a repository of the user's own."""
    reliability = {"images": [3, 4], "confidence": [40.0, 90.0], "accuracy": [33.33, 100.0]}
    before = {"ece": 12.34, "nll": 1.23}
    own = peer(
        data="birds",
        imbalance_factor=None,
        blocks=8,
        image_size=[96, 64],
        holdout={**results()["test"], "few": None, "breakdown": {"reliability": reliability}},
        calibration={"images": 7, "tasks": [], "before": {"holdout": before}},
        epoch_taken={"stage": "train", "epochs": 5, "of": 9, "metric": "balanced_acc", "value": 50.0},
    )
    del own["test"]
    release = Release("birds", source="hf-hub:someone/birds", license="cc-by-4.0", figures=("reliability.png", "x.png"))
    text = card(release, own, template())
    assert "trained with balanced softmax for 3 classes" in text
    assert "96x64" in text
    assert "On the held-out images (7; there is no test set" in text
    assert 'timm.create_model("hf-hub:someone/birds", pretrained=True)' in text
    assert "osdtw-predict --model hf-hub:someone/birds" in text
    assert "were fitted on 7 held-out images (before: 12.34 %, 1.23 nats)" in text
    assert "after epoch 5 of 9 of stage train, the best by balanced_acc" in text
    assert f"None: {METHODS['balanced_softmax']} divides nothing into tasks." in text
    assert "osdtw-train peer --data birds\n" in text
    assert f"![{CAPTIONS['reliability.png']}](reliability.png)" in text
    assert "x.png" not in text
    shown = ModelCard(text).data
    assert (shown.license, shown.datasets) == ("cc-by-4.0", None)
    assert "Accuracy, few" not in {result.metric_name for result in shown.eval_results}
    assert {result.dataset_split for result in shown.eval_results} == {"holdout"}


@pytest.mark.parametrize(
    ("tasks", "said"),
    [
        ([[1.2, 0.0], [0.9, 0.0]], "after the tasks' temperatures were fitted"),
        ([[1.2, 0.1], [0.9, -0.1]], "after a temperature and a bias of each task were fitted"),
        ([[1.2, 0.0], [1.2, 0.0]], "after one temperature was fitted"),
        ([[1.2, 0.1], [1.2, -0.1]], "after one temperature and a bias of each task were fitted"),
    ],
)
def test_a_card_says_what_calibration_fitted(tasks, said):
    fitted = {"images": 7, "tasks": tasks, "before": {"test": {"ece": 12.34, "nll": 1.23}}}
    assert said in card(RELEASE, results(calibration=fitted), TEMPLATE)


def test_an_open_none_and_other_widths_are_told_apart_from_what_is_usual():
    costs = {"training_passes": {"joint": 4.5}, "inference_ratio": 1.375}
    usual = card(RELEASE, results(**costs), TEMPLATE)
    other = replace(RELEASE, arguments={"open_none": True, "widths": [16, 32, 48]})
    text = card(other, results(**costs), TEMPLATE)
    assert 'with a "none" class for images of the other tasks. The answers are fused' in usual
    assert "widths" not in usual
    assert "the answer is the mean over the tasks" not in usual
    assert '"none" for images of the other tasks that is open' in text
    assert "the answer is the mean over the tasks" in text
    assert "(16-32-48 channels, 470,004 parameters" in text
    assert "1.38 times the multiply-adds of the plain backbone of the usual widths" in text


def test_costs_that_newer_runs_write_down_are_stated():
    text = card(RELEASE, results(training_passes={"joint": 4.5, "refit": 0.25}, inference_ratio=1.375), TEMPLATE)
    assert "statistics counted: 4.8 passes" in text
    assert "1.38 times the multiply-adds of the plain backbone." in text
    assert "None of them was held out." in card(RELEASE, results(training_counts=[900, 40, 4]), TEMPLATE)


def test_cards_show_the_pictures_that_their_results_draw(tmp_path):
    """Compared as pixels and not as bytes: fonts may be drawn a little differently elsewhere."""
    for path, figure in pictures():
        drawn, kept = (
            np.asarray(Image.open(file).convert("RGB"), dtype=float)
            for file in (save(figure, tmp_path / path.name), path)
        )
        assert drawn.shape == kept.shape
        assert np.abs(drawn - kept).mean() < 2, f"{path} is old; run python benchmarks/card_pictures.py"
        shown = path.parent.with_name(f"{path.parent.name}.md").read_text(encoding="utf-8")
        assert f"]({path.parent.name}/{path.name})" in shown


def test_every_captioned_picture_is_one_that_runs_draw():
    source = (ROOT / "training" / "osdtw_training" / "figures.py").read_text(encoding="utf-8")
    assert set(re.findall(r'"(\w+\.png)"', source)) == CAPTIONS.keys()


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
    release = tmp_path / "osdtw_models" / "weights" / RELEASE.name
    release.mkdir(parents=True)
    (release / "config.json").write_text(json.dumps({"architecture": "osdtw_resnet32"}))
    (release / "results.json").write_text("{")
    assert main([str(tmp_path)]) == 2
    assert "is not JSON" in capsys.readouterr().err
    (release / "results.json").write_text(json.dumps(results()))
    assert main([str(tmp_path), "--check"]) == 1
    assert not (tmp_path / "model_cards" / f"{RELEASE.name}.md").exists()
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith("before <!-- results -->\n|")
    assert text.endswith("<!-- /results --> after")
