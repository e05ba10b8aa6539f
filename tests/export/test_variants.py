"""The forms of a file: packed or not, of one batch size, on pixels, with probabilities; and every name of the zoo."""

from collections import Counter

import numpy as np
import onnx
import pytest
import timm
import torch
from families import FOREIGN, SIZE, ZOO, plain, zoo

from osdtw_export import OnnxClassifier
from osdtw_export.export import export_onnx
from osdtw_export.variant import Variant
from osdtw_models import create_model, decouple

TWO = [[7, 0, 2, 9], [1, 3, 4, 5, 6, 8]]
FAST = ("osdtw_resnet10", "osdtw_vit_small_patch16_224")
PACKED = ("osdtw_resnet10", "osdtw_resnet50", "regnet", "efficientnet", "resnet-d")
# More of the same blocks as their smaller siblings have.
LARGE = (
    "resnet101",
    "resnet152",
    "convnext_small",
    "convnext_base",
    "vit_base_patch16_224",
    "vit_base_patch16_clip_224",
)
OTHERS = ("osdtw_timm", "osdtw_vit_base_patch16_clip_224", *(f"osdtw_{name}" for name in LARGE))
NAMES = [name for name in timm.list_models("osdtw_*") if name not in OTHERS]


def convolutions(path):
    """Convolutions of a file, and how many of them have groups."""
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "Conv"]
    groups = [next((a.i for a in node.attribute if a.name == "group"), 1) for node in nodes]
    return len(nodes), sum(group > 1 for group in groups)


def test_grouped_the_first_convolutions_read_the_shared_map_itself(exported):
    # Block 6 of 7 is the first of the decoders: conv1 and the shortcut have no groups there, what follows has.
    number, grouped = convolutions(exported.file.path)
    assert (number, grouped) == (1 + 2 * 6 + 2, 1 + 2)
    operators = Counter(node.op_type for node in onnx.load(exported.file.path).graph.node)
    assert operators["Gemm"] == 1
    assert operators["BatchNormalization"] == operators["Pad"] == 0
    assert operators["Slice"] == 2  # those of the fusion: no shortcut takes pixels apart


@pytest.mark.parametrize(
    ("variant", "depth"),
    [
        (Variant("dense"), 4),
        (Variant("none", batch=3, uint8=True, softmax=True), 5),
        *(
            pytest.param(Variant(pack), depth, marks=pytest.mark.slow)
            for pack in ("none", "grouped", "dense")
            for depth in (0, 4, 7)
        ),
        pytest.param(Variant(batch=1), 5, marks=pytest.mark.slow),
        pytest.param(Variant(uint8=True, opset=18), 5, marks=pytest.mark.slow),
    ],
)
def test_every_form_agrees_with_the_network_and_keeps_its_outputs(make_network, tmp_path, variant, depth):
    model = make_network(task_classes=TWO, shared_depth=depth, fusion="pool")
    model.set_calibration([[1.5, 0.2], [0.8, -0.1]])
    file = export_onnx(model, tmp_path / "model.onnx", source="test", variant=variant)
    assert (file.metadata.packing, file.unpacked_because) == (variant.packing, "")
    probabilities = ["probabilities"] if variant.softmax else []
    assert list(file.metadata.output_sizes) == ["logits", "logits_task0", "logits_task1", *probabilities]
    classifier = OnnxClassifier(file.path)
    pixels = np.random.default_rng(0).integers(0, 256, (7, 32, 32, 3), dtype=np.uint8)
    images = ((pixels / 255 - classifier.mean) / classifier.std).transpose(0, 3, 1, 2)
    with torch.inference_mode():
        tasks = model.calibrated(model.forward_tasks(torch.tensor(images, dtype=torch.float32)))
        fused = model(torch.tensor(images, dtype=torch.float32))
    found = classifier.outputs(pixels, classifier.output_names)
    expected = [fused, *tasks, *([fused.softmax(-1)] if variant.softmax else [])]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=1e-4 * max(1, theirs.abs().max().item()))
    if variant.batch:
        assert onnx.load(file.path).graph.input[0].type.tensor_type.shape.dim[0].dim_value == variant.batch
    if variant.uint8:
        with pytest.raises(ValueError, match=r"uint8 \(pixels\), not float32"):
            classifier.outputs(images.astype(np.float32))


@pytest.mark.parametrize(
    "family", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in [*ZOO, *FOREIGN]]
)
def test_every_family_is_exported_and_agrees(family, tmp_path):
    network = zoo(family, shared_depth=3) if family in ZOO else decouple(plain(family), 3)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, SIZE, SIZE)}
    file = export_onnx(network, tmp_path / "model.onnx", source="test")
    assert file.parity.worst().passed
    assert (file.unpacked_because == "") == (file.metadata.packing == "grouped") == (family in PACKED)
    assert OnnxClassifier(file.path).input_size == (3, SIZE, SIZE)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["first", "middle", "last"])
@pytest.mark.parametrize(
    ("family", "packing"),
    [(family, packing) for family in PACKED for packing in ("none", "grouped", "dense")]
    + [(family, "grouped") for family in [*ZOO, *FOREIGN] if family not in PACKED],
)
def test_every_family_agrees_in_every_form_at_three_depths(family, packing, place, tmp_path):
    blocks = (zoo(family) if family in ZOO else decouple(plain(family), 0)).num_blocks
    depth = {"first": 0, "middle": blocks // 2, "last": blocks}[place]
    network = zoo(family, shared_depth=depth) if family in ZOO else decouple(plain(family), depth)
    network.pretrained_cfg = {**network.pretrained_cfg, "input_size": (3, SIZE, SIZE)}
    file = export_onnx(network, tmp_path / "model.onnx", source="test", variant=Variant(packing))
    assert file.parity.worst().passed
    if family in PACKED:
        assert file.metadata.packing == packing
    elif place == "first":
        assert file.metadata.packing == "none"
        assert file.unpacked_because


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_the_zoo_is_exported(name, tmp_path):
    torch.manual_seed(0)
    sized = {"img_size": SIZE} if "vit" in name else {}
    model = create_model(name, num_classes=6, **sized).eval()
    side = min(SIZE, model.pretrained_cfg["input_size"][-1])
    model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, side, side)}
    assert export_onnx(model, tmp_path / "model.onnx", source="test").parity.worst().passed
