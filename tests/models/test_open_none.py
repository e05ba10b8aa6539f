"""An open "none": tasks that tell the classes behind it apart; theory.md Prop 9 by enumeration."""

import json

import pytest
import torch
from timm.models import save_for_hf

from osdtw_models import ClassPartition, Predictor, cost, create_model
from osdtw_models.checkpoint import convert_checkpoint
from osdtw_models.fusion import calibrate, close, fuse
from osdtw_models.predict import TorchClassifier

TASKS = [[4, 1], [5, 0, 3, 2]]
ORDERS = [[4, 1, 0, 2, 3, 5], [5, 0, 3, 2, 1, 4]]  # own classes, then the others
OPEN = {"task_classes": TASKS, "open_none": True, "fusion": "mean"}


def test_outputs_are_the_own_classes_and_then_all_others():
    partition = ClassPartition(TASKS, open_none=True)
    assert partition.has_none
    assert not partition.experts
    assert partition.output_sizes == (6, 6)
    assert [[order[place] for place in row] for order, row in zip(ORDERS, partition.output_maps, strict=True)] == [
        list(range(6))
    ] * 2
    closed = ClassPartition(TASKS)
    assert torch.equal(closed.output_maps, closed.label_maps)
    assert torch.equal(partition.label_maps, closed.label_maps)  # what a task calls a class stays
    assert partition.renewed(4, [1, 9, 2, 8]) == ClassPartition(((1, 3), (0, 2)), open_none=True)
    assert ClassPartition.resolve(6, TASKS, open_none=True) == partition


@pytest.mark.parametrize("tasks", [[[0, 1, 2]], [[0, 1], [0, 1]]])
def test_without_a_none_there_is_nothing_to_open(tasks):
    with pytest.raises(ValueError, match='no "none" to open'):
        ClassPartition(tasks, open_none=True)


def test_the_mean_is_exact_at_exact_tasks_and_its_error_is_the_tasks_less_their_disagreement():
    truth = torch.randn(50, 6, dtype=torch.float64).log_softmax(1)
    exact = [truth[:, order] for order in ORDERS]
    aligned = [z[:, torch.argsort(torch.tensor(order))] for z, order in zip(exact, ORDERS, strict=True)]
    torch.testing.assert_close(fuse(aligned, "mean").softmax(1), truth.exp())

    tasks = [(truth + 0.5 * torch.randn(50, 6, dtype=torch.float64)).log_softmax(1) for _ in range(2)]
    fused = fuse(tasks, "mean").log_softmax(1)

    def error(found):
        return (truth.exp() * (truth - found)).sum(1)

    mass = (tasks[0].exp() * tasks[1].exp()).sqrt().sum(1)
    assert (mass < 1).all()
    torch.testing.assert_close(error(fused), (error(tasks[0]) + error(tasks[1])) / 2 + mass.log())


def test_a_closed_task_says_the_sum_of_what_is_behind_none():
    z = torch.randn(9, 6, dtype=torch.float64)
    each, closed = z.softmax(1), close(z, 2).softmax(1)
    torch.testing.assert_close(closed[:, :2], each[:, :2])
    torch.testing.assert_close(closed[:, 2], each[:, 2:].sum(1))


def test_a_network_fuses_in_class_order_and_its_tasks_have_a_none(build, images):
    net = build(**OPEN, shared_depth=4)
    outputs = net.forward_outputs(images)
    expected = sum(z[:, torch.argsort(torch.tensor(order))] for z, order in zip(outputs, ORDERS, strict=True)) / 2
    torch.testing.assert_close(net(images), expected)
    tasks = net.forward_tasks(images)
    assert [z.shape for z in tasks] == [(3, 3), (3, 5)]
    for z, said, own in zip(outputs, tasks, (2, 4), strict=True):
        torch.testing.assert_close(said.softmax(1)[:, -1], z.softmax(1)[:, own:].sum(1))
    assert cost(net)["ratio"] > 1


def test_temperature_and_bias_act_on_own_classes_and_on_what_is_behind_none(build, images):
    net = build(**OPEN, shared_depth=4)
    outputs = net.forward_outputs(images)
    net.set_calibration([[2.0, 0.5], [0.5, -1.0]])
    by_hand = []
    for z, (temperature, bias), own in zip(outputs, net.calibration, (2, 4), strict=True):
        scaled = z / temperature
        scaled[:, :own] += bias
        by_hand.append(scaled)
    found = calibrate(outputs, torch.tensor([2.0, 0.5]), torch.tensor([0.5, -1.0]), (2, 4))
    for ours, theirs, said, own in zip(by_hand, found, net.calibrated(outputs), (2, 4), strict=True):
        torch.testing.assert_close(theirs, ours)
        torch.testing.assert_close(said, close(ours, own))
    expected = sum(z[:, torch.argsort(torch.tensor(order))] for z, order in zip(by_hand, ORDERS, strict=True)) / 2
    torch.testing.assert_close(net.fuse(outputs), expected)
    torch.testing.assert_close(net.fuse_with(outputs, torch.tensor([2.0, 0.5]), torch.tensor([0.5, -1.0])), expected)


def test_it_is_saved_and_comes_back(tmp_path):
    net = create_model("osdtw_resnet14", num_classes=6, shared_depth=4, **OPEN).eval()
    images = torch.randn(3, 3, 32, 32)
    save_for_hf(net, tmp_path, model_args=net.model_args(), safe_serialization=True)
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["open_none"] is True
    again = create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(again(images), net(images))


def test_at_another_depth_it_is_the_same_function(build, images):
    net, shallow = build(**OPEN, shared_depth=4), build(**OPEN, shared_depth=2)
    shallow.load_state_dict(convert_checkpoint(net.state_dict(), shallow))
    torch.testing.assert_close(shallow(images), net(images))


def test_a_closed_network_does_not_take_its_weights(build):
    with pytest.raises(ValueError, match="another partition"):
        build(task_classes=TASKS).load_state_dict(build(**OPEN).state_dict())


def test_other_tasks_of_the_same_order_do_not_take_its_weights(build):
    parted = [{**OPEN, "task_classes": tasks} for tasks in ([[0, 1, 2], [3, 4, 5]], [[0, 1], [2, 3, 4, 5]])]
    with pytest.raises(ValueError, match="another partition"):
        build(**parted[0]).load_state_dict(build(**parted[1]).state_dict())


@pytest.mark.parametrize(("arguments", "fitting"), [({"fusion": "pool"}, "mean"), ({"open_none": False}, "raw")])
def test_mean_and_an_open_none_need_one_another(build, arguments, fitting):
    with pytest.raises(
        ValueError, match=rf"'mean' is for experts and for an open 'none', .*: give fusion '{fitting}'\."
    ):
        build(**{**OPEN, **arguments})
    build(**{**OPEN, **arguments, "fusion": fitting})


def test_new_classes_keep_none_open(build, images):
    net = build(**OPEN, shared_depth=4)
    net.reset_classifier(4)
    assert net.partition.open_none
    assert [z.shape for z in net.forward_tasks(images)] == [(3, 3), (3, 3)]


def test_a_prediction_tells_each_tasks_none():
    net = create_model("osdtw_resnet14", num_classes=6, shared_depth=4, **OPEN).eval()
    pixels = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8).numpy()
    found = Predictor(TorchClassifier(net))([pixels[0], pixels[1]])
    assert [len(each.none) for each in found] == [2, 2]
    floats = (
        torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor(net.pretrained_cfg["mean"])[:, None, None]
    ) / (torch.tensor(net.pretrained_cfg["std"])[:, None, None])
    expected = torch.stack([z.softmax(1)[:, -1] for z in net.forward_tasks(floats)], 1)
    torch.testing.assert_close(torch.tensor([each.none for each in found]), expected, rtol=1e-4, atol=1e-5)


def test_offsets_change_nothing():
    arguments = {"task_classes": [[0, 1], [2, 3, 4]], "open_none": True, "fusion": "mean"}
    plain = create_model("osdtw_resnet14", **arguments).eval()
    net = create_model("osdtw_resnet14", **arguments, logit_offsets=[[0.5, 1, 2, 3, 4]] * 2).eval()
    net.load_state_dict(plain.state_dict())
    outputs = plain.forward_outputs(torch.randn(2, 3, 32, 32))
    for ours, theirs in zip(
        [net.fuse(outputs), *net.calibrated(outputs)], [plain.fuse(outputs), *plain.calibrated(outputs)], strict=True
    ):
        assert torch.equal(ours, theirs)
