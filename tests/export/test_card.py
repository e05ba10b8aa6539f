"""Cards and README's table say what the results files say, and nothing else."""

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from osdtw_export.card import card, main, render, table

ROOT = Path(__file__).parents[2]
TEMPLATE = (ROOT / "model_cards" / "template.md").read_text()


def results(**changes):
    test = {name: 40.0 + i / 7 for i, name in enumerate("overall head tail many medium few task_right nll ece".split())}
    return {
        "recipe": "some_recipe",
        "method": "osdtw",
        "model": "osdtw_resnet32",
        "data": "cifar100",
        "imbalance_factor": 100.0,
        "seed": 3,
        "passes": 60,
        "training_hours": 0.5,
        "parameters": 470004,
        "hardware": {"processor": "a processor", "threads": 1, "device": "cpu", "amp": "none"},
        "class_counts": [9, 4],
        "training_counts": [8, 4],
        "test_images": 10,
        "plan": {"source": "search", "shared_depth": 11, "task_weights": [0.25, 0.75]},
        "test": test,
        **changes,
    }


def test_committed_documents_are_the_generated_ones():
    for path, text in render(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path} differs; run python -m osdtw_export.card"


def test_the_card_states_every_figure_and_carries_valid_metadata():
    text = card("osdtw_resnet32.tag", results(), TEMPLATE)
    shown = ModelCard(text)
    assert shown.data.license == "apache-2.0"
    assert shown.data.eval_results[0].metric_value == 40.0
    assert all(f"{value:.2f}" in text for value in results()["test"].values())
    assert "11 of 16 blocks" in text
    assert "0.250, 0.750" in text
    assert "12 training images\n(1 more were held out)" in text


@pytest.mark.parametrize("figure", ["overall", "few", "ece"])
def test_another_result_makes_another_card_and_table(figure):
    changed = results(test={**results()["test"], figure: 77.77})
    assert "77.77" in card("osdtw_resnet32.tag", changed, TEMPLATE)
    assert "77.77" in table([changed])
    assert "77.77" not in card("osdtw_resnet32.tag", results(), TEMPLATE)


def test_a_missing_field_is_named():
    incomplete = results()
    del incomplete["test"]["few"]
    with pytest.raises(ValueError, match="lack 'few'"):
        card("osdtw_resnet32.tag", incomplete, TEMPLATE)


def test_the_door_writes_once_and_checks(tmp_path, capsys):
    (tmp_path / "model_cards").mkdir()
    (tmp_path / "model_cards" / "template.md").write_text(TEMPLATE)
    release = tmp_path / "osdtw_models" / "weights" / "osdtw_resnet32.tag"
    release.mkdir(parents=True)
    (release / "results.json").write_text(json.dumps(results()))
    assert main([str(tmp_path)]) == 2
    assert "README.md" in capsys.readouterr().err
    (tmp_path / "README.md").write_text("before <!-- results --> old <!-- /results --> after")
    assert main([str(tmp_path), "--check"]) == 1
    assert not (tmp_path / "model_cards" / "osdtw_resnet32.tag.md").exists()
    assert main([str(tmp_path)]) == 0
    assert main([str(tmp_path), "--check"]) == 0
    assert "some_recipe" in (tmp_path / "README.md").read_text()
