"""Networks that start from timm's own weights of their backbone."""

import pytest
import timm
import torch
from families import SIZE, ZOO, plain, zoo
from safetensors.torch import save_file
from timm.models import save_for_hf

from osdtw_models import create_model


@pytest.fixture(params=ZOO)
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return plain(name, num_classes=1000)


@pytest.fixture
def file(model, tmp_path):
    save_file(model.state_dict(), tmp_path / "plain.safetensors")
    return tmp_path / "plain.safetensors"


@pytest.mark.parametrize("shared_depth", [0, 3])
def test_encoder_and_every_decoder_start_from_timms_weights(name, model, file, shared_depth, tmp_path):
    net = zoo_from(name, file, shared_depth=shared_depth)
    images = torch.randn(2, 3, SIZE, SIZE)
    halves = net.forward_features(images).chunk(2, dim=net.layout.channels)
    for half in halves:
        torch.testing.assert_close(half, model.forward_features(images))
    assert net.num_classes == 6
    save_for_hf(net, tmp_path, safe_serialization=True)
    config = (tmp_path / "config.json").read_text()
    assert "backbone_pretrained" not in config
    assert str(tmp_path) not in config
    file.unlink()
    assert torch.equal(timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()(images), net(images))


def test_weights_that_are_not_there_are_one_sentence(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights of .* could not be loaded .*backbone_pretrained=False"):
        zoo_from(name, tmp_path / "none.safetensors")


def test_weights_of_another_backbone_are_one_sentence(tmp_path):
    save_file(plain("osdtw_resnet50").state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(FileNotFoundError, match="timm's weights of resnet18 could not be loaded"):
        zoo_from("osdtw_resnet10", tmp_path / "other.safetensors")


def test_timm_has_no_weights_of_a_plain_resnet10():
    with pytest.raises(ValueError, match="timm has no weights of the backbone of osdtw_resnet10; start from scratch"):
        create_model("osdtw_resnet10", backbone_pretrained=True)


def test_two_kinds_of_weights_are_one_too_many():
    with pytest.raises(ValueError, match="choose one of them"):
        create_model("osdtw_resnet18", pretrained=True, backbone_pretrained=True)


def test_a_tag_of_timms_brings_its_own_preparation_of_images(tmp_path):
    save_file(plain("osdtw_vit_small_patch16_224", num_classes=0).state_dict(), tmp_path / "dino.safetensors")
    net = zoo_from("osdtw_vit_small_patch16_224", tmp_path / "dino.safetensors", backbone_pretrained="dino")
    assert tuple(net.pretrained_cfg["mean"]) == (0.485, 0.456, 0.406)
    assert tuple(create_model("osdtw_vit_small_patch16_224", device="meta").pretrained_cfg["mean"]) == (0.5, 0.5, 0.5)


def test_an_unknown_backbone_is_one_sentence():
    with pytest.raises(ValueError, match=r"timm has no model 'resnet50x'; timm\.list_models\(\)"):
        create_model("osdtw_timm", backbone="resnet50x")


def zoo_from(name, file, **arguments):
    weights = {"backbone_pretrained": True, "pretrained_cfg_overlay": {"file": str(file)}}
    return zoo(name, random=False, **{**weights, **arguments})
