"""Saved networks come back by ``local-dir:`` as they were, and adapt to what a user asks."""

import json

import pytest
import torch
from timm.models import save_for_hf

from osdtw_models import create_model

COUNTS = [5, 50, 4, 40, 3, 30]
BY_COUNTS = ((1, 3, 5), (0, 2, 4))
SHUFFLED = [[4, 1], [5, 0, 3, 2]]
PLANS = {
    "counts": {"class_counts": COUNTS, "shared_depth": 4, "fusion": "pool"},
    "tasks": {"task_classes": SHUFFLED, "shared_depth": 0, "fusion": "valid"},
    "three tasks": {"task_classes": [[0, 5], [2, 1], [4, 3]], "shared_depth": 7},
    "one task": {"task_classes": [list(range(6))]},
    "other widths": {"widths": (8, 12, 20), "shared_depth": 3},
    "offsets": {"class_counts": COUNTS, "logit_offsets": [[0.1, -1 / 3, 2, 0], [1, 0.7, -0.2, 0.5]]},
}


@pytest.fixture
def images():
    return torch.randn(3, 3, 16, 16)


@pytest.fixture
def save(tmp_path):
    """Save a network as the Hub keeps it; give back the network and the name that loads it."""

    def save(**arguments):
        net = create_model("osdtw_resnet14", **{"num_classes": 6, **arguments}).eval()
        save_for_hf(net, tmp_path, safe_serialization=True)
        return net, f"local-dir:{tmp_path}"

    return save


def load(name, **arguments):
    return create_model(name, pretrained=True, **arguments).eval()


@pytest.mark.parametrize("plan", PLANS)
def test_a_saved_network_comes_back_exactly(save, images, plan):
    net, name = save(**PLANS[plan])
    again = load(name)
    assert again.model_args() == net.model_args()
    assert again.partition == net.partition
    assert torch.equal(again(images), net(images))


def test_the_plan_stands_in_config_json(save, tmp_path):
    save(**PLANS["offsets"], fusion="valid", shared_depth=3)
    args = json.loads((tmp_path / "config.json").read_text())["model_args"]
    assert (args["shared_depth"], args["fusion"]) == (3, "valid")
    assert args["task_classes"] == [list(task) for task in BY_COUNTS]
    assert torch.equal(torch.tensor(args["logit_offsets"]), torch.tensor(PLANS["offsets"]["logit_offsets"]))


def test_a_shallower_cut_computes_the_same(save, images):
    net, name = save(**PLANS["counts"])
    for depth in range(4):
        again = load(name, shared_depth=depth)
        assert again.shared_depth == depth
        assert torch.equal(again(images), net(images))


def test_a_deeper_cut_is_refused(save):
    _, name = save(**PLANS["counts"])
    with pytest.raises(ValueError, match="choose shared_depth of at most 4"):
        load(name, shared_depth=5)


def test_another_fusion_rule_may_be_chosen(save, images):
    net, name = save(**PLANS["counts"])
    net.fusion = "raw"
    assert torch.equal(load(name, fusion="raw")(images), net(images))


@pytest.mark.parametrize("plan", ["counts", "tasks", "three tasks", "one task", "offsets"])
@pytest.mark.parametrize("num_classes", [4, 7])
def test_new_classes_keep_blocks_and_number_of_tasks(save, images, plan, num_classes):
    net, name = save(**PLANS[plan])
    again = load(name, num_classes=num_classes)
    assert again(images).shape == (3, num_classes)
    assert again.logit_offsets is None
    assert again.partition.num_tasks == net.partition.num_tasks
    assert torch.equal(again.forward_features(images), net.forward_features(images))


def test_new_classes_start_every_classifier_anew(save):
    net, name = save(task_classes=[[0, 5], [2, 1], [4, 3]])
    again = load(name, num_classes=7, task_classes=[[0, 1, 2], [3, 4], [5, 6]])
    for old, new in zip(net.get_classifier()[1:], again.get_classifier()[1:], strict=True):
        assert old.weight.shape == new.weight.shape
        assert not torch.equal(old.weight, new.weight)


def test_new_classes_are_split_by_their_own_counts(save):
    _, name = save(**PLANS["counts"])
    assert load(name, num_classes=4, class_counts=[1, 2, 3, 4]).partition.tasks == ((2, 3), (0, 1))


def test_without_classes_the_features_stay(save, images):
    net, name = save(**PLANS["tasks"])
    expected = net.forward_head(net.forward_features(images), pre_logits=True)
    assert torch.equal(load(name, num_classes=0)(images), expected)


@pytest.mark.parametrize("shared_depth", [0, 4])
def test_gray_images_use_the_summed_stem(save, shared_depth):
    net, name = save(class_counts=COUNTS, shared_depth=shared_depth)
    gray = torch.randn(3, 1, 16, 16)
    torch.testing.assert_close(load(name, in_chans=1)(gray), net(gray.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("same", [{"class_counts": [n * 10 for n in COUNTS]}, {"task_classes": BY_COUNTS}])
@pytest.mark.parametrize("plan", ["counts", "offsets"])
def test_the_same_tasks_said_in_another_way_change_nothing(save, images, plan, same):
    net, name = save(**PLANS[plan])
    assert torch.equal(load(name, **same)(images), net(images))


@pytest.mark.parametrize("other", [{"class_counts": COUNTS[::-1]}, {"task_classes": [[0, 1, 2], [3, 4, 5]]}])
@pytest.mark.parametrize("plan", ["counts", "tasks"])
def test_another_partition_of_the_user_is_refused(save, plan, other):
    _, name = save(**PLANS[plan])
    with pytest.raises(ValueError, match="trained on another partition"):
        load(name, **other)


def test_a_reset_network_comes_back_exactly(save, images, tmp_path):
    net, name = save(**PLANS["tasks"])
    net.reset_classifier(9)
    save_for_hf(net, tmp_path, safe_serialization=True)
    assert torch.equal(load(name)(images), net(images))
