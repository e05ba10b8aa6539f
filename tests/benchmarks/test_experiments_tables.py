"""The tables of docs/experiments.md are those of the study."""

from pathlib import Path

import experiments_tables


def test_the_document_is_what_the_study_says():
    ((path, text),) = experiments_tables.render(Path(__file__).parents[2]).items()
    assert path.read_text(encoding="utf-8") == text, "run python benchmarks/experiments_tables.py"


def test_a_row_is_the_mean_of_the_runs():
    row = {"overall": 10.0, "many": 20.0, "medium": 30.0, "few": 40.0, "ece": 5.0, "nll": 1.0}
    runs = [
        {
            "recipe": name,
            "seed": seed,
            "images": 7,
            "alone": [row, row],
            "calibration": {"nothing": {**row, "overall": overall}},
        }
        for name, seed, overall in (("mine", 0, 10.0), ("mine_seed1", 1, 13.0))
    ]
    study = {"runs": runs, "hardware": {"processor": "a processor"}, "date": "2026-11-25", "command": "a command"}
    text = experiments_tables.calibration(study)
    assert "| nothing | 11.50 | 20.00 | 30.00 | 40.00 | 5.00 | 1.00 |" in text
    text += experiments_tables.alone(study)
    assert "| decoder 1 alone | 10.00 | 20.00 | 30.00 | 40.00 | 5.00 | 1.00 |\n| fused | 11.50 |" in text
    assert "Means of 2 runs (mine; seeds 0, 1)" in text
