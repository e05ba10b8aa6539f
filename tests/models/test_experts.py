"""Experts: tasks that hold every class each, whose logits are averaged; everywhere else an ordinary network."""

import json

import numpy as np
import pytest
import torch
from timm.models import save_for_hf

from osdtw_models import ClassPartition, Predictor, cost, create_model, decouple, fuse
from osdtw_models.checkpoint import convert_checkpoint
from osdtw_models.evaluation import evaluate_logits
from osdtw_models.predict import TorchClassifier

ORDER = [4, 1, 5, 0, 3, 2]
EXPERTS = [ORDER] * 3
MEAN = {"task_classes": EXPERTS, "fusion": "mean"}


def test_experts_have_every_class_and_no_none():
    partition = ClassPartition(EXPERTS)
    assert partition.experts
    assert not partition.has_none
    assert (partition.num_tasks, partition.num_classes, partition.output_sizes) == (3, 6, (6, 6, 6))
    assert partition.task_labels(torch.tensor([4, 2])).tolist() == [[0, 5]] * 3
    assert [ORDER[place] for place in partition.class_position] == list(range(6))
    assert partition == ClassPartition.resolve(6, partition.to_lists())
    assert ClassPartition.of_experts(2, 3).tasks == ((0, 1),) * 3
    assert partition.renewed(4) == ClassPartition.of_experts(4, 3)
    assert ClassPartition(((0, 1), (2,))).renewed(4, [1, 9, 2, 8]).tasks == ((1, 3), (0, 2))
    assert not ClassPartition.single(3).experts


@pytest.mark.parametrize("tasks", [((0, 1), (1, 0)), ((0, 1), (0, 1), (0,)), ((0, 2), (0, 2))])
def test_what_is_neither_disjoint_nor_experts_is_refused(tasks):
    with pytest.raises(ValueError, match="exactly once"):
        ClassPartition(tasks)


def test_the_mean_is_the_normalised_product_of_the_posteriors():
    logits = [3 * torch.randn(5, 4, dtype=torch.float64) for _ in range(3)]
    product = torch.stack([z.softmax(1) for z in logits]).prod(0) ** (1 / 3)
    torch.testing.assert_close(fuse(logits, "mean").softmax(1), product / product.sum(1, keepdim=True))


def test_a_network_averages_its_experts_in_class_order(build, images):
    net = build(**MEAN, shared_depth=4)
    assert [z.shape for z in net.forward_tasks(images)] == [(3, 6)] * 3
    expected = torch.stack([net.forward_task(images, k) for k in range(3)]).mean(0)
    torch.testing.assert_close(net(images)[:, ORDER], expected)
    assert cost(net)["ratio"] > 1


@pytest.mark.parametrize(
    "arguments", [{"task_classes": EXPERTS}, {"class_counts": [6, 5, 4, 3, 2, 1], "fusion": "mean"}]
)
def test_mean_and_experts_need_one_another(build, arguments):
    with pytest.raises(ValueError, match="'mean' is for experts and for an open 'none'"):
        build(**arguments)
    build(task_classes=[list(range(6))], fusion="mean")  # one task fuses nothing


def test_temperatures_scale_experts_and_biases_do_nothing(build, images):
    net = build(**MEAN)
    z = net.forward_tasks(images)
    net.set_calibration([[2.0, 9.0], [0.5, -9.0], [1.0, 1.0]])
    torch.testing.assert_close(net(images)[:, ORDER], (z[0] / 2 + z[1] * 2 + z[2]) / 3)


def test_saved_experts_come_back_and_stay_experts_with_other_classes(tmp_path):
    net = create_model("osdtw_resnet14", num_classes=6, shared_depth=3, **MEAN).eval()
    save_for_hf(net, tmp_path, safe_serialization=True)
    images, name = torch.randn(2, 3, 16, 16), f"local-dir:{tmp_path}"
    again = create_model(name, pretrained=True).eval()
    assert again.partition == net.partition
    assert torch.equal(again(images), net(images))
    other = create_model(name, pretrained=True, num_classes=8, class_counts=[8, 7, 6, 5, 4, 3, 2, 1])
    net.reset_classifier(8)
    assert other.partition == net.partition == ClassPartition.of_experts(8, 3)
    assert other(images).shape == net(images).shape == (2, 8)


def test_a_shallower_cut_is_the_same_function(build, images):
    net, other = build(**MEAN), build(**MEAN, shared_depth=2)
    other.load_state_dict(convert_checkpoint(net.state_dict(), other))
    torch.testing.assert_close(other(images), net(images), rtol=0, atol=0)


def test_experts_of_a_timm_model_agree_with_it():
    plain = create_model("resnet18", num_classes=6).eval()
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(decouple(plain, partition=EXPERTS, fusion="mean")(images), plain(images))


def test_no_class_belongs_to_an_expert(build, images):
    net = build(**MEAN).float()
    net.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.5,) * 3, "std": (0.5,) * 3}
    (found,) = Predictor(TorchClassifier(net), topk=6)(np.zeros((16, 16, 3), dtype=np.uint8))
    assert (found.none, found.tasks) == ([], [0] * 6)
    figures = dict(evaluate_logits(torch.randn(9, 6), torch.arange(9) % 6, net.partition, [9] * 6))
    assert not {"task0", "task1", "task2", "task_right"} & figures.keys()


def test_the_plan_of_experts_stands_in_config_json(tmp_path):
    save_for_hf(create_model("osdtw_resnet14", num_classes=6, **MEAN), tmp_path, safe_serialization=True)
    args = json.loads((tmp_path / "config.json").read_text())["model_args"]
    assert (args["task_classes"], args["fusion"]) == (EXPERTS, "mean")
