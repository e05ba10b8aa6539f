"""Costs against whole networks: torch's counter on the assembled network, parameters counted one by one."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from osdtw_models import cost, costs, create_model

TASKS = [[0, 1, 2, 3], [4, 5], [6]]


def counted(network, size=32):
    """Multiply-adds of one image through a network, and its parameters."""
    with FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, network.in_chans, size, size))
    return counter.get_total_flops() // 2, sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("tasks", [TASKS, [[0, 1, 2, 3], [4, 5, 6]], [[0, 1, 2, 3, 4, 5, 6]]])
def test_every_depth_costs_what_a_network_built_at_that_depth_costs(tasks):
    model = create_model("osdtw_resnet14", num_classes=7, in_chans=1, task_classes=tasks)
    plain, _ = counted(create_model("osdtw_resnet14", num_classes=7, in_chans=1, task_classes=[list(range(7))]))
    found = costs(model)
    assert [row["shared_depth"] for row in found] == list(range(8))
    for depth, row in enumerate(found):
        built = create_model("osdtw_resnet14", num_classes=7, in_chans=1, task_classes=tasks, shared_depth=depth)
        multiply_adds, parameters = counted(built)
        assert row["multiply_adds"]["total"] == multiply_adds
        assert row["parameters"]["total"] == parameters
        assert row["parameters"]["shared"] == sum(p.numel() for p in built.encoder.parameters())
        assert row["parameters"]["tasks"] == [sum(p.numel() for p in d.parameters()) for d in built.decoders]
        assert row["ratio"] == pytest.approx(multiply_adds / plain)
        for kind in ("parameters", "multiply_adds"):
            assert row[kind]["shared"] + sum(row[kind]["tasks"]) == row[kind]["total"]


def test_the_networks_own_depth_and_size_are_meant_if_nothing_is_said():
    model = create_model("osdtw_resnet20", num_classes=10, shared_depth=4)
    assert cost(model) == cost(model, 4, 32)
    assert cost(model, img_size=64)["multiply_adds"]["shared"] == 4 * cost(model)["multiply_adds"]["shared"]
    assert cost(model, img_size=64)["multiply_adds"]["total"] == counted(model, 64)[0]


def test_images_need_not_be_square():
    model = create_model("osdtw_resnet14", num_classes=10, pretrained_cfg_overlay={"input_size": (3, 64, 32)})
    assert cost(model)["multiply_adds"]["shared"] == 2 * cost(model, img_size=32)["multiply_adds"]["shared"]


def test_a_network_of_one_task_is_the_plain_backbone():
    model = create_model("osdtw_resnet14", num_classes=5, task_classes=[list(range(5))])
    assert [row["ratio"] for row in costs(model)] == [1.0] * 8


def test_without_classes_only_blocks_count():
    model = create_model("osdtw_resnet14", num_classes=0, shared_depth=7)
    assert cost(model)["ratio"] == 1
    assert cost(model)["parameters"]["tasks"] == [0, 0]


def test_the_network_is_left_as_it_is():
    model = create_model("osdtw_resnet14", num_classes=5).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost(model)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_depth_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"choose 0 \(nothing shared\) to 7"):
        cost(create_model("osdtw_resnet14"), 8)
