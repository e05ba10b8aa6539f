"""Priors at test time: Bayes' rule on a joint distribution, and every way to name a prior."""

import json

import numpy as np
import pytest

from osdtw_models.prior import resolve_prior, under_prior

NAMES = ["ant", "bee", "cat"]


@pytest.mark.parametrize("prior", [[0.7, 0.2, 0.1], [5, 0, 3], [1e-6, 1, 1e6], [2, 2, 2]])
def test_the_posterior_under_a_prior_is_bayes_rule(prior):
    likelihood = np.random.default_rng(0).dirichlet(np.ones(4), size=3)  # of 4 images under each of 3 classes
    balanced = np.log(likelihood / likelihood.sum(0)).T  # the posterior of every image if classes are equally likely
    joint = likelihood.T * np.array(prior)
    expected = joint / joint.sum(1, keepdims=True)
    logits = under_prior(balanced.astype(np.float32) + 3, prior).astype(np.float64)
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_balanced_prior_leaves_the_logits_alone():
    logits = np.ones((2, 3), dtype=np.float32)
    assert under_prior(logits, None) is logits


@pytest.mark.parametrize(
    ("prior", "said"),
    [
        ([1, 2], "2 weights for 3 classes"),
        ([1, -1, 1], "at least 0"),
        ([0, 0, 0], "one of them above 0"),
        ([1, float("nan"), 1], "finite"),
        ([1, float("inf"), 1], "finite"),
    ],
)
def test_weights_that_are_no_prior_are_refused(prior, said):
    with pytest.raises(ValueError, match=said):
        under_prior(np.zeros((1, 3), dtype=np.float32), prior)


def test_balanced_training_and_weights_need_no_file():
    assert resolve_prior("balanced", None, None) is None
    assert resolve_prior("training", [5, 3], None) == [5.0, 3.0]
    assert resolve_prior((1, 2), None, None) == [1.0, 2.0]
    with pytest.raises(ValueError, match="does not say how many training images"):
        resolve_prior("training", None, None)
    with pytest.raises(FileNotFoundError, match=r"no prior 'trained'; choose balanced, training, or a file"):
        resolve_prior("trained", [1], None)


@pytest.mark.parametrize(
    "text", ["[1, 2.5, 0]", "1\n2.5\n0\n", "label,weight\ncat,0\nant,1\nbee,2.5\n", "bee,2.5\ncat,0\nant,1"]
)
def test_a_file_may_be_a_list_lines_or_labels_in_any_order(tmp_path, text):
    for encoding in ("utf-8", "utf-8-sig"):  # spreadsheets on Windows put a mark in front
        (tmp_path / "prior").write_text(text, encoding=encoding)
        assert resolve_prior(str(tmp_path / "prior"), None, NAMES) == [1, 2.5, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, true]", "True is no weight"),
        ("[1, ", "is no prior"),
        (json.dumps([[1], 2]), "is no prior"),
        ("one\ntwo", "is no prior"),
        ("ant,1\nbee,2", "'cat'"),
        ("ant,1\nant,2\nbee,1\ncat,1", "there twice"),
        ("ant,1,2\nbee,1", "two columns"),
        ("nan\n1\n1", "is no weight"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_sentence(tmp_path, text, said):
    (tmp_path / "prior").write_text(text)
    with pytest.raises(ValueError, match=said):
        resolve_prior(str(tmp_path / "prior"), None, NAMES)
