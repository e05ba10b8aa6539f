"""A timm model cut into an OSDTW network against the model itself."""

import json

import pytest
import timm
import torch
from families import FOREIGN, SIZE, ZOO, plain
from timm.models import save_for_hf
from timm.models.resnet import BasicBlock, ResNet

from osdtw_models import ClassPartition, create_model, decouple

TASKS = [[4, 1], [5, 0, 3, 2]]
FAMILIES = [*ZOO, *FOREIGN]


def close(one, other, bound):
    assert (one - other).abs().max() <= bound * max(1, other.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
def test_the_answers_stay_the_same_at_every_depth(family):
    model = plain(family).double()
    images = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    expected, features = model(images), model.forward_features(images)
    deepest = decouple(model, shared_depth=-1).num_blocks
    for depth in {0, 1, deepest // 2, deepest}:
        network = decouple(model, shared_depth=depth, partition=TASKS)
        close(network(images), expected, 1e-10)
        halves = network.forward_features(images).chunk(2, dim=network.layout.channels)
        assert all(torch.equal(half, features) for half in halves)
        pooled = network.forward_head(network.forward_features(images), pre_logits=True)
        assert pooled.shape == (2, network.head_hidden_size)
        close(pooled[:, : pooled.shape[1] // 2], model.forward_head(features, pre_logits=True), 1e-10)
    single = plain(family)
    close(decouple(single, partition=TASKS)(images.float()), single(images.float()), 1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_levels_are_timms(family):
    model = plain(family)
    images = torch.randn(2, 3, SIZE, SIZE)
    network = decouple(model, partition=[list(range(6))])
    levels = len(network.feature_info)
    expected = model.forward_intermediates(images, levels, intermediates_only=True)
    found = network.forward_intermediates(images, intermediates_only=True)
    for one, other, info in zip(found, expected, network.feature_info, strict=True):
        assert torch.equal(one, other if other.shape[1] == info["num_chs"] else other.permute(0, 3, 1, 2))
        assert one.shape[1] == info["num_chs"]
        assert one.shape[-1] == SIZE // info["reduction"]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_saved_and_loaded_as_a_timm_model(family, tmp_path):
    network = decouple(plain(family), shared_depth=2, partition=TASKS)
    save_for_hf(network, tmp_path, safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(2, 3, SIZE, SIZE)
    assert torch.equal(again(images), network(images))
    assert again.model_args() == json.loads(json.dumps(network.model_args()))
    assert list(again.pretrained_cfg["mean"]) == list(network.pretrained_cfg["mean"])


@pytest.mark.parametrize("family", FAMILIES)
def test_what_timm_keeps_from_weight_decay_is_kept_in_every_decoder(family):
    model = plain(family)
    expected = getattr(model, "no_weight_decay", set)() & dict(model.named_parameters()).keys()
    network = decouple(model, shared_depth=0)
    assert len(network.no_weight_decay()) == 2 * len(expected)
    assert network.no_weight_decay() <= dict(network.named_parameters()).keys()


def test_the_model_is_left_alone_and_its_mode_is_kept():
    model = plain("regnet").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    network = decouple(model)
    assert network.training
    assert network.partition.tasks == ((0, 1, 2), (3, 4, 5))
    torch.nn.init.zeros_(next(network.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_tasks_come_as_a_partition_as_lists_or_from_counts():
    model = plain("osdtw_resnet10")
    given = ClassPartition(TASKS)
    assert decouple(model, partition=given).partition == decouple(model, partition=TASKS).partition == given
    assert decouple(model, class_counts=[1, 9, 2, 8, 7, 3]).partition.tasks == ((1, 3, 4), (0, 2, 5))


def test_a_model_without_classes_gets_decoders_without_classifiers():
    network = decouple(plain("osdtw_resnet10", num_classes=0))
    assert network(torch.randn(2, 3, SIZE, SIZE)).shape == (2, network.num_features)


def test_a_family_that_cannot_be_cut_is_told_those_that_can():
    with pytest.raises(ValueError, match=r"blocks of a DenseNet cannot be listed; .*ConvNeXt, .*VisionTransformer"):
        decouple(timm.create_model("densenet121", num_classes=3))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "map", "depth": 2}),
        ("convnext_atto", {"head_hidden_size": 8, "depths": (1, 1, 1, 1)}),
        ("resnet10t", {"global_pool": "catavgmax"}),
    ],
)
def test_a_head_of_another_kind_is_refused_in_words(name, arguments):
    with pytest.raises(ValueError, match=r"create it with|global_pool is"):
        decouple(timm.create_model(name, num_classes=3, **arguments))


@pytest.mark.parametrize("model", [torch.nn.Linear(3, 2), ResNet(BasicBlock, (1, 1, 1, 1))])
def test_a_model_that_timms_factory_did_not_make_is_refused(model):
    with pytest.raises(ValueError, match=r"was not made by timm\.create_model"):
        decouple(model)


def test_any_model_that_can_be_cut_has_a_name():
    network = create_model("osdtw_timm", backbone="regnety_002", num_classes=4, shared_depth=3).eval()
    assert network.model_args()["backbone"] == "regnety_002"
    assert network(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


def test_arguments_that_no_config_can_hold_are_named():
    with pytest.raises(ValueError, match=r"created with act_layer=.*no config\.json can hold"):
        decouple(timm.create_model("vit_tiny_patch16_224", num_classes=4, depth=2, act_layer=torch.nn.GELU))


def test_images_are_cropped_in_their_centre_whatever_the_model_did():
    model = timm.create_model("convnext_atto", num_classes=4, pretrained_cfg_overlay={"crop_mode": "squash"})
    assert timm.data.resolve_model_data_config(decouple(model))["crop_mode"] == "center"
