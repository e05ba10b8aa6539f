"""The breakdown of predictions against scikit-learn, and against the calibration error that it adds up to."""

import numpy as np
import pytest
import torch
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from osdtw_models.breakdown import breakdown, reliability
from osdtw_models.evaluation import calibration_error, evaluate_logits

COUNTS = [500, 120, 100, 30, 20, 19, 3]


@pytest.fixture
def predictions():
    labels = torch.randint(0, 7, (400,))
    labels[labels == 6] = 5  # a class without images
    logits = torch.randn(400, 7) + 2 * torch.nn.functional.one_hot(labels, 7)
    logits[:, 4] = -20  # a class that is never predicted
    return logits, labels


def test_classes_are_scored_as_by_scikit_learn(predictions):
    logits, labels = predictions
    found = breakdown(logits, labels, COUNTS)
    predicted = logits.argmax(1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=range(7), zero_division=np.nan
    )
    for name, expected in (("precision", precision), ("recall", recall)):
        for ours, theirs in zip(found[name], expected, strict=True):
            assert ours is None if np.isnan(theirs) else ours == pytest.approx(100 * theirs, abs=0.006)
    assert support[6] == 0
    assert found["recall"][6] is None
    assert found["precision"][4] is None
    assert found["f1"][4] == 0
    for ours, theirs in zip(found["f1"][:6], f1[:6], strict=True):
        assert ours == pytest.approx(100 * np.nan_to_num(theirs), abs=0.006)
    figures = dict(evaluate_logits(logits, labels))
    assert figures["macro_f1"] == pytest.approx(
        100 * f1_score(labels, predicted, labels=range(6), average="macro", zero_division=0), abs=1e-6
    )


def test_groups_are_confused_as_their_classes_are(predictions):
    logits, labels = predictions
    found = breakdown(logits, labels, COUNTS)
    group = np.array([0, 0, 1, 1, 1, 2, 2])
    expected = confusion_matrix(group[labels], group[logits.argmax(1)], normalize="true")
    assert found["groups"] == ["many", "medium", "few"]
    assert np.array(found["group_confusion"], dtype=float) == pytest.approx(100 * expected, abs=0.006)
    assert breakdown(logits, labels, [50] * 7)["groups"] == ["medium"]


def test_the_gaps_of_the_diagram_add_up_to_the_calibration_error(predictions):
    logits, labels = predictions
    chances = logits.double().softmax(1)
    found = reliability(chances, labels)
    assert sum(found["images"]) == 400
    rows = zip(found["images"], found["confidence"], found["accuracy"], strict=True)
    error = sum(n * abs(sure - right) for n, sure, right in rows if n) / 400
    assert error == pytest.approx(calibration_error(chances, labels), abs=0.01)
    assert all(bool(n) == (sure is not None) for n, sure in zip(found["images"], found["confidence"], strict=True))
