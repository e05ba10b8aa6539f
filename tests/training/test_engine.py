"""The training loop: its learning rates, what it trains, and that a resumed stage ends like an undisturbed one."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osdtw_training import engine
from osdtw_training.batches import Batches
from osdtw_training.engine import fit
from osdtw_training.recipe_tables import Schedule
from osdtw_training.runs import Run

BATCHES = 4


class Small(nn.Module):
    """An encoder with batch norm and a decoder; enough to see what training touches."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.decoder = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3))

    def forward(self, x):
        return self.decoder(self.encoder(x))


@pytest.fixture
def small():
    def small():
        torch.manual_seed(0)
        return Small()

    return small


@pytest.fixture
def batches(noise, tiny):
    return Batches(noise(labels=[0, 1, 2, 0] * 8), list(range(32)), tiny(batch_size=8))


@pytest.fixture
def train(batches, tiny, tmp_path):
    """Train a network, all of it if not told otherwise, in a run folder."""

    def train(network, run="run", trained=None, loss=None, schedule=None, recipe=None, **arguments):
        def plain(images, labels):
            return F.cross_entropy(network(images), labels)

        arguments = {"stage": "stage", "batches": batches, **arguments}
        fit(
            network=network,
            trained=trained or [network],
            loss=loss or plain,
            schedule=schedule or Schedule(3, 0.1),
            recipe=recipe or tiny(),
            run=Run(tmp_path / run),
            **arguments,
        )
        return Run(tmp_path / run)

    return train


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


@pytest.fixture
def stopped_after(monkeypatch, small, train):
    """Train a network of its own and stop right after the checkpoint of an epoch was written."""
    save = Run.save_checkpoint

    def stopped_after(epochs):
        def stop(self, stage, tensors, state):
            save(self, stage, tensors, state)
            if state["epoch"] == epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Run, "save_checkpoint", stop)
            with pytest.raises(KeyboardInterrupt):
                train(small(), "stopped")

    return stopped_after


def test_a_resumed_stage_ends_like_an_undisturbed_one(small, train, stopped_after):
    whole, resumed = small(), small()
    expected = train(whole, "whole")
    stopped_after(2)
    found = train(resumed, "stopped")
    assert_same(resumed.state_dict(), whole.state_dict())
    assert_same(found.load_checkpoint("stage")[0], expected.load_checkpoint("stage")[0])  # momentum, too
    assert [(row["epoch"], row["loss"]) for row in found.metrics()] == [
        (row["epoch"], row["loss"]) for row in expected.metrics()
    ]


def test_without_the_saved_momentum_it_would_end_elsewhere(small, train, stopped_after, monkeypatch):
    whole, resumed = small(), small()
    train(whole, "whole")
    stopped_after(2)
    unpack = engine.unpack_state
    monkeypatch.setattr(engine, "unpack_state", lambda tensors, optimizer: unpack(tensors, None))
    train(resumed, "stopped")
    assert not torch.equal(resumed.encoder[0].weight, whole.encoder[0].weight)


def test_a_finished_stage_is_loaded_and_not_trained(small, train):
    network, again = small(), small()
    train(network)
    train(again, loss=lambda images, labels: pytest.fail("trained again"))
    assert_same(again.state_dict(), network.state_dict())
    assert not again.training


def test_a_line_logged_before_the_crash_is_written_once(small, train, monkeypatch):
    def crash(*_):
        raise KeyboardInterrupt  # after the metrics, before the checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_checkpoint", crash)
        with pytest.raises(KeyboardInterrupt):
            train(small())
    assert [row["epoch"] for row in train(small()).metrics()] == [0, 1, 2]


def test_only_the_trained_parts_change(small, train):
    network, before = small(), small()
    train(network, trained=[network.decoder])
    assert_same(network.encoder.state_dict(), before.encoder.state_dict())
    changed = {
        key: not torch.equal(v, before.decoder.state_dict()[key]) for key, v in network.decoder.state_dict().items()
    }
    assert all(changed.values())


def test_frozen_parts_stay_in_evaluation_mode(small, train):
    network, modes = small(), []

    def loss(images, labels):
        modes.append((network.encoder.training, network.decoder.training, network.decoder[0].training))
        return F.cross_entropy(network(images), labels)

    train(network, trained=[network.decoder], loss=loss)
    assert set(modes) == {(False, True, True)}
    assert not network.decoder.training


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_checkpoint(small, train, tmp_path):
    network, calls = small(), []

    def loss(images, labels):
        calls.append(0)
        value = F.cross_entropy(network(images), labels)
        return value * float("nan") if len(calls) == BATCHES + 2 else value

    with pytest.raises(FloatingPointError, match=f"loss of stage stage is nan in epoch 2, batch 2 of {BATCHES}; train"):
        train(network, loss=loss)
    run = Run(tmp_path / "run")
    tensors, state = run.load_checkpoint("stage")
    assert state == {"epoch": 1}
    assert all(value.isfinite().all() for value in tensors.values())
    assert [row["epoch"] for row in run.metrics()] == [0]


def test_weights_that_the_last_step_spoils_are_not_saved(small, train, tmp_path):
    network, calls = small(), []

    def loss(images, labels):
        calls.append(0)
        value = F.cross_entropy(network(images), labels)
        if len(calls) == 2 * BATCHES:
            value.register_hook(lambda gradient: gradient * float("inf"))  # the loss is finite, its gradient is not
        return value

    with pytest.raises(FloatingPointError, match=f"spoilt .* in epoch 2, batch {BATCHES} of {BATCHES}"):
        train(network, loss=loss)
    tensors, state = Run(tmp_path / "run").load_checkpoint("stage")
    assert state == {"epoch": 1}
    assert all(value.isfinite().all() for value in tensors.values())


@pytest.mark.parametrize("rise", [0, 1.5])
def test_the_rate_rises_linearly_and_falls_as_a_cosine(small, train, monkeypatch, rise):
    network, rates, made = small(), [], []
    create = engine.create_optimizer_v2
    monkeypatch.setattr(engine, "create_optimizer_v2", lambda *a, **k: made.append(create(*a, **k)) or made[-1])

    def loss(images, labels):
        rates.append(made[0].param_groups[0]["lr"])
        return F.cross_entropy(network(images), labels)

    run = train(network, loss=loss, schedule=Schedule(5, 0.2, 0.05, rise))
    steps, risen = 5 * BATCHES, round(rise * BATCHES)
    cosine = [0.05 + 0.075 * (1 + math.cos(math.pi * t / steps)) for t in range(steps)]
    assert rates[risen:] == pytest.approx(cosine[risen:])
    rising = [0, *rates[:risen], 0.2]
    assert rising == sorted(rising)
    assert rates[:risen] == pytest.approx([rates[0] + t * (0.2 - rates[0]) / max(risen, 1) for t in range(risen)])
    assert [row["lr"] for row in run.metrics()] == rates[BATCHES - 1 :: BATCHES]


def test_the_logged_loss_is_the_mean_over_batches(small, train):
    network, values = small(), []

    def loss(images, labels):
        values.append(F.cross_entropy(network(images), labels))
        return values[-1]

    rows = train(network, loss=loss).metrics()
    means = torch.stack(values).view(3, BATCHES).double().mean(1).tolist()
    assert [row["loss"] for row in rows] == pytest.approx(means)
    assert {row["stage"] for row in rows} == {"stage"}


def test_weight_decay_spares_biases_and_batch_norm(small, train):
    network, before = small(), small()
    train(network, loss=lambda images, labels: 0 * network(images).sum())
    for name, parameter in network.named_parameters():
        shrunk = parameter.norm() < dict(before.named_parameters())[name].norm()
        assert shrunk == (parameter.ndim > 1), name


def test_epochs_are_numbered_over_the_whole_run(small, train, batches):
    asked = []
    shown = lambda epoch: asked.append(epoch) or batches.epoch(epoch)  # noqa: E731
    counted = SimpleNamespace(steps=batches.steps, batch_size=batches.batch_size, epoch=shown)
    train(small(), batches=counted, first_epoch=7)
    assert asked == [7, 8, 9]


@pytest.mark.parametrize("amp", ["none", "bfloat16"])
def test_the_recipe_decides_the_precision_of_the_forward_pass(small, train, tiny, amp):
    network, kinds = small(), set()

    def loss(images, labels):
        logits = network(images)
        kinds.add(logits.dtype)
        return F.cross_entropy(logits.float(), labels)

    train(network, loss=loss, recipe=tiny(amp=amp), schedule=Schedule(1, 0.1))
    assert kinds == {torch.bfloat16 if amp == "bfloat16" else torch.float32}
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
