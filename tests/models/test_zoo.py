"""Networks by name, through timm's own door."""

import json
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.models import is_model
from torchvision.transforms.functional import to_pil_image

import osdtw_models
from osdtw_models import OsdtwNet, create_model
from osdtw_models.releases import RELEASES

RELEASE = "osdtw_resnet32.cifar100_lt_if100"


def test_timm_lists_the_zoo():
    cifar = ["resnet14", "resnet20", "resnet32", "resnet32_w64", "resnet44", "resnet56", "resnet110"]
    photos = ["resnet10", "resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d"]
    photos += ["convnext_tiny", "convnext_small", "convnext_base", "timm"]
    photos += ["vit_small_patch16_224", "vit_base_patch16_224", "vit_base_patch16_clip_224"]
    assert set(timm.list_models("osdtw_*")) == {f"osdtw_{name}" for name in cifar + photos}
    released = {folder.name for folder in RELEASES.iterdir()}
    assert set(timm.list_models("osdtw_*", pretrained=True)) == released >= {RELEASE}
    assert timm.list_models(module="zoo") == timm.list_models("osdtw_*")


def test_timm_knows_nothing_before_the_import():
    code = "import timm; before = timm.is_model('osdtw_resnet14'); import osdtw_models; "
    code += "print(before, timm.is_model('osdtw_resnet14'))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["False", "True"]


@pytest.mark.parametrize(
    ("name", "num_blocks", "shared_depth"),
    [("14", 7, 5), ("20", 10, 7), ("32", 16, 11), ("32_w64", 16, 11), ("44", 22, 15), ("56", 28, 19), ("110", 55, 37)],
)
def test_names_stand_for_their_networks(name, num_blocks, shared_depth):
    net = create_model(f"osdtw_resnet{name}", num_classes=10)
    assert isinstance(net, OsdtwNet)
    assert (net.num_blocks, net.shared_depth) == (num_blocks, shared_depth)
    assert net.partition.tasks == ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_a_name_alone_means_cifar100():
    assert create_model("osdtw_resnet14").num_classes == 100


def test_arguments_reach_the_network():
    net = create_model(
        "osdtw_resnet14",
        num_classes=4,
        in_chans=1,
        drop_rate=0.3,
        global_pool="max",
        shared_depth=2,
        class_counts=[1, 9, 2, 8],
        fusion="pool",
        logit_offsets=[[0.5, 1.0, 1.5]] * 2,
    )
    assert (net.num_classes, net.in_chans, net.drop_rate, net.shared_depth) == (4, 1, 0.3, 2)
    assert (net.global_pool.pool_type, net.fusion) == ("max", "pool")
    assert net.partition.tasks == ((1, 3), (0, 2))
    assert [values.tolist() for values in net.logit_offsets] == [[0.5, 1.0, 1.5]] * 2


@pytest.mark.parametrize("arguments", [{"class_counts": [5, 3, 9]}, {"task_classes": [[2, 0], [1]]}])
def test_counts_and_tasks_say_how_many_classes_there_are(arguments):
    assert create_model("osdtw_resnet18", **arguments)(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    assert create_model("osdtw_resnet32", pretrained=True, **arguments).num_classes == 3


def test_counts_may_be_an_array():
    counts = np.bincount([0, 1, 1, 1, 2, 3, 3])
    assert create_model("osdtw_resnet14", num_classes=4, class_counts=counts).partition.tasks == ((1, 3), (0, 2))


def test_an_unknown_argument_is_an_error():
    with pytest.raises(TypeError, match="shared_dept"):
        create_model("osdtw_resnet14", shared_dept=3)


def test_an_unknown_tag_is_an_error():
    with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
        create_model("osdtw_resnet32.nowhere")


def test_images_are_prepared_as_in_training():
    config = resolve_data_config({}, model=create_model("osdtw_resnet14"))
    assert config["input_size"] == (3, 32, 32)
    assert config["crop_pct"] == 1.0
    image = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor([[0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]])[:, :, None, None]
    prepared = create_transform(**config)(to_pil_image(image))
    torch.testing.assert_close(prepared, (image / 255 - mean) / std)


def test_a_version_is_told():
    assert osdtw_models.__version__.count(".") == 2
    assert is_model("osdtw_resnet32")


class TestRelease:
    """The released checkpoint loads offline by its name and carries its own plan."""

    def test_it_brings_its_plan(self):
        args = json.loads((RELEASES / RELEASE / "config.json").read_text())["model_args"]
        net = create_model("osdtw_resnet32", pretrained=True)
        assert net.model_args().items() <= args.items()
        assert net.pretrained_cfg["tag"] == RELEASE.partition(".")[2]

    def test_name_tag_and_folder_mean_the_same(self):
        images = torch.randn(4, 3, 32, 32)
        names = ["osdtw_resnet32", RELEASE, f"local-dir:{RELEASES / RELEASE}"]
        logits = [create_model(name, pretrained=True).eval()(images) for name in names]
        assert torch.equal(logits[0], logits[1])
        assert torch.equal(logits[0], logits[2])

    def test_new_classes_keep_the_trained_blocks(self):
        trained = create_model("osdtw_resnet32", pretrained=True).state_dict()
        net = create_model("osdtw_resnet32", pretrained=True, num_classes=10).eval()
        assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
        blocks = [name for name in trained if "block" in name]
        assert all(torch.equal(net.state_dict()[name], trained[name]) for name in blocks)

    def test_another_partition_is_refused(self):
        with pytest.raises(ValueError, match="another partition"):
            create_model("osdtw_resnet32", pretrained=True, class_counts=list(range(1, 101)))

    @pytest.mark.parametrize("name", ["osdtw_resnet32", f"local-dir:{RELEASES / RELEASE}"])
    def test_other_widths_are_refused_in_a_sentence(self, name):
        said = r"have the widths \[16, 32, 48\], not \[16, 32, 64\]; leave widths out"
        with pytest.raises(ValueError, match=said):
            create_model(name, pretrained=True, widths=(16, 32, 64))
        assert create_model(name, pretrained=True, widths=(16, 32, 48)).num_classes == 100
        assert create_model(name, widths=(16, 32, 64)).num_classes == 100


def test_timms_models_have_widths_of_their_own():
    with pytest.raises(ValueError, match="osdtw_resnet18 is one of timm's models, whose widths are fixed"):
        create_model("osdtw_resnet18", widths=(64, 96, 128))


def test_tasks_may_come_as_arrays():
    tasks = np.array([[0, 2], [1, 3]])
    assert create_model("osdtw_resnet14", task_classes=tasks).partition.tasks == ((0, 2), (1, 3))
