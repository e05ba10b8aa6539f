"""Two processes end like one, up to the order of sums: steps, peers that need the whole batch, a whole run.

Everything is in float64, where summation order is all that differs: training amplifies a difference of the last bit
by orders of magnitude within a few epochs, so what float32 would leave to compare says little.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import BatchNormAct2d
from torch import nn

from osdtw_training import distributed, figures
from osdtw_training.batch_norm import global_batch_norm
from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_files import changed
from osdtw_training.recipe_tables import Refit, Schedule
from osdtw_training.values import from_values, to_values

ROOT = Path(__file__).parents[2]
HEAD = "import sys; sys.path.insert(0, sys.argv[1]); import test_distributed as here\n"


@pytest.fixture
def in_processes(tmp_path):
    """Run a line of Python in several processes of torchrun; `here` is this file."""

    def in_processes(line, number=2):
        script = tmp_path / "script.py"
        script.write_text(HEAD + line)
        words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(number), str(script)]
        roofs = map(str, (ROOT, ROOT / "training", ROOT / "export"))
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(roofs)}
        command = ["timeout", "250", sys.executable, *words, str(Path(__file__).parent)]
        return subprocess.run(command, env=environment, capture_output=True, text=True)

    return in_processes


@pytest.fixture
def in_float64(monkeypatch):
    """Whole runs in float64, the places that ask for floats included."""
    torch.set_default_dtype(torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    yield
    torch.set_default_dtype(torch.float32)


def run(values, folder):
    """In a process of torchrun: run recipes, each in a folder of its own."""
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double
    figures.draw = lambda run: []
    for i, each in enumerate(json.loads(values)):
        run_recipe(from_values(Recipe, each), Path(folder) / str(i), resume=True)


def assert_same_runs(first, second):
    files = [file.relative_to(first) for file in first.rglob("*.safetensors")]
    recipe = json.loads((first / "recipe.json").read_text())
    if recipe["search"]["structure"] == "ekfac":  # coordinates known up to signs: the plan they give is compared
        files = [file for file in files if file.stem != "statistics"]
    assert files
    for file in files:
        own, other = load_file(first / file), load_file(second / file)
        assert own.keys() == other.keys()
        for key, value in own.items():
            torch.testing.assert_close(other[key], value, rtol=1e-7, atol=1e-7, msg=f"{file} {key}")
    results = [json.loads((folder / "results.json").read_text()) for folder in (first, second)]
    if (first / "plan.json").is_file():
        plans = [json.loads((folder / "plan.json").read_text()) for folder in (first, second)]
        assert plans[0]["shared_depth"] == plans[1]["shared_depth"]
        assert plans[0]["task_weights"] == pytest.approx(plans[1]["task_weights"])
        assert plans[0]["terms_nats"]["proxy"] == pytest.approx(plans[1]["terms_nats"]["proxy"], rel=1e-6)
    for split in ("test", "holdout"):
        own, other = ({k: v for k, v in each[split].items() if isinstance(v, float)} for each in results)
        assert own == pytest.approx(other, abs=1e-4)
    assert [each["hardware"]["processes"] for each in results] == [1, 2]
    losses = [
        [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (first, second)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)
    assert {file.name for file in first.iterdir()} == {file.name for file in second.iterdir()}


def assert_one_process_ends_alike(recipes, in_processes, folder):
    values = json.dumps([to_values(recipe) for recipe in recipes])
    done = in_processes(f"here.run({values!r}, {str(folder / 'two')!r})")
    assert not done.returncode, done.stderr
    for i, recipe in enumerate(recipes):
        run_recipe(recipe, folder / "one" / str(i))
        assert_same_runs(folder / "one" / str(i), folder / "two" / str(i))
    return done


def step_in_each():
    """In a process of torchrun: batch norm, gradients and gathered rows against the whole batch in one process."""
    with distributed.joined("cpu"):
        for kind in (nn.BatchNorm2d, BatchNormAct2d):
            nets = []
            for _ in range(2):
                torch.manual_seed(1)
                layers = [nn.Conv2d(3, 5, 3), kind(5), nn.Conv2d(5, 4, 3), kind(4), nn.Flatten(), nn.Linear(64, 3)]
                nets.append(nn.Sequential(*layers).double())
                nets[-1][3].momentum = None  # cumulative averages, as recalibration takes them
            images, labels = torch.randn(7, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 2])
            weights = torch.tensor([1.0, 5.0, 0.2], dtype=torch.float64)
            own = distributed.share(7)
            for _ in range(2):
                logits = nets[0](images)
                whole = nn.functional.cross_entropy(logits, labels, weight=weights)
                whole.backward()
                with global_batch_norm(nets[1]):
                    rows = distributed.gathered(nets[1](images[own]))
                    torch.testing.assert_close(rows, logits)
                    part = nn.functional.cross_entropy(rows, distributed.gathered(labels[own]), weight=weights)
                    (part * len(labels[own]) / 7).backward()
                torch.testing.assert_close(part, whole)
            distributed.sum_gradients(nets[1].parameters())
            for expected, found in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
                torch.testing.assert_close(found.grad, expected.grad)
            torch.testing.assert_close(dict(nets[1].named_buffers()), dict(nets[0].named_buffers()))
            assert nets[1].state_dict().keys() == nets[0].state_dict().keys()
        print(f"{distributed.processes()} processes, {distributed.number()} prints")


def test_a_step_of_two_processes_is_that_of_one(in_processes):
    done = in_processes("here.step_in_each()")
    assert not done.returncode, done.stderr
    assert done.stdout == "2 processes, 0 prints\n"  # the others are silent


@pytest.mark.slow
def test_peers_that_need_the_whole_batch_end_like_in_one_process(in_processes, in_float64, no_figures, tiny, tmp_path):
    short = tiny(method="mislas", train=Schedule(1, 0.05), refit=Refit(1, 0.05), batch_size=63, calibrate=True)
    late = {"peer": {"defer": 0.0}}  # class weights from the start
    recipes = [short, *(replace(short, method=name) for name in ("bags", "class_balanced", "nbn", "sade"))]
    recipes += [changed(short, {"method": name, **late}) for name in ("ldam_drw", "ride")]
    assert_one_process_ends_alike(recipes, in_processes, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("structure", ["refit", "diagonal", "ekfac"])
def test_a_whole_run_of_two_processes_ends_like_that_of_one(
    in_processes, in_float64, no_figures, tiny, tmp_path, structure
):
    stages = {stage: {"epochs": 1} for stage in ("warmup", "tasks", "joint", "refit")}
    recipe = changed(tiny(batch_size=63), {**stages, "search": {"structure": structure}})
    done = assert_one_process_ends_alike([recipe], in_processes, tmp_path)
    assert done.stdout.count("Plan found by the search") == 1
    again = in_processes(f"here.run({json.dumps([to_values(recipe)])!r}, {str(tmp_path / 'two')!r})")
    assert not again.returncode, again.stderr  # resumed: all stages are found, nothing is trained
    assert_same_runs(tmp_path / "one" / "0", tmp_path / "two" / "0")


@pytest.mark.slow
def test_what_processes_cannot_share_is_refused(in_processes, tiny, tmp_path):
    values = json.dumps([to_values(tiny(method="cross_entropy", batch_size=1, train=Schedule(1, 0.1)))])
    done = in_processes(f"here.run({values!r}, {str(tmp_path / 'run')!r})")
    assert done.returncode
    assert "A batch of 1 images cannot be split over 2 processes and 1 micro-batches" in done.stderr
    values = json.dumps([to_values(tiny(method="mfm", train=Schedule(1, 0.1)))])
    done = in_processes(f"here.run({values!r}, {str(tmp_path / 'other')!r})")
    assert done.returncode
    assert "mfm takes its virtual step on whole batches" in done.stderr


@pytest.mark.parametrize("total", [0, 1, 2, 7, 12])
@pytest.mark.parametrize("processes", [1, 2, 3, 5])
def test_shares_are_even_and_leave_nothing_out(monkeypatch, total, processes):
    monkeypatch.setattr(distributed, "processes", lambda: processes)
    parts = []
    for number in range(processes):
        monkeypatch.setattr(distributed, "number", lambda number=number: number)
        parts.append(list(range(total))[distributed.share(total)])
    assert [each for part in parts for each in part] == list(range(total))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
