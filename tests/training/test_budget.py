"""Training cost against torch's counter on real steps."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from osdtw_models import create_model
from osdtw_models.partition import ClassPartition
from osdtw_training.benchmark_list import read_list
from osdtw_training.budget import training_passes
from osdtw_training.methods.experts import new_experts
from osdtw_training.networks import new_network
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_files import changed, read_recipe
from osdtw_training.recipe_tables import Refit, Schedule, Search

TASKS = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def step(network, forward):
    """Multiply-adds of a forward and a backward pass."""
    with FlopCounterMode(display=False) as counter:
        forward(network).square().sum().backward()
    return counter.get_total_flops() / 2


@pytest.fixture
def images():
    return torch.randn(2, 3, 32, 32)


@pytest.fixture
def plain(images):
    return step(create_model("osdtw_resnet14", num_classes=10, task_classes=[list(range(10))]), lambda net: net(images))


@pytest.mark.parametrize("depth", [0, 3, 7])
def test_joint_and_refit_passes_are_those_of_real_steps(depth, images, plain):
    network = create_model("osdtw_resnet14", num_classes=10, task_classes=TASKS, shared_depth=depth)
    fixed = {"shared_depth": depth, "task_weights": (0.5, 0.5)}
    recipe = dataclasses.replace(Recipe(model="osdtw_resnet14", **fixed), refit=Refit(epochs=1))
    recipe = dataclasses.replace(recipe, joint=dataclasses.replace(recipe.joint, epochs=1))
    found = training_passes(recipe, network, 100)
    joint = step(network, lambda net: torch.cat(net.forward_tasks(images), 1))

    def frozen(net):
        with torch.no_grad():
            shared = net.forward_encoder(images)
        return torch.cat([net.forward_decoder(shared, k) for k in (0, 1)], 1)

    # The first convolution passes no gradient to the image: the count is a little less than three forward passes.
    assert found["joint"] == pytest.approx(joint / plain, rel=0.02)
    assert found["refit"] == pytest.approx(step(network, frozen) / plain, rel=0.06, abs=0.005)
    assert found["statistics"] == found["replicates"] == 0


def test_the_recipes_of_the_table_cost_forty_passes():
    network = create_model("osdtw_resnet20", shared_depth=10)
    ours = training_passes(read_recipe("cifar100_lt_r20_osdtw"), network, 10_353)
    assert sum(ours.values()) == pytest.approx(40, rel=0.05)
    _, entries = read_list(Path(__file__).parents[2] / "benchmarks" / "cifar100_lt.toml")
    for entry in entries:
        given, recipe = dict(zip(entry.options[::2], entry.options[1::2], strict=True)), read_recipe(entry.recipe)
        if recipe.method != "osdtw":
            epochs = int(given.get("--train.epochs", recipe.train.epochs))
            recipe = changed(recipe, {"method": given["--method"], "train": {"epochs": epochs}})
            experts = recipe.method in ("ride", "sade")
            peer = new_experts(recipe, 100) if experts else new_network(recipe, ClassPartition.single(100))
            assert sum(training_passes(recipe, peer, 10_353).values()) == pytest.approx(40, rel=0.05), entry.name


def test_a_balanced_batch_is_one_more_forward_pass_in_three(images, plain):
    recipe = Recipe(model="osdtw_resnet14", method="mfm", train=Schedule(epochs=1))
    network = new_network(recipe, ClassPartition.single(10))
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        network(images)
    taken = plain + forward.get_total_flops() / 2
    assert training_passes(recipe, network, 100)["train"] == pytest.approx(taken / plain, rel=0.02)


def test_narrow_experts_and_wide_networks_are_counted_in_passes_of_the_models_own_width(images, plain):
    recipe = Recipe(model="osdtw_resnet14", method="ride", train=Schedule(epochs=1))
    experts = new_experts(recipe, 10)
    assert [info["num_chs"] for info in experts.feature_info] == [16, 3 * 24, 3 * 48]
    assert experts.shared_depth == 3  # stem and first stage
    taken = step(experts, lambda net: torch.cat(net.forward_tasks(images), 1))
    assert training_passes(recipe, experts, 100)["train"] == pytest.approx(taken / plain, rel=0.02)
    recipe = dataclasses.replace(recipe, method="cross_entropy", widths=(20, 40, 80))
    wide = new_network(recipe, ClassPartition.single(10))
    assert training_passes(recipe, wide, 100)["train"] == pytest.approx(
        step(wide, lambda net: net(images)) / plain, rel=0.02
    )


def test_more_images_in_the_statistics_cost_more():
    network = create_model("osdtw_resnet14", shared_depth=4)
    costs = [
        training_passes(Recipe(model="osdtw_resnet14", search=Search(samples=n)), network, 1000)["statistics"]
        for n in (10, 100)
    ]
    assert costs[1] == pytest.approx(10 * costs[0])
