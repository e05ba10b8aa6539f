"""The names of the Hub and Triton's model repository."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from osdtw_export import OnnxClassifier
from osdtw_export.cli import main
from osdtw_export.hub import hub_file, write_preprocessing
from osdtw_export.triton import triton_file, write_triton
from osdtw_models.pixels import fit_image


@pytest.mark.parametrize(
    ("precision", "name"), [("fp32", "model.onnx"), ("fp16", "model_fp16.onnx"), ("int8", "model_quantized.onnx")]
)
def test_the_hubs_names(tmp_path, precision, name):
    assert hub_file(tmp_path, precision) == tmp_path / "onnx" / name


def test_preprocessing_means_what_our_own_does(exported, tmp_path):
    """The steps of the config, taken by hand, give the pixels of `fit_image`, normalised."""
    metadata = replace(exported.file.metadata, crop_pct=0.8, interpolation="bicubic")
    config = json.loads(write_preprocessing(tmp_path, metadata).read_text())
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (70, 50, 3), dtype=np.uint8))
    side = config["size"]["shortest_edge"]
    assert side == 40
    scaled = image.resize((side, int(side * 70 / 50)), config["resample"])
    height, width = config["crop_size"].values()
    left, top = round((scaled.width - width) / 2), round((scaled.height - height) / 2)
    pixels = np.asarray(scaled.crop((left, top, left + width, top + height)))
    np.testing.assert_array_equal(pixels, fit_image(image, 32, 0.8, "bicubic"))
    assert config["rescale_factor"] * 255 == 1
    assert (config["image_mean"], config["image_std"]) == (list(metadata.mean), list(metadata.std))
    assert all(config[step] for step in ("do_resize", "do_center_crop", "do_rescale", "do_normalize"))


def test_tritons_configuration(exported, tmp_path):
    path = write_triton(tmp_path, "birds", replace(exported.file.metadata, threads=2), instances=3)
    text = path.read_text()
    assert path == tmp_path / "birds" / "config.pbtxt"
    assert triton_file(tmp_path, "birds") == tmp_path / "birds" / "1" / "model.onnx"
    assert re.findall(r'name: "(\w+)" data_type: (\w+) dims: \[([\d, ]+)\]', text) == [
        ("pixel_values", "TYPE_FP32", "3, 32, 32"),
        ("logits", "TYPE_FP32", "10"),
        ("logits_task0", "TYPE_FP32", "5"),
        ("logits_task1", "TYPE_FP32", "7"),
    ]
    for said in ("max_batch_size: 64", "dynamic_batching {", "count: 3 kind: KIND_AUTO", 'string_value: "2"'):
        assert said in text
    assert text.count("{") == text.count("}")
    assert 'dims: [10] label_filename: "labels.txt"' in text
    assert (tmp_path / "birds" / "labels.txt").read_text().splitlines() == exported.file.metadata.label_names


def test_triton_labels_only_what_is_in_class_order(exported, tmp_path):
    # Task 0 has 9 classes and "none": as wide as the classes, but not them.
    tasks = [list(range(9)), [9]]
    text = write_triton(tmp_path, "birds", replace(exported.file.metadata, task_classes=tasks)).read_text()
    labelled = re.findall(r'name: "(\w+)" [^}]*label_filename', text)
    assert labelled == ["logits"]


def test_triton_merges_no_requests_for_a_file_of_one_batch_size(exported, tmp_path):
    metadata = replace(exported.file.metadata, batch=4, uint8=True, label_names=None)
    text = write_triton(tmp_path, 'quoted"', metadata).read_text()
    assert 'name: "quoted\\""' in text
    assert "max_batch_size: 0" in text
    assert "TYPE_UINT8 dims: [4, 32, 32, 3]" in text
    assert "dynamic_batching" not in text
    assert "label" not in text
    with pytest.raises(ValueError, match="0 instances"):
        write_triton(tmp_path, "birds", metadata, instances=0)


@pytest.mark.parametrize(
    ("words", "files"),
    [
        (["--hub", "up"], ["onnx/model.onnx", "preprocessor_config.json"]),
        (["--triton", "up"], ["my_run/1/model.onnx", "my_run/config.pbtxt", "my_run/labels.txt"]),
    ],
)
def test_the_door_writes_both(exported, tmp_path, monkeypatch, capsys, words, files):
    monkeypatch.chdir(tmp_path)
    assert main(["--onnx", str(exported.run), *words]) == 0
    out = capsys.readouterr().out
    found = sorted(str(f.relative_to(tmp_path / "up")) for f in (tmp_path / "up").rglob("*") if f.is_file())
    assert found == files
    assert "Wrote    up/" in out
    assert OnnxClassifier(tmp_path / "up" / files[0]).num_classes == 10


def test_places_exclude_each_other_and_a_tuned_hub_file_needs_its_precision(capsys):
    assert main(["--onnx", "--hub", "a", "--triton", "b"]) == 2
    assert "not allowed with argument --hub" in capsys.readouterr().err
    assert main(["--onnx", "--hub", "a", "--uint8"]) == 2
    assert main(["--onnx", "--triton", "a", "--instances", "0"]) == 2
    assert main(["--onnx", "--hub", "a", "--tune"]) == 2
    assert "give --precision with --tune" in capsys.readouterr().err
