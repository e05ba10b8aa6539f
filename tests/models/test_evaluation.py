"""Figures of merit against counts made by hand, one image at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from osdtw_models import create_model
from osdtw_models.evaluation import (
    calibration_error,
    class_accuracies,
    evaluate_logits,
    frequency_groups,
    mean_accuracy,
    predict_images,
)
from osdtw_models.partition import ClassPartition

COUNTS = [500, 101, 100, 20, 19, 1]
PARTITION = ClassPartition(((0, 1, 2), (3, 4, 5)))


@pytest.fixture
def predictions():
    labels = torch.randint(0, 6, (90,))
    logits = torch.randn(90, 6)
    logits[torch.arange(90), labels] += 1
    return logits, labels


def by_hand(logits, labels, classes):
    """Mean over the classes of the share of right predictions, in percent."""
    accuracies = []
    for c in classes:
        right = [int(z.argmax()) == c for z, y in zip(logits, labels, strict=True) if y == c]
        accuracies.append(100 * sum(right) / len(right))
    return sum(accuracies) / len(accuracies)


def test_all_figures_are_those_counted_by_hand(predictions):
    logits, labels = predictions
    figures = dict(evaluate_logits(logits, labels, PARTITION, COUNTS))
    groups = {
        "balanced": range(6),
        "head": (0, 1, 2),
        "tail": (3, 4, 5),
        "many": (0, 1),
        "medium": (2, 3),
        "few": (4, 5),
    }
    for name, classes in groups.items():
        assert figures.pop(name) == pytest.approx(by_hand(logits, labels, classes)), name
    pairs = [(int(z.argmax()), int(y)) for z, y in zip(logits, labels, strict=True)]
    assert figures.pop("overall") == pytest.approx(100 * sum(a == b for a, b in pairs) / 90)
    assert figures.pop("task_right") == pytest.approx(100 * sum((a < 3) == (b < 3) for a, b in pairs) / 90)
    scores = []
    for c in range(6):
        right, told, there = (sum(one) for one in zip(*[(a == b == c, a == c, b == c) for a, b in pairs], strict=True))
        scores.append(2 * right / (told + there))
    assert figures.pop("macro_f1") == pytest.approx(100 * sum(scores) / 6)
    nll = [-math.log(z.double().softmax(0)[y]) for z, y in zip(logits, labels, strict=True)]
    assert figures.pop("nll") == pytest.approx(sum(nll) / 90, rel=1e-6)
    assert figures.pop("ece") == pytest.approx(calibration_error(logits.double().softmax(1), labels))
    assert not figures


def test_figures_need_neither_tasks_nor_counts(predictions):
    assert list(dict(evaluate_logits(*predictions))) == ["overall", "balanced", "macro_f1", "nll", "ece"]
    plain = dict(evaluate_logits(*predictions, ClassPartition.single(6)))
    assert "task_right" not in plain
    three = dict(evaluate_logits(*predictions, ClassPartition(((0, 1), (2, 3), (4, 5)))))
    assert {"task0", "task1", "task2"} <= three.keys()


def test_classes_without_images_do_not_count():
    labels = torch.tensor([0, 0, 2, 2])
    accuracies = class_accuracies(torch.tensor([0, 1, 2, 2]), labels, 3)
    assert accuracies[[0, 2]].tolist() == [50, 100]
    assert accuracies[1].isnan()
    assert mean_accuracy(accuracies, [0, 1, 2]) == 75
    assert math.isnan(mean_accuracy(accuracies, [1]))
    assert math.isnan(mean_accuracy(accuracies, []))


def test_frequency_groups_are_the_protocols():
    assert frequency_groups(COUNTS) == {"many": [0, 1], "medium": [2, 3], "few": [4, 5]}
    assert frequency_groups([300]) == {"many": [0], "medium": [], "few": []}


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=40))
def test_calibration_error_averages_the_gap_of_each_bin(drawn):
    """Two classes; confidences of 1/2 to 1 on multiples of 1/120, so that many lie on the edge of a bin."""
    confidences = [0.5 + n / 120 for n, _ in drawn]
    probabilities = torch.tensor([[p, 1 - p] for p in confidences], dtype=torch.float64)
    labels = torch.tensor([0 if right else 1 for _, right in drawn])
    bins = {}
    for (n, right), confidence in zip(drawn, confidences, strict=True):
        bins.setdefault(-(-(60 + n) * 15 // 120), []).append(confidence - right)  # ceiling: closed on the right
    expected = 100 * sum(abs(sum(gaps)) for gaps in bins.values()) / len(drawn)
    found = calibration_error(probabilities, labels)
    assert found == pytest.approx(expected, abs=1e-9)


def test_a_calibrated_model_has_no_calibration_error():
    probabilities = torch.tensor([[0.75, 0.25]], dtype=torch.float64).expand(4, 2)
    assert calibration_error(probabilities, torch.tensor([0, 0, 0, 1])) == pytest.approx(0)
    assert calibration_error(probabilities, torch.tensor([0, 0, 0, 0])) == pytest.approx(25)


def test_raw_images_are_normalised_as_the_config_says():
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    overlay = {"input_size": (3, 16, 16), "mean": mean, "std": std}
    model = create_model("osdtw_resnet14", num_classes=6, pretrained_cfg_overlay=overlay).eval()
    images = torch.randint(0, 256, (7, 3, 16, 16), dtype=torch.uint8)
    normalised = torch.stack([(images[:, c] / 255 - mean[c]) / std[c] for c in range(3)], 1)
    for batch_size in (3, 7, 500):
        found = predict_images(model, images, batch_size)
        torch.testing.assert_close(found, model(normalised), rtol=1e-4, atol=1e-4)
    assert not found.requires_grad


def test_no_images_have_no_logits():
    model = create_model("osdtw_resnet14", num_classes=5).eval()
    assert predict_images(model, torch.zeros(0, 3, 32, 32, dtype=torch.uint8)).shape == (0, 5)
