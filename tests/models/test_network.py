"""The network: encoder, decoders and fused logits in the order of the classes."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from osdtw_models.cifar import CifarResNet
from osdtw_models.network import OsdtwNet

HALVES = [[0, 1, 2], [3, 4, 5]]
SHUFFLED = [[4, 1], [5, 0, 3, 2]]
THIRDS = [[0, 5], [2, 1], [4, 3]]
ONE = [[0, 1, 2, 3, 4, 5]]


@pytest.mark.parametrize("shared_depth", [0, 3, 7])
@pytest.mark.parametrize("tasks", [ONE, SHUFFLED, THIRDS])
def test_shapes_and_a_gradient_in_every_parameter(build, images, tasks, shared_depth):
    net = build(task_classes=tasks, shared_depth=shared_depth).train()
    none = 1 if len(tasks) > 1 else 0
    assert [tuple(z.shape) for z in net.forward_tasks(images)] == [(3, len(task) + none) for task in tasks]
    logits = net(images)
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (3, 6)
    F.cross_entropy(logits, torch.tensor([0, 3, 5])).backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("tasks", [ONE, SHUFFLED, THIRDS])
def test_logits_come_in_the_order_of_the_classes(build, images, tasks):
    net = build(task_classes=tasks)
    start, in_order = 0, []
    for task in tasks:
        in_order.append(list(range(start, start + len(task))))
        start += len(task)
    plain = build(task_classes=in_order)
    plain.load_state_dict({**net.state_dict(), "class_position": plain.class_position})
    logits, task_order = net(images), plain(images)
    for place, c in enumerate(c for task in tasks for c in task):
        assert torch.equal(logits[:, c], task_order[:, place])


def raw(tasks):
    return torch.cat([q[:, :-1] for q in tasks], dim=1)


def valid(tasks):
    return torch.cat([q[:, :-1] / q[:, -1:] for q in tasks], dim=1)


def pool(tasks):
    head, tail = tasks
    odds = ((1 - head[:, -1:]) / head[:, -1:] * tail[:, -1:] / (1 - tail[:, -1:])).sqrt()
    return torch.cat([odds * head[:, :-1] / (1 - head[:, -1:]), tail[:, :-1] / (1 - tail[:, -1:])], dim=1)


@pytest.mark.parametrize("offsets", [None, [[0.5, -1, 2, 0.3], [1.5, 0, -0.7, 1]]])
@pytest.mark.parametrize("rule", [raw, valid, pool])
def test_the_named_rule_fuses_the_tasks(build, images, rule, offsets):
    net = build(task_classes=HALVES, fusion=rule.__name__, logit_offsets=offsets)
    tasks = net.forward_tasks(images)
    shifts = torch.tensor(offsets or [[0] * 4] * 2, dtype=torch.float64)
    scores = rule([torch.softmax(z + m, dim=-1) for z, m in zip(tasks, shifts, strict=True)])
    scores = scores / shifts[:, :-1].flatten().exp()
    expected = scores / scores.sum(1, keepdim=True)
    torch.testing.assert_close(torch.softmax(net(images), dim=-1), expected, rtol=0, atol=1e-12)


def test_a_task_alone_and_by_hand_equals_all_tasks_at_once(build, images):
    net = build(task_classes=THIRDS, shared_depth=3)
    together = net.forward_tasks(images)
    shared = net.forward_encoder(images)
    for k in net.tasks:
        torch.testing.assert_close(net.forward_task(images, k), together[k])
        torch.testing.assert_close(net.forward_decoder(shared, k), together[k])
    torch.testing.assert_close(net.fuse(together), net(images))


def test_a_decoder_is_its_tasks_own_and_the_encoder_is_everybodys(build, images):
    net = build(task_classes=THIRDS, shared_depth=3)
    before = [z.detach() for z in net.forward_tasks(images)]

    def changed():
        return [not torch.equal(a, b) for a, b in zip(before, net.forward_tasks(images), strict=True)]

    with torch.no_grad():
        net.get_submodule("decoders.1.block4.conv1").weight.mul_(1.5)
    assert changed() == [False, True, False]
    with torch.no_grad():
        net.get_submodule("encoder.block3.conv1").weight.mul_(1.5)
    assert changed() == [True, True, True]


def test_shared_depth_says_where_the_blocks_live(build):
    for depth in range(8):
        names = {name.rsplit(".", 2)[0] for name in build(shared_depth=depth).state_dict() if ".conv1." in name}
        encoder = {f"encoder.block{i}" for i in range(1, depth + 1)}
        assert names == encoder | {f"decoders.{k}.block{i}" for k in (0, 1) for i in range(depth + 1, 8)}
    assert build(shared_depth=-1).shared_depth == 7


def test_decoders_start_from_weights_of_their_own(build):
    net = build(shared_depth=3)
    first, second = (net.get_submodule(f"decoders.{k}.block4.conv1").weight for k in (0, 1))
    assert not torch.equal(first, second)


def test_weights_start_as_wide_as_their_inputs_ask():
    net = OsdtwNet(CifarResNet(32), 100)
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    for layer in layers:
        spread = (2 / layer.weight[0].numel()) ** 0.5
        assert layer.weight.std().item() == pytest.approx(spread, rel=0.1)
        assert layer.bias is None or not layer.bias.any()


def test_dropout_acts_in_training_only(build, images):
    net = build(drop_rate=0.5)
    assert torch.equal(net(images), net(images))
    net.train()
    assert not torch.equal(net(images), net(images))


def test_maximum_pooling(build, images):
    net = build(global_pool="max", num_classes=0)
    maps = net.forward_features(images)
    assert torch.equal(net(images), maps.amax((2, 3)))


REFUSED = {
    "depth": (
        {"shared_depth": 8},
        "shared_depth is 8, but this backbone has 7 blocks; choose 0 (nothing shared) to 7 (only the classifiers "
        "differ).",
    ),
    "rule": ({"fusion": "sum"}, "Unknown fusion rule 'sum'; choose one of raw, valid, pool, mean."),
    "pool of three": (
        {"fusion": "pool", "task_classes": THIRDS},
        "fusion 'pool' is defined for 2 tasks, not 3; use 'raw'.",
    ),
    "offsets": (
        {"logit_offsets": [[0.0] * 4, [0.0] * 3]},
        "logit_offsets has lengths [4, 3] but the tasks have [4, 4] outputs; give one offset per output, 'none' last.",
    ),
    "pooling": (
        {"global_pool": "catavgmax"},
        "global_pool is 'catavgmax'; choose 'avg' or 'max' ('' only without classifiers, num_classes=0).",
    ),
    "no pooling": (
        {"global_pool": ""},
        "global_pool is ''; choose 'avg' or 'max' ('' only without classifiers, num_classes=0).",
    ),
    "counts": (
        {"class_counts": [3, 2, 1]},
        "class_counts has 3 entries but the model has 6 classes; give one count per class.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_do_not_fit_are_refused_with_the_remedy(build, case):
    arguments, sentence = REFUSED[case]
    with pytest.raises(ValueError) as refusal:  # noqa: PT011  (the whole sentence is compared below)
        build(**arguments)
    assert str(refusal.value) == sentence
