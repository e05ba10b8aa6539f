"""Threads that share a classifier get the answers of a thread alone; the study's slope is that of least squares."""

import numpy as np
import pytest

from load import hammer, slope
from osdtw_export import OnnxClassifier


@pytest.mark.slow
def test_threads_that_share_a_classifier_get_the_answers_of_one_alone(exported):
    found = hammer(OnnxClassifier(exported.file.path, "cpu", threads=1), seconds=5, threads=16, seed=0)
    assert len(found.same) > 16
    assert all(found.same)
    assert not found.errors
    assert found.files[-1] <= found.files[0]


def test_a_wrong_answer_under_load_is_seen():
    class Torn:
        """Answers with what another thread asked last."""

        input_size = (3, 2, 2)
        asked = 0

        def logits(self, images):
            self.asked += 1
            return images[:, 0, 0] + (self.asked > 40)

    found = hammer(Torn(), seconds=0.2, threads=2, seed=0)
    assert not all(found.same)


def test_the_slope_is_that_of_least_squares():
    noise = np.random.default_rng(0).normal(size=50)
    times = np.linspace(0, 5, 50)
    (expected, _), covariance = np.polyfit(times, 100 + 2 * times + noise, 1, cov=True)
    found = slope(100 + 2 * times + noise, 5)
    assert found == pytest.approx((expected, covariance[0, 0] ** 0.5), rel=1e-9)
