"""The document is what the study says; ratios, goals and the order of runs are right on hand-made cases."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest

import inference
import inference_tables
from inference_tables import Study

ROOT = Path(__file__).parents[2]
VALUES = {
    "multiply_adds": [{"name": "", "depth": 11, "ratio": 1.5}, {"name": "experts", "depth": 6, "ratio": 2.0}],
    "nodes": [{"name": "plain", "depth": None, "nodes": 100}, {"name": "packed", "depth": 11, "nodes": 104}],
    "times": [
        {"name": name, "depth": depth, "threads": 1, "batch": batch, "milliseconds": ms * batch}
        for batch in (1, 8)
        for name, depth, ms in [
            ("plain", None, 2.0),
            ("packed", 11, 3.0),
            ("eager", 11, 9.0),
            ("int8", 11, 2.0),
            ("two networks", None, 4.1),
        ]
    ],
    "accuracy": {"fp32": {"overall": 40.0, "few": 20.0}, "int8": {"overall": 39.8, "few": 19.0}},
}


def test_the_document_is_what_the_study_says():
    ((path, text),) = inference_tables.render(ROOT).items()
    assert path.read_text(encoding="utf-8") == text, "run python benchmarks/inference_tables.py"


def test_ratios_are_to_the_plain_backbone_of_the_same_batch_and_threads():
    study = Study(VALUES)
    assert study.ratio("packed", 11, 1, 8) == 1.5
    assert study.ratio("two networks", None, 1, 1) == pytest.approx(2.05)
    assert [study.cost("packed", 11), study.cost("two networks", None), study.cost("plain", None)] == [1.5, 2.0, 1.0]


def verdicts(values):
    return [met for *_, met in inference_tables._goals(Study(values))]


def test_goals_are_met_or_missed_by_the_worst_case():
    assert verdicts(VALUES) == [True, True, True, True]
    for name, milliseconds, missed in [("packed", 1.6 * 16, 0), ("eager", 7.0 * 8, None), ("int8", 2.4 * 8, 3)]:
        slow = copy.deepcopy(VALUES)
        row = next(row for row in slow["times"] if row["name"] == name and row["batch"] == 8)
        row["milliseconds"] = milliseconds
        assert verdicts(slow) == [number != missed for number in range(4)]  # eager counts at batch 1 only
    more = copy.deepcopy(VALUES)
    more["nodes"][1]["nodes"] = 106
    more["accuracy"]["int8"]["overall"] = 39.4
    assert verdicts(more) == [True, True, False, False]


def test_contenders_run_in_turns_and_the_first_runs_do_not_count():
    order = []

    def runner(name):
        def run(images):
            assert images.shape == (4, 3, 32, 32)
            assert images.dtype == np.float32
            order.append(name)

        return run

    rows = inference.time_all([inference.Contender(name, None, runner(name)) for name in "ab"], 4, 3, own_clock=True)
    rounds = [tuple(order[i : i + 2]) for i in range(0, 10, 2)]
    assert set(rounds) == {("a", "b"), ("b", "a")}
    assert [row["name"] for row in rows] == ["a", "b"]


@pytest.mark.slow
def test_the_script_runs_from_export_to_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inference, "BATCHES", (1, 2))
    words = ["--depths", "11", "--threads", "1", "--rounds", "1", "--no-compile", "--output", str(tmp_path / "s.json")]
    monkeypatch.setattr("sys.argv", ["inference.py", *words])
    inference.main()
    study = Study(json.loads((tmp_path / "s.json").read_text()))
    assert study.ratio("plain", None, 1, 1) == 1
    for render in (inference_tables.times, inference_tables.goals, inference_tables.accuracy):
        assert render(study)
