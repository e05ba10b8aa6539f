"""The recipes of the field's data sets: each stage takes a step on a small tree of the same layout."""

import dataclasses
import io
import json

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from osdtw_export.predict_cli import main as predict
from osdtw_models.cli import evaluate
from osdtw_models.sources import cifar_images
from osdtw_models.sources.published import LISTS, SETS
from osdtw_training.cli import train
from osdtw_training.data import load_data
from osdtw_training.recipe_files import read_recipe

STAGES = {"warmup", "task0", "task1", "joint", "refit"}
SHORT = [
    *"--warmup.epochs 1 --warmup.anneal-epochs None --warmup.rise-epochs 0 --tasks.epochs 1 --joint.epochs 1".split(),
    *"--refit.epochs 1 --search.samples 4 --search.weights 3 --batch-size 4 --amp none --threads 1 --workers 0".split(),
]
# Where the images of each set lie below its root.
LAYOUTS = {
    "imagenet_lt": "train/n0144076{c}/n0144076{c}_{i}.JPEG",
    "places_lt": "data_256/a/place{c}/{i:08d}.jpg",
    "inaturalist2018": "train_val2018/Aves/{c}/{i:032x}.jpg",
}


@pytest.fixture(params=LAYOUTS)
def small(request, tmp_path, monkeypatch):
    """Three classes of a set's layout, with lists under names of their own."""
    monkeypatch.chdir(tmp_path)
    stream = np.random.default_rng(0)
    lists = {split: [] for split in SETS[request.param]}
    for c, number in enumerate((6, 4, 2)):
        for i in range(number + 2):
            path = LAYOUTS[request.param].format(c=c, i=i)
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(stream.integers(0, 256, (40, 36, 3), dtype=np.uint8)).save(tmp_path / path, "JPEG")
            split = "train" if i < number else "test" if i == number or "val" not in lists else "val"
            lists[split].append(f"{path} {c}\n")
    for split, lines in lists.items():
        (tmp_path / f"my_{split}.txt").write_text("".join(lines))
    companions = [word for split in lists if split != "train" for word in (f"--{split}-list", f"my_{split}.txt")]
    return request.param, ["--data", "my_train.txt", "--data-dir", str(tmp_path), *companions]


def stages(run):
    return {json.loads(line)["stage"] for line in (run / "metrics.jsonl").read_text().splitlines()}


@pytest.mark.parametrize("model", ["osdtw_resnet14", pytest.param("osdtw_resnet10", marks=pytest.mark.slow)])
def test_every_stage_takes_a_step_on_lists_of_the_same_layout(small, model, tmp_path, no_figures, capsys):
    recipe, data = small
    shrunk = ["--model", model, "--img-size", "32", "--backbone-weights", "none", "--holdout", "0.2"]
    assert train([recipe, *data, *shrunk, *SHORT, "--output", "run"]) == 0, capsys.readouterr().err
    run = tmp_path / "run"
    assert stages(run) == STAGES
    listed = json.loads((run / "images.json").read_text())
    own = "val" in SETS[recipe]
    assert listed["counts"] == [6, 4, 2]
    assert listed["training_counts"] == ([6, 4, 2] if own else [5, 4, 2])
    assert len(listed["holdout"]) == (3 if own else 1)
    assert all(len(row["sha256"]) == 64 for row in listed["train"] + listed["holdout"])
    assert ("validation images" in capsys.readouterr().out) == own
    assert evaluate(["run", *data, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    results = json.loads((run / "results.json").read_text())["test"]
    assert found["images"] == (3 if own else 6)
    assert found["overall"] == pytest.approx(results["overall"], abs=0.01)
    assert found["nll"] == pytest.approx(results["nll"], abs=1e-3)
    assert predict(["--model", "run", *data, "-o", "seen.json"]) == 0
    assert [row["label"] for row in json.loads((tmp_path / "seen.json").read_text())][:1] == ["0"]


def test_the_published_lists_are_checked_and_not_read_image_by_image(small, tmp_path, monkeypatch, no_figures, capsys):
    recipe, _ = small
    for split, name in SETS[recipe].items():
        text = (tmp_path / f"my_{split}.txt").read_text()
        (tmp_path / name).write_text(text)
    shrunk = (
        "--model osdtw_resnet14 --img-size 16 --backbone-weights none --shared-depth 2 --task-weights 0.5 0.5".split()
    )
    shrunk += ["--data-dir", str(tmp_path)]
    assert train([recipe, *shrunk, *SHORT, "--output", "run"]) == 2
    assert "has 12 images in 3 classes of 6 to 2, but the published list has" in capsys.readouterr().err
    for split, name in SETS[recipe].items():
        monkeypatch.setitem(LISTS, name, dataclasses.replace(LISTS[name], **known(tmp_path / f"my_{split}.txt")))
    assert train([recipe, *shrunk, *SHORT, "--output", "run"]) == 0, capsys.readouterr().err
    listed = json.loads((tmp_path / "run" / "images.json").read_text())
    assert len(listed["list_sha256"]["train"]) == 64
    assert "sha256" not in listed["train"][0]


def known(file):
    counts = np.bincount([int(line.rsplit(" ", 1)[1]) for line in file.read_text().splitlines()])
    return {"images": sum(counts), "classes": len(counts), "largest": max(counts), "smallest": min(counts)}


def test_every_stage_takes_a_step_on_a_small_cifar_10(tmp_path, monkeypatch, no_figures, capsys):
    monkeypatch.setattr(cifar_images, "SPLIT_SIZES", {"train": 40, "test": 20})
    stream = np.random.default_rng(0)
    for split, number in {"train": 40, "test": 20}.items():
        cells = []
        for _ in range(number):
            file = io.BytesIO()
            Image.fromarray(stream.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")
            cells.append({"bytes": file.getvalue(), "path": None})
        table = pa.table({"img": cells, "label": [i % 10 for i in range(number)]})
        parquet.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    options = ["--data-dir", str(tmp_path), "--model", "osdtw_resnet14", "--imbalance-factor", "4"]
    assert train(["cifar10_lt", *options, *SHORT, "--output", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    assert stages(tmp_path / "run") == STAGES
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["class_counts"] == [4, 3, 2, 2, 2, 1, 1, 1, 1, 1]  # int(4 * 4 ** (-i / 9))
    assert results["test_images"] == 20


@pytest.mark.parametrize("name", ["cifar10_lt", *LAYOUTS])
def test_the_passes_are_the_published_epochs(name):
    recipe = read_recipe(name)
    assert recipe.passes() == {"cifar10_lt": 200, "places_lt": 30}.get(name, 90)
    assert recipe.data == name.removesuffix("10_lt") + "10" if name == "cifar10_lt" else recipe.data == name


def test_colours_are_jittered_as_the_recipe_says(tiny, tmp_path):
    from osdtw_training.photo_batches import Augmented

    (tmp_path / "a").mkdir()
    Image.new("RGB", (40, 40), (200, 100, 50)).save(tmp_path / "a" / "0.png")
    whole = {"data": str(tmp_path), "imbalance_factor": None, "holdout": 0, "crop": "resized", "flip": False}

    def means(jitter):
        recipe = tiny(**whole, color_jitter=jitter, num_tasks=1)
        images = load_data(recipe).train
        return np.array([Augmented(images, [0], recipe, epoch)[0][0].double().mean((1, 2)) for epoch in range(40)])

    assert np.allclose(means(0.0), [200, 100, 50], atol=0.6)
    jittered = means(0.4)
    assert jittered.std(0).min() > 3
    assert jittered[:, 0].min() > 200 * 0.6**3
    with pytest.raises(ValueError, match=r"color_jitter is 0\.4; give 0 to 1, above 0 only with crop"):
        tiny(color_jitter=0.4)
