"""One step: micro-batches, the average of the weights, loss scaling, recomputed and compiled blocks."""

import copy
from itertools import islice

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osdtw_models import create_model
from osdtw_training.batches import Batches
from osdtw_training.engine import fit
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Schedule
from osdtw_training.runs import Run
from osdtw_training.steps import Stepper, has_bfloat16, training_ways


@pytest.fixture
def batches(noise, tiny):
    def batches(**changes):
        return Batches(noise(labels=[0, 1, 2, 0] * 8), list(range(32)), tiny(batch_size=16, **changes))

    return batches


@pytest.fixture
def plain():
    """A network with batch norm, and one without."""

    def plain(norm=True):
        torch.manual_seed(0)
        middle = nn.BatchNorm2d(4) if norm else nn.Identity()
        return nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))

    return plain


@pytest.fixture
def train(tmp_path):
    """Train a network by a recipe's settings, two epochs of two steps; gives its run folder."""

    def train(network, batches, folder="run", epochs=2, forward=None):
        def loss(images, labels):
            return F.cross_entropy((forward or network)(images).float(), labels)

        run = Run(tmp_path / folder)
        fit("stage", network, [network], loss, batches, Schedule(epochs, 0.1, anneal_epochs=2), batches.recipe, run)
        return run

    return train


def assert_same(first, second):
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("parts", [1, 3, 4])
def test_micro_batches_sum_to_the_gradients_of_the_whole_batch(plain, batches, parts):
    network, shown = plain(norm=False).double(), batches(accumulate=parts)
    whole = next(batches().epoch(0))
    micro = list(islice(shown.epoch(0), parts))
    assert torch.equal(torch.cat([images for images, _ in micro]), whole[0])
    assert torch.equal(torch.cat([labels for _, labels in micro]), whole[1])
    F.cross_entropy(network(whole[0].double()), whole[1]).backward()
    expected = [parameter.grad.clone() for parameter in network.parameters()]
    stepper = Stepper(nn.ModuleList([network]), torch.optim.SGD(network.parameters(), 0.0), shown.recipe)
    value = stepper.step(lambda x, y: F.cross_entropy(network(x.double()), y), micro, 16)
    torch.testing.assert_close([parameter.grad for parameter in network.parameters()], expected)
    torch.testing.assert_close(value, F.cross_entropy(network(whole[0].double()), whole[1]).detach())


def test_an_epoch_in_micro_batches_takes_as_many_steps(plain, batches, train):
    network = plain()
    run = train(network, batches(accumulate=2))
    assert network[1].num_batches_tracked == 2 * 2 * 2  # epochs, steps, micro-batches
    assert len(run.metrics()) == 2


@pytest.mark.parametrize("norm", [True, False])
def test_a_stage_ends_with_the_average_of_its_weights(plain, batches, train, monkeypatch, norm):
    network, seen = plain(norm), []
    average = copy.deepcopy(network.state_dict())
    step = Stepper.step

    def watched(self, *args):
        value = step(self, *args)
        seen.append(copy.deepcopy(network.state_dict()))
        return value

    monkeypatch.setattr(Stepper, "step", watched)
    train(network, batches(ema=0.7))
    assert len(seen) == 4
    for state in seen:
        for key, value in state.items():
            average[key] = 0.7 * average[key] + 0.3 * value if value.is_floating_point() else value
    torch.testing.assert_close(network.state_dict(), average)
    assert not torch.equal(network[0].weight, seen[-1]["0.weight"])


@pytest.mark.parametrize("changes", [{"ema": 0.7}, {"optimizer": "adamw"}, {"accumulate": 2, "ema": 0.5}])
def test_a_resumed_stage_ends_bit_by_bit_like_an_undisturbed_one(plain, batches, train, changes):
    whole, half, resumed = plain(), plain(), plain()
    train(whole, batches(**changes, **fixed(changes)), "whole")
    train(half, batches(**changes, **fixed(changes)), "parts", epochs=1)
    train(resumed, batches(**changes, **fixed(changes)), "parts")
    assert_same(resumed.state_dict(), whole.state_dict())
    again = plain()  # a stage that is done gives its average, too
    train(again, batches(**changes, **fixed(changes)), "parts")
    assert_same(again.state_dict(), whole.state_dict())


def fixed(changes):
    """A plan where there can be no search."""
    return {"shared_depth": 1, "task_weights": (0.5, 0.5)} if "optimizer" in changes else {}


def test_float16_scales_the_loss_and_keeps_the_scale_in_the_checkpoint(plain, batches, train):
    shown = batches()
    object.__setattr__(shown.recipe, "amp", "float16")  # a recipe refuses it without a GPU
    run = train(plain(), shown, epochs=1)
    scaler = run.load_checkpoint("stage")[1]["scaler"]
    assert (scaler["scale"], scaler["_growth_tracker"]) == (2.0**16, 2)
    stepper = Stepper(nn.ModuleList([plain()]), torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1), shown.recipe)
    stepper.load({}, {"scaler": {**scaler, "scale": 8.0}})
    assert stepper.scaler.get_scale() == 8.0


def test_a_step_whose_gradients_overflow_is_left_out(plain, batches):
    network, shown = plain(), batches()
    object.__setattr__(shown.recipe, "amp", "float16")
    stepper = Stepper(nn.ModuleList([network]), torch.optim.SGD(network.parameters(), 0.1), shown.recipe)
    before = copy.deepcopy(list(network.parameters()))
    stepper.step(lambda x, y: F.cross_entropy(network(x), y) * 1e38, [next(shown.epoch(0))], 16)
    assert all(map(torch.equal, before, network.parameters()))
    assert stepper.scaler.get_scale() == 2.0**15


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"amp": "float16"}, 'amp "float16" needs a GPU, but device is cpu'),
        ({"optimizer": "adamw"}, "takes its damping from the learning rates of sgd; give shared_depth"),
        ({"ema": 1.0}, "ema is 1.0; give the decay"),
        ({"accumulate": 0}, "accumulate is 0; it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Recipe(**changes)
    assert Recipe(amp="float16", device="cuda:1").amp == "float16"
    assert Recipe(optimizer="adamw", method="cross_entropy").optimizer == "adamw"


@pytest.fixture
def ours():
    def ours():
        torch.manual_seed(0)
        return create_model("osdtw_resnet14", num_classes=3, shared_depth=3)

    return ours


def test_recomputed_blocks_give_the_same_network(ours, batches, train):
    networks = [ours(), ours()]
    for network, recompute in zip(networks, (False, True), strict=True):
        train(network, batches(grad_checkpointing=recompute), str(recompute))
        assert not network.grad_checkpointing
    assert_same(networks[0].state_dict(), networks[1].state_dict())  # batch norm has counted no batch twice


def test_blocks_are_recomputed_while_training(ours, batches, train):
    network, counts = ours(), {True: 0, False: 0}
    block = network.encoder.block2
    for recompute in (False, True):
        hook = block.register_forward_pre_hook(lambda *_, key=recompute: counts.update({key: counts[key] + 1}))
        train(network, batches(grad_checkpointing=recompute), str(recompute))
        hook.remove()
    assert counts == {False: 4, True: 8}


def test_compiled_blocks_give_the_same_network_under_the_same_names(ours, batches, train, monkeypatch):
    compiled = []

    def compile(module_call, *args, **kwargs):
        compiled.append(module_call.__self__)
        return module_call

    monkeypatch.setattr(torch, "compile", compile)
    networks = [ours(), ours()]
    for network, wanted in zip(networks, (False, True), strict=True):
        train(network, batches(compile=wanted), str(wanted), epochs=1)
    expected = [*networks[1].encoder, *(block for decoder in networks[1].branches for block in decoder.block_list())]
    assert set(compiled) == set(expected)
    assert_same(networks[0].state_dict(), networks[1].state_dict())
    assert not any(block._compiled_call_impl for block in expected)


def test_ways_of_training_end_with_the_training(ours, tiny):
    network = ours()
    with training_ways(network, tiny(grad_checkpointing=True)):
        assert network.grad_checkpointing
    assert not network.grad_checkpointing


@pytest.mark.parametrize(
    ("told", "has"),
    [  # as torch documents what it tells
        ({"architecture": "x86_64", "avx512_bf16": True, "amx_bf16": False}, True),
        ({"architecture": "x86_64", "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, False),
        ({"architecture": "x86_64", "avx2": True}, False),
        ({"architecture": "arm64", "neon": True, "bf16": True, "sve_bf16": False}, True),
        ({"architecture": "arm64", "neon": True, "bf16": False, "sve_bf16": False}, False),
        ({}, True),  # nothing is known: nothing is said
    ],
)
def test_knows_processors_that_have_bfloat16(monkeypatch, told, has):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told, raising=False)
    assert has_bfloat16() == has


def test_a_torch_that_does_not_tell_is_taken_to_have_bfloat16(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert has_bfloat16()
