"""What is taken for what, against scikit-learn; the worst classes and the surest mistakes, by hand."""

import csv

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import confusion_matrix

from osdtw_training import mistakes
from osdtw_training.runs import Run


@pytest.fixture
def predictions(noise):
    labels = torch.randint(0, 6, (300,))
    return 2 * torch.nn.functional.one_hot(labels, 6) + torch.randn(300, 6), noise(labels)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_worst_classes_come_first_and_perfect_ones_never():
    assert mistakes.worst_classes([50.0, None, 0.0, 100.0, 50.0], [10, 0, 10, 10, 20]) == [2, 4, 0]
    assert len(mistakes.worst_classes([float(c) for c in range(50)], [1] * 50)) == mistakes.WORST_CLASSES


def test_the_confusion_is_that_of_scikit_learn(predictions, tmp_path):
    logits, images = predictions
    mistakes.keep(Run(tmp_path), logits, images, [0.0] * 6)
    expected = confusion_matrix(images.labels, logits.argmax(1))
    found = np.zeros_like(expected)
    for true, taken, number in mistakes.read_confusion(tmp_path):
        found[true, taken] += number
    np.testing.assert_array_equal(found, expected)
    assert all(int(row["images"]) > 0 for row in read(tmp_path / "confusion.csv"))
    assert {row["true_name"] for row in read(tmp_path / "confusion.csv")} == set(images.class_names)


def test_the_mistakes_shown_are_the_surest_and_have_their_pictures(predictions, tmp_path):
    logits, images = predictions
    found = mistakes.keep(Run(tmp_path), logits, images, [70.0, 10.0, 100.0, 20.0, 100.0, 100.0])
    assert [each["label"] for each in found] == [1] * 4 + [3] * 4 + [0] * 4
    chances = torch.exp(logits.double()) / torch.exp(logits.double()).sum(1, keepdim=True)
    for label in (1, 3, 0):
        wrong = [
            (float(100 * chances[i].max()), str(images.names[i]), int(logits[i].argmax()))
            for i in range(300)
            if images.labels[i] == label and logits[i].argmax() != label
        ]
        shown = [(each["confidence"], each["image"], each["predicted"]) for each in found if each["label"] == label]
        for (sure, *rest), (expected, *others) in zip(shown, sorted(wrong, reverse=True), strict=False):
            assert rest == others
            assert sure == pytest.approx(expected, abs=0.006)
    for number, each in enumerate(found):
        with Image.open(tmp_path / "mistakes" / f"{number:02d}.png") as shown:
            pixels = images.images[images.names.index(each["image"])].permute(1, 2, 0)
            np.testing.assert_array_equal(np.asarray(shown), pixels)


def test_pictures_of_photographs_are_small(noise, tmp_path):
    images = noise([0, 0, 1], side=300)
    mistakes.keep(Run(tmp_path), torch.tensor([[0.0, 9.0]] * 3), images, [0.0, 100.0])
    with Image.open(tmp_path / "mistakes" / "00.png") as shown:
        assert shown.size == (mistakes.SIDE, mistakes.SIDE)
