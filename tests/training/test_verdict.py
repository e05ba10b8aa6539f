"""What a report says, case by case: rows by hand, runs that may be compared, sentences word for word."""

import json

import numpy as np

from osdtw_training.class_rows import rows_of
from osdtw_training.comparison import Compared, beside
from osdtw_training.verdict import plan_sentences, sentences

FIGURES = {
    "overall": 60.0,
    "macro_f1": 55.5,
    "many": 90.0,
    "medium": None,
    "few": 40.0,
    "ece": 20.0,
    "per_class": [90.0, 30.0, 50.0, None],
    "breakdown": {
        "precision": [75.0, 60.0, None, None],
        "f1": [81.8, 40.0, 0.0, None],
        "reliability": {"images": [0, 1, 3], "confidence": [None, 50.0, 90.0], "accuracy": [None, 100.0, 33.3333]},
    },
}
CONFUSION = np.array([[0, 0, 9], [0, 1, 1], [1, 0, 4], [1, 1, 3], [1, 2, 3], [2, 1, 1], [2, 2, 1]])


def test_rows_say_what_was_counted():
    rows = rows_of(["cat", "dog", "fox", "owl"], [200, 3, 5, 2], FIGURES, CONFUSION)
    whole, many, few, cat, dog, fox, owl = rows
    assert [row["of"] for row in rows] == ["all", "group", "group"] + ["class"] * 4
    assert (whole["images"], whole["training_images"], whole["accuracy"], whole["f1"]) == (22, 210, 60.0, 55.5)
    assert (many["name"], many["images"], many["accuracy"]) == ("many", 10, 90.0)
    assert (few["name"], few["training_images"], few["images"], few["accuracy"]) == ("few", 10, 12, 40.0)
    assert (dog["group"], dog["accuracy"], dog["precision"], dog["f1"]) == ("few", 30.0, 60.0, 40.0)
    assert (dog["images"], dog["taken_for"], dog["taken_share"]) == (10, "cat", 40.0)
    assert (cat["taken_for"], cat["taken_share"]) == ("dog", 10.0)
    assert (fox["taken_for"], fox["taken_share"]) == ("dog", 50.0)
    assert (owl["images"], owl["taken_for"], owl["accuracy"]) == (0, "", None)
    before = rows_of(["cat", "dog", "fox", "owl"], [200, 3, 5, 2], {**FIGURES, "breakdown": {}}, None)
    assert (before[4]["images"], before[4]["precision"], before[4]["taken_for"]) == (None, None, "")


def test_a_run_is_compared_with_those_on_the_same_images_only(tmp_path):
    own = {
        "method": "focal",
        "model": "osdtw_resnet14",
        "data": "digits",
        "imbalance_factor": 50,
        "seed": 0,
        "class_counts": [5, 2],
        "test_images": 9,
        "test": {"overall": 50.0},
    }
    others = {
        "better": {"test": {"overall": 60.0}},
        "worse": {"test": {"overall": 40.0}},
        "seed": {"seed": 1},
        "other": {"class_counts": [5, 3]},
        "data": {"data": "cifar10"},
        "untested": {"test_images": 8},
        "empty": {"test": {"overall": None}},
        "strange": {"test": []},
        "vast": {"test": {"overall": 10**400}},
    }
    for name, changed in {"own": {}, **others}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_text(json.dumps({**own, **changed}))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "results.json").write_text("{")
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "results.json").write_text("[" * 100_000)
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "results.json").write_text("[1]")
    (tmp_path / "unfinished").mkdir()
    found = beside(tmp_path / "own", own, "test")
    assert [(run.folder, run.own) for run in found] == [("better", False), ("own", True), ("worse", False)]


def test_the_first_sentences_say_how_good_and_where_bad():
    rows = rows_of(["cat", "dog", "fox", "owl"], [200, 3, 5, 2], FIGURES, CONFUSION)
    said = list(sentences(FIGURES, rows, [1, 2], [], "test"))
    assert said == [
        "Weakest where a class has fewer than 20 training images: 40.0 %.",
        "Worst class: dog (3 training images), 30 %, most often taken for cat.",
        # Sure: (1 x 50 + 3 x 90) / 4 = 80; right: (1 x 100 + 3 x 33.33) / 4 = 50.
        "On average it is 30.0 points surer than it is right (calibration error 20.0 %).",
    ]
    results = {"method": "theirs", "test": {"overall": 60.0}}
    compared = [Compared("better", False, results), Compared("own", True, {**results, "method": "ours"})]
    last = list(sentences(FIGURES, rows, [], compared, "test"))[-1]
    assert last == "Number 2 of 2 runs on the same images; the best of the others is better/ (theirs), 60.0 %."


def test_a_plan_says_what_was_trained_and_owns_to_a_later_search():
    trained = {"source": "search", "shared_depth": 5, "task_weights": [0.6, 0.4]}
    plan = {**trained, "terms_nats": {"proxy": [0.0] * 8}, "why": "Because."}
    said = list(plan_sentences({"plan": trained}, plan))
    assert said == [
        "Plan: the tasks share 5 of 7 blocks, with weights head 0.60, tail 0.40; found by search.",
        "Because.",
    ]
    later = list(plan_sentences({"plan": trained}, {**plan, "shared_depth": 2}))
    assert "keeps the plan" in later[1]
    assert "2 shared blocks" in later[1]
    given = {**trained, "source": "recipe"}
    assert list(plan_sentences({"plan": given}, given)) == [
        "Plan: the tasks share 5 blocks, with weights head 0.60, tail 0.40; as the recipe says."
    ]
