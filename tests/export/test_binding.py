"""Bound batches: the answers of a plain session, copies that stay, one run at a time."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import onnx
import pytest

from osdtw_export import OnnxClassifier
from osdtw_export.binding import BoundSession


@pytest.fixture(scope="module")
def fixed(exported, tmp_path_factory):
    """Our file with its batch fixed to 3, in the graph and in the metadata."""
    model = onnx.load(exported.file.path)
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.shape.dim[0].dim_value = 3
    del model.graph.value_info[:]
    onnx.helper.set_model_props(model, replace(exported.file.metadata, batch=3).to_props())
    path = tmp_path_factory.mktemp("fixed") / "fixed.onnx"
    onnx.save(model, path)
    return OnnxClassifier(path, threads=1)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(7, 3, 32, 32)).astype(np.float32)


def test_any_number_of_images_passes_through_a_file_of_one_batch_size(fixed, exported, images):
    assert isinstance(fixed._bound, BoundSession)
    free = OnnxClassifier(exported.file.path, threads=1)
    for number in (0, 1, 3, 7):
        for ours, theirs in zip(fixed.outputs(images[:number]), free.outputs(images[:number]), strict=True):
            assert ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_answers_are_not_overwritten_by_the_next_run(fixed, images):
    first = fixed.logits(images[:3])
    kept = first.copy()
    fixed.logits(images[3:6])
    np.testing.assert_array_equal(first, kept)


def test_threads_do_not_mix_their_batches(fixed, images):
    parts = [images[i : i + 3] for i in range(5)] * 8
    alone = [fixed.logits(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(fixed.logits, parts))
    for ours, theirs in zip(together, alone, strict=True):
        np.testing.assert_array_equal(ours, theirs)
