"""A folder with broken images trains on the others, with the counts of the others, and says so."""

import csv

import numpy as np
import pytest
from PIL import Image

from osdtw_training.pipeline import run_recipe
from osdtw_training.recipe_tables import Schedule


@pytest.fixture
def folder(tmp_path):
    """Twelve photographs in train/, six in test/, two classes; one of each split is broken."""
    stream = np.random.default_rng(0)
    for split, number in (("train", 6), ("test", 3)):
        for name in ("cat", "dog"):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for i in range(number):
                Image.fromarray(stream.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(place / f"{i}.png")
    (tmp_path / "data" / "train" / "cat" / "4.png").write_bytes(b"no image")
    (tmp_path / "data" / "test" / "dog" / "0.png").write_bytes(b"")
    return tmp_path / "data"


@pytest.fixture
def recipe(tiny, folder):
    def recipe(**changes):
        short = {"data": str(folder), "imbalance_factor": None, "holdout": 0.0, "batch_size": 4, "train": Schedule(1)}
        return tiny(method="cross_entropy", **{**short, **changes})

    return recipe


@pytest.mark.parametrize("crop", ["padded", "resized"])
def test_broken_images_are_left_out_of_every_count_and_listed(recipe, tmp_path, crop, capsys, no_figures):
    result = run_recipe(recipe(crop=crop), tmp_path / "run")
    said = capsys.readouterr().out
    assert "11 training images in 2 classes (5, 6)" in said
    assert "1 broken train images are left out of these counts, by class: cat 1" in said
    assert "1 broken test images are left out of these counts, by class: dog 1" in said
    assert result.results["class_counts"] == [5, 6]
    assert result.results["test_images"] == 5
    assert result.results["broken_images_left_out"] == {"train": 1, "test": 1}
    with (tmp_path / "run" / "broken_images.csv").open() as file:
        rows = [tuple(row.values()) for row in csv.DictReader(file)]
    cat, dog = (str(tmp_path.joinpath(*parts).relative_to(tmp_path)) for parts in (("cat", "4.png"), ("dog", "0.png")))
    assert rows == [("train", "cat", cat, "not an image"), ("test", "dog", dog, "it is empty")]


def test_they_stop_a_run_that_asks_for_it_before_there_is_a_folder(recipe, tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read 1 of 12 images under .*train: cat.4\.png \(not an image\)"):
        run_recipe(recipe(broken="error"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_resumed_on_other_images(recipe, folder, tmp_path, no_figures):
    run_recipe(recipe(), tmp_path / "run")
    (folder / "train" / "dog" / "2.png").write_bytes(b"broke since")
    with pytest.raises(ValueError, match=r"no longer those that .*run was begun with"):
        run_recipe(recipe(), tmp_path / "run", resume=True)


def test_without_broken_images_there_is_no_list(finished):
    assert not (finished.folder / "broken_images.csv").exists()
    assert finished.results["broken_images_left_out"] == {"train": 0, "test": 0}
