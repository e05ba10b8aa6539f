"""Calibration inside the network: what it does to logits, where it travels, when it goes."""

import json

import pytest
import timm
import torch
from timm.models import save_for_hf

TASKS = [[4, 1], [5, 0, 3, 2]]
CALIBRATION = [[2.0, 0.5], [0.7, -0.3]]


@pytest.mark.parametrize("fusion", ["raw", "valid", "pool"])
def test_the_fused_posterior_is_that_of_scaled_and_shifted_tasks(build, images, fusion):
    plain = build(task_classes=TASKS, fusion=fusion)
    z = plain.forward_tasks(images)
    for k, (temperature, bias) in enumerate(CALIBRATION):
        z[k] = z[k] / temperature
        z[k][:, :-1] += bias
    expected = plain.fuse(z)
    plain.set_calibration(CALIBRATION)
    torch.testing.assert_close(plain(images), expected)
    torch.testing.assert_close(plain.fuse(plain.forward_tasks(images)), expected)


def test_a_group_bias_moves_the_odds_of_the_group_alone(build, images):
    net = build(task_classes=TASKS, fusion="valid")
    before = net(images).softmax(1)
    net.set_calibration([[1.0, 0.8], [1.0, 0.0]])
    after = net(images).softmax(1)
    head, tail = TASKS
    odds = (after[:, head].sum(1) / after[:, tail].sum(1)) / (before[:, head].sum(1) / before[:, tail].sum(1))
    torch.testing.assert_close(odds, torch.full_like(odds, 0.8).exp())
    torch.testing.assert_close(
        after[:, tail] / after[:, tail].sum(1, True), before[:, tail] / before[:, tail].sum(1, True)
    )


def test_it_travels_in_config_json(build, images, tmp_path):
    net = timm.create_model("osdtw_resnet14", num_classes=6, task_classes=TASKS, calibration=CALIBRATION).eval()
    save_for_hf(net, tmp_path, safe_serialization=True)
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["calibration"] == CALIBRATION
    images = images.float()
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(again(images), net(images))
    other = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=8)
    assert other.calibration is None  # other classes, other tasks


def test_new_classes_forget_it(build):
    net = build(task_classes=TASKS, calibration=CALIBRATION)
    net.reset_classifier(9)
    assert net.calibration is None
    assert "calibration" not in net._model_args


@pytest.mark.parametrize("wrong", [[[1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]], [[1.0], [1.0]], [[1.0, float("nan")]] * 2])
def test_what_is_no_calibration_is_refused(build, wrong):
    with pytest.raises(ValueError, match=r"give \[temperature, bias\] for each of the 2 tasks"):
        build(task_classes=TASKS, calibration=wrong)
