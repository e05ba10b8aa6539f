"""The doors osdtw-train and osdtw-search: sentences, exit codes, and a search without data."""

import json
import os
import re
import shutil
import signal
import time

import pytest

from osdtw_training import data
from osdtw_training.cli import report, search, train
from osdtw_training.recipe_files import packaged_recipes

TINY = "--warmup.epochs 1 --tasks.epochs 1 --joint.epochs 1 --refit.epochs 1 --search.samples 10 --search.weights 3"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(finished, here):
    """A copy of the finished run."""
    shutil.copytree(finished.folder, here / "run")
    return here / "run"


def refusal(capsys, door, command: str) -> str:
    """The one sentence on stderr with which a door refuses."""
    assert door(command.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"osdtw-{door.__name__}: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


def test_a_recipe_with_options_becomes_a_run(here, capsys, no_figures):
    assert train(f"digits_lt {TINY} --output out --shared-depth 3 --task-weights 0.5 0.5 --seed 4".split()) == 0
    out = capsys.readouterr().out
    for said in ("Data: digits", "Task 1: 5 classes", "Plan given by the recipe", "On the test images: overall", "out"):
        assert said in out
    recipe = json.loads((here / "out" / "recipe.json").read_text())
    assert (recipe["seed"], recipe["shared_depth"], recipe["tasks"]["epochs"]) == (4, 3, 1)
    assert json.loads((here / "out" / "results.json").read_text())["plan"]["task_weights"] == [0.5, 0.5]
    assert train("--output out --resume".split()) == 0  # no recipe: the folder knows its own


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", "No recipe given; name one of"),
        ("cifar1000", "No recipe cifar1000; give a TOML file or one of"),
        ("unknown.toml", "unknown key 'epochs'"),
        ("typed.toml", "'seed' must be of type int"),
        ("weights.toml", "must be positive and sum to 1"),
        ("digits_lt --num-tasks 11", "10 classes cannot be split into 11 tasks"),
        ("digits_lt --head-threshold 5000", "leaves the head task empty"),
        ("--data missing", "No folder missing"),
        ("--data empty", "empty holds no class folders"),
        ("digits_lt --data cifar100 --data-dir missing", "No folder missing"),
        ("--output nothing --resume", "No recipe given"),
    ],
)
def test_train_refuses_in_one_sentence(here, capsys, command, said):
    (here / "empty").mkdir()
    (here / "unknown.toml").write_text("epochs = 3")
    (here / "typed.toml").write_text('seed = "one"')
    (here / "weights.toml").write_text("task_weights = [0.5, 0.6]")
    assert said in refusal(capsys, train, command)
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "options",
    ["--seed one", "--fusion best", "--task-weights 0.5 0.6", "--no-such 3", "--mean 0.5", "--holdout 2"],
)
def test_train_refuses_options_before_it_begins(here, capsys, options):
    try:
        code = train(["digits_lt", *options.split()])
    except SystemExit as stopped:
        code = stopped.code
    assert code == 2
    err = capsys.readouterr().err
    assert "Traceback" not in err
    assert options.split()[0].strip("-").replace("-", "_") in err.replace("-", "_")
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    "options",
    ["--shared-depth 8", "--model osdtw_resnet15"],
)
def test_train_refuses_what_does_not_fit_the_network(capsys, options):
    assert options.split()[1] in refusal(capsys, train, f"digits_lt {TINY} {options}")


def test_a_run_is_not_overwritten(run, capsys):
    assert "pass --resume" in refusal(capsys, train, f"digits_lt --output {run}")
    assert "was begun with another" in refusal(capsys, train, f"digits_lt --output {run} --resume")


def test_a_stopped_run_says_how_to_go_on(here, capsys, monkeypatch):
    def stop(run, *args):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)

    monkeypatch.setattr("osdtw_training.runs.Run.save_checkpoint", stop)
    assert train(f"digits_lt {TINY} --output out".split()) == 143
    assert capsys.readouterr().err.splitlines()[-1] == (
        "osdtw-train: stopped; go on after the last finished epoch with: osdtw-train --output out --resume"
    )


def test_debug_shows_the_error_itself():
    with pytest.raises(FileNotFoundError, match="No recipe cifar1000"):
        train(["cifar1000", "--debug"])
    with pytest.raises(FileNotFoundError, match="is not a run folder"):
        search(["nothing", "--debug"])


@pytest.mark.parametrize("door", [search, train, report], ids=["search", "train", "report"])
def test_help_has_examples(door, capsys):
    with pytest.raises(SystemExit) as stopped:
        door(["--help"])
    assert stopped.value.code == 0
    out = capsys.readouterr().out
    assert re.search(rf"example.*osdtw-{door.__name__} ", out, re.DOTALL)


def test_recipes_named_in_the_help_exist(capsys):
    with pytest.raises(SystemExit):
        train(["--help"])
    named = re.findall(r"osdtw-train ([a-z]\w+) ", capsys.readouterr().out)
    assert named
    assert set(named) <= set(packaged_recipes())


@pytest.fixture
def no_data(monkeypatch):
    monkeypatch.setattr(data, "read_images", lambda *args: pytest.fail("read images"))


def test_a_search_answers_from_the_statistics_alone(run, capsys, no_data, no_figures):
    plan = json.loads((run / "plan.json").read_text())
    assert search([str(run)]) == 0
    again = json.loads((run / "plan.json").read_text())
    plan.pop("seconds"), again.pop("seconds")
    assert again == plan
    out = capsys.readouterr().out
    assert len(re.findall(r"^ +\d+  ", out, re.MULTILINE)) == 8  # depths 0 to 7
    assert out.count("<- plan") == 1


def test_a_search_takes_another_grid_and_keeps_what_is_fixed(run, no_data, no_figures):
    assert search([str(run), *"--shared-depth 5 --damping 10 --points 2".split()]) == 0
    plan = json.loads((run / "plan.json").read_text())
    assert plan["shared_depth"] == 5
    assert search([str(run), *"--task-weights 0.3 0.7".split()]) == 0
    assert json.loads((run / "plan.json").read_text())["task_weights"] == [0.3, 0.7]
    assert json.loads((run / "plan.json").read_text())["damping"] == pytest.approx(plan["damping"] / 10)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("nothing", "nothing is not a run folder"),
        ("", "the following arguments are required: RUN"),
        ("run --points many", "invalid int value: 'many'"),
        ("run --task-weights 0.5 0.6", "must be positive and sum to 1"),
    ],
)
def test_search_refuses_in_one_sentence(run, capsys, options, said):
    assert said in refusal(capsys, search, options)


@pytest.mark.parametrize(
    "options",
    ["--shared-depth 8", "--shared-depth -1", "--task-weights 0.2 0.3 0.5", "--task-weights 1.0", "--points 0"],
)
def test_search_refuses_what_does_not_fit_the_network(run, capsys, options, no_figures):
    option = options.split()[0].strip("-").replace("-", "_")
    assert option in refusal(capsys, search, f"run {options}").replace("-", "_")


def test_a_run_without_statistics_cannot_be_searched(run, capsys):
    (run / "checkpoints" / "statistics.safetensors").unlink()
    assert "has no statistics yet" in refusal(capsys, search, str(run))


def test_damaged_statistics_are_told(run, capsys):
    file = run / "checkpoints" / "statistics.safetensors"
    file.write_bytes(file.read_bytes()[:100])
    assert "statistics.safetensors is damaged" in refusal(capsys, search, str(run))
