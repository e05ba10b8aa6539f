"""One ONNX file of every family that the zoo takes from timm; export itself compares it with PyTorch."""

import pytest
from families import FOREIGN, SIZE, ZOO, plain, zoo

from osdtw_export.graph import export_onnx
from osdtw_export.runtime import OnnxClassifier
from osdtw_models import decouple

FAST = ("osdtw_resnet10", "osdtw_vit_small_patch16_224")


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in [*ZOO, *FOREIGN]]
)
def test_a_family_is_exported_and_agrees(family, tmp_path):
    network = zoo(family, shared_depth=3) if family in ZOO else decouple(plain(family), 3)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, SIZE, SIZE)}
    file = export_onnx(network, tmp_path / "model.onnx", source="test")
    assert file.parity.worst().passed
    assert OnnxClassifier(file.path).input_size == (3, SIZE, SIZE)
