"""A second runtime, written by others: the files mean the same to it."""

import numpy as np
import openvino
import pytest
import torch

from osdtw_export import OnnxClassifier
from osdtw_export.export import export_onnx
from osdtw_export.variant import Variant

CORE = openvino.Core()


def foreign_outputs(path, images):
    """Every output by OpenVINO, exactly as told: it would compute in bfloat16 where the processor can."""
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = CORE.compile_model(CORE.read_model(path), "CPU", exact)
    found = compiled({"pixel_values": images})
    return {output.get_any_name(): found[output] for output in compiled.outputs}


def assert_agrees(model, path):
    classifier, noise = OnnxClassifier(path), np.random.default_rng(0)
    for batch in (1, 5):
        images = noise.normal(size=(batch, *classifier.input_size)).astype(np.float32)
        if classifier.metadata.uint8:
            images = noise.integers(0, 256, (batch, 32, 32, 3), dtype=np.uint8)
        found = foreign_outputs(path, images)
        assert list(found) == classifier.output_names
        ours = classifier.outputs(images, classifier.output_names)
        for name, values in zip(classifier.output_names, ours, strict=True):
            allowed = 1e-4 * max(1, np.abs(values).max())
            np.testing.assert_allclose(found[name], values, rtol=0, atol=allowed)
        if not classifier.metadata.uint8:
            with torch.inference_mode():
                exact = model(torch.from_numpy(images)).numpy()
            np.testing.assert_allclose(found["logits"], exact, rtol=0, atol=1e-4 * max(1, np.abs(exact).max()))


def test_openvino_gives_the_same_answers(exported):
    assert_agrees(exported.model, exported.file.path)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [0, 4, 7])
@pytest.mark.parametrize(
    "variant", [Variant("none"), Variant("dense"), Variant("grouped"), Variant(uint8=True, softmax=True)]
)
def test_openvino_gives_the_same_answers_in_every_form(make_network, tmp_path, variant, depth):
    model = make_network(task_classes=[[9, 1], [0, 2, 4, 6], [3, 5, 7, 8]], shared_depth=depth)
    assert_agrees(model, export_onnx(model, tmp_path / "model.onnx", source="test", variant=variant).path)
