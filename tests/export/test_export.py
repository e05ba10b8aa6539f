"""The ONNX file computes what PyTorch computes, says what it is, and is never half written."""

import errno
import json
import os

import numpy as np
import onnx
import pytest
import torch

from osdtw_export import graph
from osdtw_export.describe import describe
from osdtw_export.export import export_onnx
from osdtw_export.metadata import Metadata
from osdtw_export.parity import BATCHES, ParityReport, ParityRow
from osdtw_export.runtime import OnnxClassifier
from osdtw_export.shortcuts import convolve_shortcuts
from osdtw_export.variant import Variant

ONE = [list(range(10))]
TWO = [[7, 0, 2, 9], [1, 3, 4, 5, 6, 8]]
THREE = [[9, 1], [0, 2, 4, 6], [3, 5, 7, 8]]


def assert_agrees(model, path, batches=(1, 5, 16)):
    """Every output, by a session of our own rather than `check_parity`."""
    classifier = OnnxClassifier(path)
    for batch in batches:
        images = torch.randn(batch, *classifier.input_size)
        with torch.inference_mode():
            logits, task_logits = model(images), model.forward_tasks(images)
        if model.logit_offsets:  # a task's posterior in training is the softmax of z + log m
            task_logits = [z + m for z, m in zip(task_logits, model.logit_offsets, strict=True)]
        found = [classifier.logits(images.numpy()), *classifier.task_logits(images.numpy())]
        for ours, theirs in zip([logits, *task_logits], found, strict=True):
            np.testing.assert_allclose(theirs, ours.numpy(), rtol=0, atol=1e-4 * max(1, ours.abs().max().item()))


def test_two_tasks_that_part_in_the_middle_agree_at_every_batch(exported):
    assert_agrees(exported.model, exported.file.path)


@pytest.mark.parametrize(
    ("tasks", "depth", "fusion"),
    [
        (ONE, 7, "raw"),
        (THREE, 0, "valid"),
        (TWO, 7, "pool"),
        (ONE * 3, 4, "mean"),
        pytest.param(ONE, 0, "raw", marks=pytest.mark.slow),
        pytest.param([ONE[0][::-1]], 3, "raw", marks=pytest.mark.slow),
        pytest.param(TWO, 0, "raw", marks=pytest.mark.slow),
        pytest.param(TWO, 4, "valid", marks=pytest.mark.slow),
        pytest.param(THREE, 7, "raw", marks=pytest.mark.slow),
    ],
)
def test_tasks_depths_and_fusion_rules_agree(make_network, tmp_path, tasks, depth, fusion):
    model = make_network(task_classes=tasks, shared_depth=depth, fusion=fusion)
    file = export_onnx(model, tmp_path / "model.onnx", source="test")
    assert_agrees(model, file.path)
    assert list(file.metadata.output_sizes.values()) == [10, *model.partition.output_sizes]


def test_an_open_none_is_summed_in_the_graph(make_network, tmp_path):
    model = make_network(task_classes=TWO, shared_depth=4, open_none=True, fusion="mean")
    model.set_calibration([[1.5, 0.2], [0.7, -0.3]])
    file = export_onnx(model, tmp_path / "model.onnx", source="test")
    assert file.metadata.packing == "grouped"
    assert list(file.metadata.output_sizes.values()) == [10, 5, 7]
    classifier, images = OnnxClassifier(file.path), torch.randn(3, 3, 32, 32)
    with torch.inference_mode():
        outputs = model.forward_outputs(images)
        expected = [model.fuse(outputs), *model.calibrated(outputs)]
    for ours, theirs in zip(
        [classifier.logits(images.numpy()), *classifier.task_logits(images.numpy())], expected, strict=True
    ):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"logit_offsets": [[0.5, -1.0, 0.0, 2.0, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, -0.7]]},
        {"in_chans": 1},
        {"pretrained_cfg_overlay": {"input_size": (3, 48, 40), "pool_size": None}},
        {"global_pool": "max"},
    ],
)
def test_variants_of_the_network_agree(make_network, tmp_path, changes):
    model = make_network(task_classes=TWO, **changes)
    file = export_onnx(model, tmp_path / "model.onnx", source="test")
    assert_agrees(model, file.path)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [18, 23])
def test_older_and_newer_opsets_agree(make_network, tmp_path, opset):
    model = make_network()
    path = export_onnx(model, tmp_path / "model.onnx", source="test", variant=Variant(opset=opset)).path
    assert [entry.version for entry in onnx.load(path).opset_import] == [opset]
    assert_agrees(model, path)


@pytest.mark.slow
def test_a_network_in_training_mode_on_channels_last_is_left_as_it_is(make_network, tmp_path):
    model = make_network().to(memory_format=torch.channels_last).train()
    model.set_grad_checkpointing()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = export_onnx(model, tmp_path / "model.onnx", source="test").path
    assert model.training
    assert model.grad_checkpointing
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert_agrees(model.eval(), path)


def test_it_is_one_file_without_external_data_or_remains(exported):
    path = exported.file.path
    assert sorted(file.name for file in path.parent.iterdir()) == ["model.onnx", "my_run"]
    model = onnx.load(path, load_external_data=False)
    assert all(tensor.data_location == onnx.TensorProto.DEFAULT for tensor in model.graph.initializer)
    assert path.stat().st_size == exported.file.num_bytes


def test_the_graph_has_no_batch_norm_and_no_traces_of_the_exporter(exported):
    nodes = onnx.load(exported.file.path).graph.node
    assert "BatchNormalization" not in {node.op_type for node in nodes}
    assert not any(node.metadata_props or node.doc_string for node in nodes)


def test_inputs_and_outputs_have_their_names_order_and_free_batch(exported):
    inside = onnx.load(exported.file.path).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*inside.input, *inside.output]
    }
    assert list(shapes.items()) == [
        ("pixel_values", ["batch", 3, 32, 32]),
        ("logits", ["batch", 10]),
        ("logits_task0", ["batch", 5]),
        ("logits_task1", ["batch", 7]),
    ]


def test_metadata_come_back_as_they_went_in(exported):
    props = {entry.key: entry.value for entry in onnx.load(exported.file.path).metadata_props}
    metadata = Metadata.from_props(props)
    assert metadata == exported.file.metadata
    assert metadata.task_classes == json.loads(props["task_classes"]) == TWO
    assert json.loads(props["label_names"]) == [f"animal {c}" for c in range(10)]
    assert metadata.architecture == props["architecture"] == "osdtw_resnet14"
    assert (metadata.shared_depth, metadata.fusion, metadata.source) == (5, "raw", "my_run")
    assert metadata.input_size == (3, 32, 32)
    assert metadata.mean == exported.model.pretrained_cfg["mean"]
    assert metadata.std == exported.model.pretrained_cfg["std"]
    assert (metadata.crop_pct, metadata.interpolation) == (1.0, "bilinear")
    assert metadata.versions["torch"] == torch.__version__
    assert set(metadata.versions) == {"osdtw_models", "timm", "torch", "onnx"}
    assert (metadata.packing, metadata.precision, metadata.batch) == ("grouped", "fp32", None)


def test_the_weight_hash_is_that_of_the_checkpoint(exported):
    assert exported.file.metadata.weights_sha256 == exported.weights_sha256


def test_label_names_may_be_a_dict_and_go_with_their_classes(make_network):
    model = make_network(num_classes=3)
    model.pretrained_cfg.update(num_classes=3, label_names={"2": "c", "0": "a", "1": "b"})
    assert describe(model, "test").label_names == ["a", "b", "c"]
    model.reset_classifier(4)
    assert describe(model, "test").label_names is None


def test_a_network_with_other_channels_is_normalised_by_the_mean_of_the_known_ones(make_network):
    model = make_network(in_chans=2)
    model.pretrained_cfg.update(mean=(0.1, 0.2, 0.6), std=(1.0, 2.0, 3.0))
    metadata = describe(model, "test")
    assert metadata.input_size == (2, 32, 32)
    assert metadata.mean == pytest.approx((0.3, 0.3))
    assert metadata.std == (2.0, 2.0)


@pytest.mark.parametrize(
    ("names", "said"), [(["one"], "10 names"), ([3] * 10, "10 names"), ({"0": "a"}, "0 to 9"), ({"x": "a"}, "0 to 9")]
)
def test_label_names_that_do_not_fit_are_refused(make_network, names, said):
    model = make_network()
    model.pretrained_cfg.update(num_classes=10, label_names=names)
    with pytest.raises(ValueError, match=said):
        describe(model, "test")


@pytest.mark.parametrize("older", [None, b"an older file"])
def test_a_file_that_disagrees_never_gets_its_name(make_network, tmp_path, monkeypatch, older):
    def rewrite_wrongly(model):
        convolve_shortcuts(model)
        model.encoder[0].conv1.bias.data += 0.1

    monkeypatch.setattr(graph, "convolve_shortcuts", rewrite_wrongly)
    path = tmp_path / "model.onnx"
    if older:
        path.write_bytes(older)
    with pytest.raises(ValueError, match="ONNX Runtime and PyTorch differ by"):
        export_onnx(make_network(), path, source="test")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == ([older] if older else [])


def test_a_fixed_batch_is_caught(make_network, tmp_path, monkeypatch):
    export = torch.onnx.export
    monkeypatch.setattr(torch.onnx, "export", lambda *args, dynamic_shapes, **kwargs: export(*args, **kwargs))
    with pytest.raises(ValueError, match=r"pixel_values .* \(2, 3, 32, 32\) where .* tell of .* \(any, 3, 32, 32\)"):
        export_onnx(make_network(), tmp_path / "model.onnx", source="test")
    assert list(tmp_path.iterdir()) == []


def test_weights_that_are_not_finite_are_refused(make_network, tmp_path):
    model = make_network()
    torch.nn.init.constant_(model.decoders[1].classifier.bias, float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        export_onnx(model, tmp_path / "model.onnx", source="test")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_exporter_becomes_one_sentence_and_leaves_nothing(make_network, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(ValueError, match=r"could not write osdtw_resnet14 .* first line$"):
        export_onnx(make_network(), tmp_path / "model.onnx", source="test")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_not_called_the_exporters_fault(make_network, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.onnx, "export", full)
    with pytest.raises(OSError, match="No space left"):
        export_onnx(make_network(), tmp_path / "model.onnx", source="test")
    assert not list(tmp_path.iterdir())


def test_arguments_are_checked_before_any_work(make_network, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", None)
    with pytest.raises(FileNotFoundError, match="create it first"):
        export_onnx(make_network(), tmp_path / "no" / "model.onnx", source="test")
    for taken in (tmp_path, os.devnull):
        with pytest.raises(ValueError, match="is a folder or a device"):
            export_onnx(make_network(), taken, source="test")
    for choice, said in ({"opset": 11}, "18 to 23"), ({"pack": "x"}, "packing 'x'"), ({"batch": 0}, "batch of 0"):
        with pytest.raises(ValueError, match=said):
            Variant(**choice)
    with pytest.raises(ValueError, match="no classifiers"):
        export_onnx(make_network(num_classes=0), tmp_path / "model.onnx", source="test")


def test_a_folder_that_cannot_be_written_to_is_refused_before_any_work(make_network, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.onnx, "export", None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match="cannot be written to; choose another one with -o"):
        export_onnx(make_network(), tmp_path / "model.onnx", source="test")


def test_the_report_has_a_row_for_every_batch_and_output_and_knows_the_worst(exported):
    report = exported.file.parity
    names = list(exported.file.metadata.output_sizes)
    assert [(row.batch, row.output) for row in report.rows] == [(b, name) for b in BATCHES for name in names]
    assert all(row.passed for row in report.rows)
    rows = (ParityRow(1, "a", 1.0, 4.0), ParityRow(1, "b", 0.5, 1.0), ParityRow(7, "a", 3.0, 4.0))
    assert ParityReport(rows).worst() is rows[2]
    assert ParityReport(rows).worst(batch=1) is rows[1]
    assert not ParityRow(1, "a", float("nan"), 1.0).passed
