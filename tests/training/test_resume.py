"""A run that is stopped in every stage and resumed each time ends bit by bit like an undisturbed one."""

import json

import pytest
import torch
from safetensors.torch import load_file

from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe_tables import Schedule
from osdtw_training.runs import Run


class Stop(Exception):
    pass


@pytest.fixture
def stop_at(monkeypatch):
    """Stop at a stage's checkpoint of an epoch: before it is written, or right after."""

    def stop_at(stage, epoch, after=True):
        save = Run.save_checkpoint

        def stop(self, name, tensors, state):
            here = name == stage and state.get("epoch") == epoch
            if after or not here:
                save(self, name, tensors, state)
            if here:
                raise Stop

        return stop

    return stop_at


@pytest.fixture
def interrupted(stop_at, monkeypatch, no_figures):
    """Run a recipe, stopped at each of the given points in turn, and resume it to the end."""

    def interrupted(recipe, folder, points):
        for point in points:
            with monkeypatch.context() as patch:
                patch.setattr(Run, "save_checkpoint", stop_at(*point))
                with pytest.raises(Stop):
                    run_recipe(recipe, folder, resume=True)
        return run_recipe(recipe, folder, resume=True)

    return interrupted


def losses(folder):
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [(row["stage"], row["epoch"], row["loss"], row["lr"]) for row in rows]


def assert_same_run(first, second):
    assert losses(first.folder) == losses(second.folder)
    for file in first.folder.rglob("*.safetensors"):
        name = file.relative_to(first.folder)
        tensors, others = load_file(first.folder / name), load_file(second.folder / name)
        assert tensors.keys() == others.keys()
        assert all(torch.equal(value, others[key]) for key, value in tensors.items()), name
    for key in ("plan", "test", "holdout"):
        assert first.results.get(key) == second.results.get(key)


def test_a_run_stopped_in_every_stage_ends_like_an_undisturbed_one(finished, interrupted, tiny, tmp_path):
    points = [
        ("warmup", 1),
        ("task0", 1),
        ("task1", 1, False),
        ("half1_task0", 1),
        ("statistics", None),
        ("joint", 1),
        ("refit", 1),
    ]
    assert_same_run(interrupted(tiny(), tmp_path / "run", points), finished)


@pytest.mark.parametrize("method", ["balanced_softmax", "ride", "nbn", "mfm"])
def test_a_peer_stopped_twice_ends_like_an_undisturbed_run(method, interrupted, tiny, tmp_path):
    recipe = tiny(method=method, train=Schedule(3, 0.05))
    whole = interrupted(recipe, tmp_path / "whole", [])
    assert_same_run(interrupted(recipe, tmp_path / "run", [("train", 1), ("train", 2, False)]), whole)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on_to_the_same_end(
    interrupted, tiny, tmp_path, capsys
):
    recipe = tiny(method="balanced_softmax", train=Schedule(2, 0.05))
    whole = interrupted(recipe, tmp_path / "whole", [])
    again = tmp_path / "again"
    interrupted(recipe, again, [])
    last, before = (again / "checkpoints" / f"train{which}.safetensors" for which in ("", ".previous"))
    last.write_bytes(last.read_bytes()[:1000])
    before_it = before.read_bytes()
    capsys.readouterr()
    assert_same_run(run_recipe(recipe, again, resume=True), whole)
    said = capsys.readouterr().out
    assert f"{last} is damaged" in said
    assert "going on from train.previous.safetensors" in said
    assert before.read_bytes() == before_it
    for file in (last, before):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"train\.safetensors is damaged .* no good one is left; delete it"):
        run_recipe(recipe, again, resume=True)
    for file in (last, before):
        file.unlink()
    assert_same_run(run_recipe(recipe, again, resume=True), whole)
