"""Tuning: what is tried, that all are timed, that the fastest is kept and remembered."""

import time
from dataclasses import replace

import numpy as np
import onnx
import pytest

from osdtw_export import OnnxClassifier, tune
from osdtw_export.accuracy import Data
from osdtw_export.providers import CPU, CUDA
from osdtw_export.variant import Variant


@pytest.fixture
def quick_export(exported, monkeypatch):
    """An exporter that writes the same file under another label; grouped is not to be had."""

    def export(model, path, *, source, variant, data, debug):
        measured.append((variant.precision, data))
        packing = "none" if variant.pack == "grouped" else variant.pack
        metadata = replace(exported.file.metadata, packing=packing, precision=variant.precision)
        content = onnx.load(exported.file.path)
        onnx.helper.set_model_props(content, metadata.to_props())
        onnx.save(content, path)
        return replace(exported.file, path=path, metadata=metadata)

    measured = []
    monkeypatch.setattr(tune, "export_onnx", export)
    return measured


def test_what_is_left_open_is_varied_and_what_is_set_is_kept(monkeypatch):
    def tried(*args):
        return [(each.pack, each.precision) for each in tune.candidates(Variant(softmax=True), *args)]

    assert tried(None, None, None) == [("none", "fp32"), ("grouped", "fp32"), ("dense", "fp32")]
    assert tried("dense", None, "images") == [("dense", "fp32"), ("dense", "int8")]
    assert tried("none", "int8", "images") == [("none", "int8")]
    monkeypatch.setattr(tune, "wanted_providers", lambda asked: [CUDA, CPU])
    assert tried("dense", None, None) == [("dense", "fp32"), ("dense", "fp16")]


def test_the_fastest_is_kept_with_the_table_and_its_threads(exported, quick_export, tmp_path, monkeypatch):
    speeds = {("none", "fp32", 1): 3.0, ("none", "fp32", 2): 2.0, ("dense", "fp32", 1): 4.0, ("dense", "fp32", 2): 1.0}
    monkeypatch.setattr(tune, "thread_counts", lambda: [1, 2])
    monkeypatch.setattr(tune, "timed", lambda classifiers, batch: {key: speeds[key] for key in classifiers})
    path = tmp_path / "model.onnx"
    tried = [Variant("none"), Variant("grouped"), Variant("dense")]
    file = tune.tune(exported.model, path, tried, source="test")
    assert [each.name for each in tmp_path.iterdir()] == ["model.onnx"]
    known = OnnxClassifier(path).metadata
    assert known == file.metadata
    assert (known.packing, known.threads) == ("dense", 2)
    assert [row["milliseconds"] for row in known.tuning] == [1.0, 2.0, 3.0, 4.0]
    assert known.tuning[0] == {"packing": "dense", "precision": "fp32", "threads": 2, "batch": 1, "milliseconds": 1.0}
    lines = tune.table_lines(known.tuning)
    assert len(lines) == 5
    assert lines[1].split() == ["dense", "fp32", "2", "1", "1.00"]


def test_what_fewer_bits_cost_is_measured_of_the_winner_alone(exported, quick_export, tmp_path, monkeypatch):
    monkeypatch.setattr(tune, "timed", lambda classifiers, batch: {k: float(k[1] == "fp32") for k in classifiers})
    data = Data("training images", "test images", True)
    tried = [Variant("none"), Variant("none", "int8")]
    file = tune.tune(exported.model, tmp_path / "model.onnx", tried, source="test", data=data)
    assert file.metadata.precision == "int8"
    unmeasured = Data("training images", None, True)
    assert quick_export == [("fp32", unmeasured), ("int8", unmeasured), ("int8", data)]


def test_a_place_that_cannot_be_written_to_is_refused_before_the_work(exported, tmp_path):
    with pytest.raises(FileNotFoundError, match="create it first"):
        tune.tune(exported.model, tmp_path / "no" / "model.onnx", [], source="test")


def test_times_are_medians_of_real_runs(exported):
    class Slow:
        input_size, metadata = (3, 4, 4), replace(exported.file.metadata, uint8=False)

        def __init__(self, milliseconds):
            self.waits, self.runs = milliseconds, 0

        def logits(self, images):
            assert images.shape == (2, 3, 4, 4)
            assert images.dtype == np.float32
            time.sleep(self.waits[self.runs % len(self.waits)] / 1000)
            self.runs += 1

    slow, fast = Slow([40, 60, 20, 20]), Slow([0])  # the first run is not counted
    found = tune.timed({"slow": slow, "fast": fast}, 2, rounds=3)
    assert slow.runs == fast.runs == 4
    assert 20 <= found["slow"] < 60
    assert found["fast"] < 20


def test_threads_are_powers_of_two_and_all_that_there_are(monkeypatch):
    for available, expected in ((1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])):
        monkeypatch.setattr(tune.os, "sched_getaffinity", lambda _, n=available: set(range(n)))
        assert tune.thread_counts() == expected
