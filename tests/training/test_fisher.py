"""Statistics equal a loop over images with plain autograd, in float64; the sub-sample is even over classes."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from osdtw_models.backbone import CifarResNet
from osdtw_models.network import OsdtwNet
from osdtw_models.partition import ClassPartition
from osdtw_training import fisher
from osdtw_training.data import Batches
from osdtw_training.fisher import measure, stratified
from osdtw_training.objectives import task_objectives

COUNTS = [9, 5, 3, 1]
PARTITIONS = [ClassPartition(((1, 0), (2, 3))), ClassPartition(((3,), (0, 1), (2,))), ClassPartition.single(4)]


@pytest.fixture
def drawn(monkeypatch):
    """Labels that the statistics draw, in order; each training posterior's draw is followed by the balanced one's."""
    kept, draw = [], fisher._draw
    monkeypatch.setattr(fisher, "_draw", lambda logits, generator: kept.append(draw(logits, generator)) or kept[-1])
    return kept


@pytest.fixture
def problem(monkeypatch, noise, tiny, drawn):
    """Measured statistics in float64, and what they were measured from."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(fisher, "CHUNK", 4)  # images in several passes

    def problem(partition, samples):
        images = noise(labels=[c for c, n in enumerate(COUNTS) for _ in range(n)])
        recipe = tiny(img_size=8)
        arguments = {"num_classes": 4, "shared_depth": 0, "task_classes": partition.to_lists()}
        network = OsdtwNet(CifarResNet(8), **arguments, dtype=torch.float64)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
        objectives = task_objectives(partition, COUNTS)
        statistics = measure(network, objectives, Batches(images, list(range(18)), recipe), samples, 0.1)
        chosen = images.subset(stratified(images.labels, samples, 0))
        pixels, _ = next(Batches(chosen, list(range(len(chosen))), recipe).plain())
        return statistics, network, objectives, pixels, chosen.labels

    return problem


def gradients(network, task, image, label, offsets):
    """Gradient of one image's loss, one flat vector per block."""
    blocks = network.decoders[task].block_list()
    loss = F.cross_entropy(network.forward_task(image[None], task) + offsets, label[None])
    found = iter(torch.autograd.grad(loss, [p for block in blocks for p in block.parameters()]))
    return [torch.cat([next(found).flatten() for _ in block.parameters()]) for block in blocks]


@pytest.mark.parametrize("partition", PARTITIONS)
def test_statistics_are_those_of_one_image_at_a_time(problem, drawn, partition):
    statistics, network, objectives, pixels, labels = problem(partition, samples=7)
    tasks = partition.num_tasks
    assert labels.bincount().tolist() == [2, 2, 2, 1]
    trained = [torch.cat(drawn[2 * k :: 2 * tasks]) for k in range(tasks)]
    balanced = [torch.cat(drawn[2 * k + 1 :: 2 * tasks]) for k in range(tasks)]
    curvature, target, scores = 0, 0, 0  # one vector per block, all tasks in one
    for i, label in enumerate(labels):
        share = 1 / int((labels == label).sum())  # of its class among the chosen
        in_training, in_target = share * COUNTS[label] / sum(COUNTS), share / len(COUNTS)
        weights = [objective.class_weights[label] for objective in objectives]
        h, j, g = [], [], []
        for k, objective in enumerate(objectives):
            own = objective.label_map[label]
            h.append(torch.cat(gradients(network, k, pixels[i], trained[k][i], objective.offsets)))
            j.append(torch.cat(gradients(network, k, pixels[i], balanced[k][i], torch.zeros(()))))
            g.append(weights[k] * torch.cat(gradients(network, k, pixels[i], own, objective.offsets)))
        curvature = curvature + in_training * torch.stack([weights[k] * h[k] ** 2 for k in range(tasks)])
        target = target + in_target * torch.stack(j) ** 2
        scores = scores + in_training * torch.stack([torch.stack([a * b for b in g]) for a in g])

    def of_all_blocks(name):
        return torch.cat([getattr(block, name) for block in statistics.blocks], dim=-1)

    for name, expected in {"curvature": curvature, "target": target, "scores": scores}.items():
        # Relative to the tensor's size: sums over images may cancel in single entries.
        torch.testing.assert_close(of_all_blocks(name), expected, rtol=1e-9, atol=1e-10 * float(expected.abs().max()))
    parameters = [[p.flatten() for b in d.block_list() for p in b.parameters()] for d in network.decoders]
    assert torch.equal(of_all_blocks("optimum"), torch.stack([torch.cat(p) for p in parameters]))
    assert statistics.num_images == sum(COUNTS)
    assert len(statistics.blocks) == network.backbone.num_blocks


def test_labels_are_drawn_from_the_softmax():
    logits = torch.tensor([0.0, 1.0, -2.0])
    drawn = fisher._draw(logits.expand(20_000, 3), torch.Generator().manual_seed(0))
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
