"""Statistics equal a loop over images with plain autograd, in float64; the sub-sample is even over classes."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from osdtw_models.cifar import CifarResNet
from osdtw_models.fusion import fuse_raw
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import observer, sampling
from osdtw_training.batches import Batches
from osdtw_training.fisher import measure
from osdtw_training.objectives import task_objectives
from osdtw_training.observer import FisherKind
from osdtw_training.sampling import bootstrap_error, stratified
from osdtw_training.structures import Structure

COUNTS = [9, 5, 3, 1]
PARTITIONS = [ClassPartition(((1, 0), (2, 3))), ClassPartition(((3,), (0, 1), (2,))), ClassPartition.single(4)]


@pytest.fixture
def drawn(monkeypatch):
    """What the statistics draw, in order: the class for all tasks, then per task its own label and the balanced one."""
    kept, draw = [], observer.draw
    monkeypatch.setattr(observer, "draw", lambda logits, uniform: kept.append(draw(logits, uniform)) or kept[-1])
    return kept


def task_network(partition):
    """A network of tasks of its own, in float64, its batch norm set as if it had seen images."""
    network = OsdtwNet(
        CifarResNet(8), num_classes=4, shared_depth=0, task_classes=partition.to_lists(), dtype=torch.float64
    )
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    return network.eval()


@pytest.fixture
def problem(monkeypatch, noise, tiny):
    """Task networks, objectives and images in float64."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(sampling, "CHUNK", 4)  # images in several passes

    def problem(partition, given=(1, 1, 1, 1)):
        images = noise(labels=[c for c, n in enumerate(COUNTS) for _ in range(n)])
        batches = Batches(images, list(range(18)), tiny(img_size=8))
        given = torch.tensor(given, dtype=torch.float64)
        counts = (torch.tensor(COUNTS) * given).tolist()
        return task_network(partition), task_objectives(partition, counts, given=given), batches

    return problem


def filters_at_common_length(network):
    """The same functions with the filters of every convolution as long as the tasks' filters are on average.

    Every convolution here stands before a batch norm; its statistics follow, so that nothing changes.
    """
    same = copy.deepcopy(network)
    each = [dict(decoder.named_modules()) for decoder in same.decoders]
    for name, first in each[0].items():
        if not isinstance(first, nn.Conv2d):
            continue
        lengths = torch.stack([modules[name].weight.detach().flatten(1).norm(dim=1) for modules in each])
        for modules, own in zip(each, lengths, strict=True):
            factor = lengths.mean(0) / own
            norm = modules[name.replace("conv", "bn")]
            with torch.no_grad():
                modules[name].weight.mul_(factor.view(-1, 1, 1, 1))
                norm.running_mean.mul_(factor)
                norm.running_var.copy_((norm.running_var + norm.eps) * factor**2 - norm.eps)
    return same


def in_rows(network, task, values):
    """Values of a task's block parameters as one vector: layer by layer, a channel's weights, then its bias."""
    values, parts = iter(values), []
    for block in network.decoders[task].block_list():
        for module in block.modules():
            own = [
                next(values).flatten(1) if p.ndim > 1 else next(values)[:, None]
                for p in module._parameters.values()
                if p is not None
            ]
            parts += [torch.cat(own, 1).flatten()] if own else []
    return torch.cat(parts)


def block_parameters(network, task):
    return [p for block in network.decoders[task].block_list() for p in block.parameters()]


def gradient(network, task, image, label, offsets):
    """Gradient of one image's loss in all blocks of a task: one flat vector."""
    loss = F.cross_entropy(network.forward_task(image[None], task) + offsets, label[None])
    return in_rows(network, task, torch.autograd.grad(loss, block_parameters(network, task)))


def by_hand(network, objectives, pixels, labels, label_sets):
    """Curvature, target and scores, image by image, on networks whose filters have common lengths."""
    tasks = range(len(objectives))
    sums = [0, 0, 0]
    for i, y in enumerate(labels):
        share = 1 / int((labels == y).sum())  # of its class among the chosen
        in_training, in_target = share * COUNTS[y] / sum(COUNTS), share / len(COUNTS)
        curved, aimed, classes = label_sets(i, int(y))
        for k in tasks:
            o, c = objectives[k].offsets, objectives[k].class_weights
            zero = torch.zeros_like(o)
            unit = torch.eye(len(objectives), dtype=torch.float64)[k][:, None]
            h = sum(p * gradient(network, k, pixels[i], label, o) ** 2 for label, p in curved[k])
            j = sum(p * gradient(network, k, pixels[i], label, zero) ** 2 for label, p in aimed[k])
            sums[0] = sums[0] + in_training * c[y] * unit * h
            sums[1] = sums[1] + in_target * unit * j
        for drawn_class, p in classes:
            g = [
                objectives[k].class_weights[drawn_class]
                * gradient(network, k, pixels[i], objectives[k].label_map[drawn_class], objectives[k].offsets)
                for k in tasks
            ]
            sums[2] = sums[2] + in_training * p * torch.stack([torch.stack([a * b for b in g]) for a in g])
    return sums


def everything(statistics, name):
    """One statistic of all blocks side by side."""
    return torch.cat([getattr(block, name) for block in statistics.blocks], dim=-1)


def chosen_images(batches, samples):
    images = batches.images.subset(stratified(batches.images.labels, samples, 0))
    pixels, _ = next(Batches(images, list(range(len(images))), batches.recipe).plain())
    return pixels, images.labels


@pytest.mark.parametrize("given", [(1, 1, 1, 1), (0.5, 4, 1, 2)])
@pytest.mark.parametrize("kind", FisherKind)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_statistics_are_those_of_one_image_at_a_time(problem, drawn, partition, kind, given):
    network, objectives, batches = problem(partition, given)
    statistics = measure(network, objectives, batches, 7, 0.1, kind=kind)
    pixels, labels = chosen_images(batches, 7)
    tasks = range(partition.num_tasks)
    rounds = 1 + 2 * len(tasks)
    own = [objective.label_map for objective in objectives]
    posterior = [network.forward_task(pixels, k).detach() for k in tasks]

    def label_sets(i, y):
        """Labels for H and J* by task, classes for S and C, each with its weight."""
        if kind is FisherKind.EMPIRICAL:
            real = [[(own[k][y], 1)] for k in tasks]
            return real, real, [(y, 1)]
        if kind is FisherKind.MONTE_CARLO:
            kept = [torch.cat(drawn[start::rounds])[i] for start in range(rounds)]
            return [[(kept[1 + 2 * k], 1)] for k in tasks], [[(kept[2 + 2 * k], 1)] for k in tasks], [(int(kept[0]), 1)]
        shifted = [z[i : i + 1] + o.offsets for z, o in zip(posterior, objectives, strict=True)]
        fused = (shifted[0] if len(shifted) == 1 else fuse_raw(shifted))[0, network.class_position].softmax(0)
        fused = fused / torch.tensor(given) / (fused / torch.tensor(given)).sum()

        def all_of(logits):
            return list(zip(torch.arange(len(logits)), logits.softmax(0), strict=True))

        return [all_of(z[0]) for z in shifted], [all_of(z[i]) for z in posterior], list(enumerate(fused))

    expected = by_hand(filters_at_common_length(network), objectives, pixels, labels, label_sets)
    for name, value in zip(("curvature", "target", "scores"), expected, strict=True):
        # Relative to the tensor's size: sums over images may cancel in single entries.
        found = everything(statistics, name)
        torch.testing.assert_close(found, value, rtol=1e-9, atol=1e-10 * float(value.abs().max()))
    same = filters_at_common_length(network)
    parameters = torch.stack([in_rows(same, k, block_parameters(same, k)) for k in tasks])
    torch.testing.assert_close(everything(statistics, "optimum"), parameters)
    assert (statistics.num_images, statistics.samples) == (sum(COUNTS), 7)
    assert len(statistics.blocks) == network.num_blocks


def test_the_length_of_filters_before_batch_norm_does_not_matter(problem):
    network, objectives, batches = problem(PARTITIONS[0])
    other = task_network(PARTITIONS[0])
    first = measure(network, objectives, batches, 7, 0.1, kind=FisherKind.EXACT, replicates=[other, other])
    longer, longer_other = filters_at_common_length(network), filters_at_common_length(other)
    second = measure(longer, objectives, batches, 7, 0.1, kind=FisherKind.EXACT, replicates=[longer_other, other])
    for name in ("curvature", "target", "scores", "optimum", "replicates"):
        torch.testing.assert_close(everything(first, name), everything(second, name), rtol=1e-8, atol=1e-12)


def test_replicates_lie_in_the_coordinates_of_the_tasks(problem):
    network, objectives, batches = problem(PARTITIONS[0])
    for structure in Structure:
        found = measure(network, objectives, batches, 7, 0.1, structure=structure, replicates=[network, network])
        assert torch.equal(everything(found, "replicates")[0], everything(found, "optimum"))
        assert torch.equal(everything(found, "replicates")[1], everything(found, "optimum"))


def test_labels_are_drawn_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, -2.0])
    drawn = observer.draw(logits.expand(20_000, 3), torch.rand(20_000, generator=torch.Generator().manual_seed(0)))
    for label, p in enumerate(logits.softmax(0).tolist()):
        assert abs((drawn == label).double().mean() - p) < 4 * math.sqrt(p * (1 - p) / 20_000)


@given(st.lists(st.integers(1, 12), min_size=1, max_size=6), st.integers(1, 60), st.integers(0, 3))
def test_the_sub_sample_caps_all_classes_alike_and_is_as_large_as_it_may_be(counts, samples, seed):
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])[torch.randperm(sum(counts))]
    picked = stratified(labels, samples, seed)
    assert picked == sorted(set(picked))
    taken = labels[picked].bincount(minlength=len(counts)).tolist()
    cap = max(taken)
    assert taken == [min(n, cap) for n in counts]
    assert len(picked) <= max(samples, len(counts))
    assert cap == max(counts) or sum(min(n, cap + 1) for n in counts) > samples


def test_the_sub_sample_depends_on_the_seed():
    labels = torch.arange(100) % 4
    assert stratified(labels, 20, 0) == stratified(labels, 20, 0) != stratified(labels, 20, 1)


def test_the_bootstrap_error_is_that_of_a_mean():
    """Of a sum over n like images: the parts' spread over sqrt(n) times their mean."""
    parts = torch.rand(1, 900, dtype=torch.float64) + 1
    expected = float(parts.std() / 30 / parts.mean())
    assert bootstrap_error(parts, 0) == pytest.approx(expected, rel=0.15)
    both = bootstrap_error(torch.cat([parts, torch.ones(1, 900)]), 0)
    assert both == pytest.approx(bootstrap_error(parts, 0))
