"""The door osdtw-predict: networks and ONNX files, files and data sets, every kind of table."""

import csv
import json

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from osdtw_export.export import export_onnx
from osdtw_export.predict_cli import main
from osdtw_export.variant import Variant
from osdtw_models import Predictor
from osdtw_models.tables import write_table


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def refusal(capsys, *argv):
    assert main([str(word) for word in argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("osdtw-predict: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize("kind", ["network", "onnx", "onnx of pixels, three at a time"])
def test_a_network_and_its_onnx_file_say_the_same(exported, photos, capsys, kind, tmp_path):
    source = exported.run if kind == "network" else exported.file.path
    if "pixels" in kind:
        source = tmp_path / "pixels.onnx"
        variant = Variant(batch=3, uint8=True)
        export_onnx(
            exported.model, source, source="test", label_names=exported.file.metadata.label_names, variant=variant
        )
    assert main([str(photos), "--model", str(source), "--json", "--topk", "2", "--batch-size", "2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = Predictor(exported.run, topk=2)(photos)
    assert [row["name"] for row in rows] == [str(photos / f"{i}.png") for i in range(3)]
    for row, prediction in zip(rows, expected, strict=True):
        assert (row["labels"], row["tasks"]) == (prediction.labels, prediction.tasks)
        assert row["probabilities"] == pytest.approx(prediction.probabilities, abs=1e-4)
        assert row["none"] == pytest.approx(prediction.none, abs=1e-4)


def test_in_words_the_task_and_its_none_are_told(exported, photos, capsys):
    assert main([str(photos / "0.png"), "--model", str(exported.run), "--topk", "1"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"{photos / '0.png'}: animal ")
    assert "[task " in line
    assert "none1 " in line


@pytest.mark.parametrize("suffix", [".csv", ".json", ".jsonl", ".parquet"])
def test_every_kind_of_table_holds_the_same(exported, photos, tmp_path, suffix, capsys):
    file = tmp_path / f"seen{suffix}"
    assert main([str(photos), "--model", str(exported.run), "-o", str(file), "--topk", "2"]) == 0
    assert f"Wrote {file}: 3 images" in capsys.readouterr().out
    read = {
        ".csv": lambda: list(csv.DictReader(file.read_text().splitlines())),
        ".json": lambda: json.loads(file.read_text()),
        ".jsonl": lambda: [json.loads(line) for line in file.read_text().splitlines()],
        ".parquet": lambda: parquet.read_table(file).to_pylist(),
    }[suffix]()
    expected = [prediction.row() for prediction in Predictor(exported.run, topk=2)(photos)]
    convert = str if suffix == ".csv" else lambda value: value
    assert read == [{key: convert(value) for key, value in row.items()} for row in expected]


def test_a_data_set_comes_with_its_true_labels(exported, photos, tmp_path):
    root = tmp_path / "set"
    for i, name in enumerate(("ant", "bee", "cat")):
        (root / "test" / name).mkdir(parents=True)
        (root / "train" / name).mkdir(parents=True)
        (photos / f"{i}.png").rename(root / "test" / name / "a.png")
    file = tmp_path / "seen.json"
    assert main(["--data", str(root), "--model", str(exported.run), "-o", str(file), "--batch-size", "2"]) == 0
    rows = json.loads(file.read_text())
    assert [(row["label"], row["image"]) for row in rows] == [(name, f"{name}/a.png") for name in ("ant", "bee", "cat")]


def test_another_prior_changes_the_answers(exported, photos, tmp_path, capsys):
    weights = tmp_path / "prior.json"
    weights.write_text(json.dumps([0] * 9 + [1]))
    assert main([str(photos), "--model", str(exported.run), "--prior", str(weights), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(row["labels"][0] == "animal 9" and row["probabilities"][0] == 1 for row in rows)


def test_what_cannot_be_done_is_one_sentence(exported, photos, tmp_path, capsys):
    model = ("--model", exported.run)
    assert "Nothing to classify" in refusal(capsys, *model)
    assert "choose one" in refusal(capsys, photos, "--data", "digits", *model)
    for word in ("--data-dir", "--test-list", "--val-list"):
        assert "go with a data set; give --data" in refusal(capsys, photos, word, "x", *model)
    assert "ends in none of" in refusal(capsys, photos, *model, "-o", tmp_path / "seen.xlsx")
    assert "--provider is for .onnx files" in refusal(capsys, photos, *model, "--provider", "cpu")
    onnx = ("--model", exported.file.path, "--provider", "cuda")
    assert "no CUDAExecutionProvider, only" in refusal(capsys, photos, *onnx)
    assert "topk is 0" in refusal(capsys, photos, *model, "--topk", "0")
    assert "no prior 'none'" in refusal(capsys, photos, *model, "--prior", "none")
    assert "No file" in refusal(capsys, tmp_path / "other.png", *model)
    assert not list(tmp_path.glob("seen*"))


def test_no_rows_make_an_empty_table(tmp_path):
    write_table(tmp_path / "none.csv", [])
    assert (tmp_path / "none.csv").read_text() == "\n"
