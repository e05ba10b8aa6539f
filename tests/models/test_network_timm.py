"""What timm and its scripts expect of a model beyond ``forward``."""

import copy

import pytest
import torch
from timm.models import group_parameters
from timm.optim import create_optimizer_v2

TASKS = [[4, 1], [5, 0, 3, 2]]


def test_without_classes_the_pooled_features_come_out(build, images):
    net = build(num_classes=0, task_classes=TASKS)
    features = net(images)
    assert features.shape == (3, net.num_features) == (3, net.head_hidden_size)
    torch.testing.assert_close(features, net.forward_features(images).mean((2, 3)))


def test_without_classes_and_pooling_the_maps_come_out(build, images):
    net = build(num_classes=0, global_pool="")
    assert net(images).shape == (3, net.num_features, 4, 4)
    assert torch.equal(net(images), net.forward_features(images))


def test_features_then_head_is_forward(build, images):
    net = build(task_classes=TASKS)
    features = net.forward_features(images)
    assert torch.equal(net.forward_head(features), net(images))
    assert net.forward_head(features, pre_logits=True).shape == (3, net.num_features)


def test_gray_images(build):
    assert build(in_chans=1)(torch.randn(2, 1, 16, 16, dtype=torch.float64)).shape == (2, 6)


@pytest.mark.parametrize("tasks", [[list(range(6))], TASKS, [[0, 5], [2, 1], [4, 3]]])
def test_new_classes_get_new_classifiers_on_the_old_features(build, images, tasks):
    net = build(task_classes=tasks)
    features = net.forward_features(images)
    net.get_submodule("encoder.block1").requires_grad_(False)
    net.reset_classifier(8)
    classifiers = net.get_classifier()
    assert len(classifiers) == len(tasks)
    assert [layer.out_features for layer in classifiers] == list(net.partition.output_sizes)
    assert not any(layer.training for layer in classifiers)
    assert all(layer.weight.dtype == torch.float64 for layer in classifiers)
    assert all(p.requires_grad for layer in classifiers for p in layer.parameters())
    assert not any(p.requires_grad for p in net.get_submodule("encoder.block1").parameters())
    assert net.num_classes == net.partition.num_classes == net(images).shape[1] == 8
    assert torch.equal(net.forward_features(images), features)


def test_new_classes_forget_the_offsets_of_the_old(build):
    net = build(task_classes=TASKS, logit_offsets=[[0.1] * 3, [0.2] * 5])
    net.reset_classifier(9)
    assert net.logit_offsets is None
    assert net.model_args()["task_classes"] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]


def test_classifiers_leave_and_return(build, images):
    net = build(global_pool="max")
    net.reset_classifier(0)
    assert net(images).shape == (3, net.num_features)
    net.reset_classifier(0, "")
    assert net(images).shape == (3, net.num_features, 4, 4)
    net.reset_classifier(6, "avg")
    assert net(images).shape == (3, 6)


@pytest.mark.parametrize("shared_depth", [0, 3, 7])
def test_layer_decay_gives_blocks_of_one_depth_one_rate(build, shared_depth):
    net = build(shared_depth=shared_depth)
    rates = {}
    optimizer = create_optimizer_v2(net, "sgd", lr=1, weight_decay=0, layer_decay=0.5)
    names = {id(p): name for name, p in net.named_parameters()}
    for group in optimizer.param_groups:
        for p in group["params"]:
            rates[names[id(p)]] = group["lr_scale"]
    assert rates.keys() == dict(net.named_parameters()).keys()
    for name, rate in rates.items():
        block = int(name.split("block")[1].split(".")[0]) if "block" in name else 8
        assert rate == 0.5 ** (8 - block)


def test_coarse_groups_join_the_decoders_blocks(build):
    net = build(shared_depth=3)
    groups = group_parameters(net, net.group_matcher(coarse=True))
    assert len(groups) == 5
    decoder_blocks = {name for name in dict(net.named_parameters()) if name.startswith("decoders") and "block" in name}
    assert set(groups[3]) == decoder_blocks


@pytest.mark.parametrize("shared_depth", [0, 3, 7])
def test_recomputing_blocks_changes_neither_output_nor_gradient(build, images, shared_depth):
    net = build(shared_depth=shared_depth).train()
    again = copy.deepcopy(net)
    again.set_grad_checkpointing()
    outputs = [model(images) for model in (net, again)]
    assert torch.equal(*outputs)
    for output in outputs:
        output.square().sum().backward()
    for (name, p), q in zip(net.named_parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, msg=name)


def test_bfloat16_stays_close(build, images):
    net = build(task_classes=TASKS)
    exact = torch.softmax(net(images), dim=-1)
    rough = torch.softmax(net.to(torch.bfloat16)(images.bfloat16()), dim=-1)
    assert rough.dtype == torch.bfloat16
    torch.testing.assert_close(rough.double(), exact, rtol=0, atol=0.1)


def test_channels_last_computes_the_same(build, images):
    net = build(task_classes=TASKS)
    expected = net(images)
    net = net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(net(images.to(memory_format=torch.channels_last)), expected)


def test_tensors_are_made_where_and_as_asked(build):
    net = build(device=torch.device("meta"), dtype=torch.float16, logit_offsets=[[0.0] * 4] * 2)
    assert all(t.is_meta for t in [*net.parameters(), *net.buffers()])
    assert all(t.dtype == torch.float16 for t in [*net.parameters(), *net.logit_offsets])
    assert net(torch.empty(2, 3, 16, 16, device="meta", dtype=torch.float16)).shape == (2, 6)


@pytest.mark.parametrize("shared_depth", [0, 3])
def test_every_stem_is_named_for_timm(build, shared_depth):
    net = build(shared_depth=shared_depth)
    named = net._traits["first_conv"]
    stems = {name for name, module in net.named_modules() if getattr(module, "in_channels", None) == 3}
    assert stems == ({named} if isinstance(named, str) else set(named))


def test_a_network_cut_to_its_encoder_takes_no_classes(build):
    network = build(task_classes=TASKS, shared_depth=7)
    for _ in range(2):
        network.prune_intermediate_layers([0])
    network.reset_classifier(0)
    with pytest.raises(ValueError, match="create it anew"):
        network.reset_classifier(4, "avg")
