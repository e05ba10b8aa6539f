"""The command that a run's results state, read again by the parser of ``osdtw-train``."""

import shlex
from dataclasses import replace

import pytest
import tyro

from osdtw_training.commands import train_command
from osdtw_training.options import TrainOptions
from osdtw_training.recipe_files import changed, packaged_recipes, read_recipe

NAMES = packaged_recipes()


def parsed(command: str):
    """The recipe that ``osdtw-train`` reads from a command."""
    program, name, *words = shlex.split(command)
    assert program == "osdtw-train"
    return tyro.cli(TrainOptions, args=words, default=TrainOptions(read_recipe(name))).recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_packaged_recipe_needs_no_option(name):
    assert train_command(read_recipe(name)) == f"osdtw-train {name}"


@pytest.mark.parametrize(("name", "other"), [*zip(NAMES, NAMES[1:] + NAMES[:1], strict=True)])
def test_the_command_is_the_recipe(name, other):
    """Every recipe in the words of its neighbour, and in those of "folder" under a name that no recipe has."""
    for called in (name, "mine"):
        recipe = replace(read_recipe(other), name=called)
        assert parsed(train_command(recipe)) == recipe


def test_every_kind_of_value_is_an_option():
    fields = {"imbalance_factor": 50, "widths": None, "calibrate": False, "compile": True, "task_weights": [0.25, 0.75]}
    recipe = changed(read_recipe("cifar100_lt_strong"), {**fields, "weight_decay": 1e-05, "joint": {"epochs": 3}})
    command = train_command(recipe)
    assert parsed(command) == recipe
    assert "--imbalance-factor 50 " in command


def test_where_files_lie_is_not_told():
    fields = {"data": "/home/me/my birds", "data_dir": "/home/me", "class_weights": "/home/me/weights.csv"}
    command = train_command(changed(read_recipe("small_images"), fields))
    assert command == "osdtw-train small_images --data 'my birds' --class-weights weights.csv"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("~/birds", "birds"),
        ("../acme/birds", "birds"),
        ("lists/train.csv", "train.csv"),
        ("torch/mnist", "torch/mnist"),
    ],
)
def test_data_are_told_as_they_are_called(data, said):
    recipe = changed(read_recipe("small_images"), {"data": data})
    assert train_command(recipe) == f"osdtw-train small_images --data {said}"
