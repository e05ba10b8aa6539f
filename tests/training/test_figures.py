"""Pictures show the numbers of the run folder, and are drawn only where there are numbers."""

import shutil

import numpy as np
import pytest
from PIL import Image

from osdtw_training import figures
from osdtw_training.cli import search
from osdtw_training.figures import CELLS, class_accuracy, class_confusion, draw, learning_curves, reliability
from osdtw_training.runs import Run


@pytest.fixture
def run(finished, tmp_path):
    """A copy of the finished run, without its pictures."""
    shutil.copytree(finished.folder, tmp_path / "run", ignore=shutil.ignore_patterns("*.png"))
    return Run(tmp_path / "run", resume=True)


def test_results_of_before_the_breakdown_get_the_pictures_that_they_have_data_for(run):
    results = run.read_json("results.json")
    del results["test"]["breakdown"]
    run.write_json("results.json", results)
    assert {"class_accuracy", "proxy_map"} <= {file.stem for file in draw(run)}


def test_a_calibrated_run_shows_both_lines(run):
    results = run.read_json("results.json")
    results["calibration"] = {"before": {"test": results["test"]}}
    labels = [line.get_label() for line in reliability(results).axes[0].lines]
    assert [label.split(":")[0] for label in labels] == ["as right as sure", "before calibration", "calibrated"]


def test_a_finished_run_gets_all_pictures(run):
    files = draw(run)
    assert {file.name for file in files} == {path.name for path in run.folder.glob("*.png")}
    names = {"learning_curves", "class_accuracy", "reliability", "group_confusion", "class_confusion"}
    assert {file.stem for file in files} == names | {"proxy_depth", "proxy_map"}
    for file in files:
        with Image.open(file) as image:
            assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_pictures_without_numbers_are_left_out(run):
    (run.folder / "checkpoints" / "statistics.safetensors").unlink()
    (run.folder / "results.json").unlink()
    assert [file.name for file in draw(run)] == ["learning_curves.png"]
    (run.folder / "metrics.jsonl").unlink()
    assert draw(run) == []


def test_learning_curves_put_the_stages_one_after_another(run):
    (axes,) = learning_curves(run.metrics()).axes
    points = [(line.get_label(), *point) for line in axes.lines for point in line.get_xydata().tolist()]
    assert points == [(row["stage"], i, row["loss"]) for i, row in enumerate(run.metrics(), 1)]


def test_class_accuracy_goes_from_the_most_to_the_least_frequent(finished):
    results = {"class_counts": [5, 90, 20], "test": {"per_class": [10.0, None, 30.0]}}
    line = class_accuracy(results).axes[1].lines[0]
    np.testing.assert_array_equal(line.get_ydata(), [np.nan, 30, 10])


def test_the_confusion_goes_from_the_most_to_the_least_frequent_class():
    pairs = np.array([[0, 0, 3], [0, 1, 1], [1, 1, 8], [2, 0, 2]])  # true, predicted, images
    axes = class_confusion(pairs, [15, 200, 50], ["cat", "a name of nineteen", "$x"]).axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[100, 0, 0], [0, 0, 100], [25, 0, 75]])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a name of nin…", r"\$x", "cat"]
    assert [line.get_ydata()[0] for line in axes.lines[::2]] == [0.5, 1.5]


def test_of_very_many_classes_neighbours_in_size_share_a_cell():
    right = np.stack([np.arange(1000), np.arange(1000), np.full(1000, 5)], 1)
    shares = class_confusion(right, range(2000, 1000, -1), [""] * 1000).axes[0].images[0].get_array()
    np.testing.assert_array_equal(shares, 100 * np.eye(CELLS))


def test_the_terms_drawn_are_those_of_the_plan(run, monkeypatch):
    drawn, depth_terms = [], figures.depth_terms
    monkeypatch.setattr(figures, "depth_terms", lambda terms, plan: drawn.append(terms) or depth_terms(terms, plan))
    assert search([str(run.folder), "--damping", "10"]) == 0
    assert drawn[0].proxy.min(1).values.tolist() == pytest.approx(run.read_json("plan.json")["terms_nats"]["proxy"])
