"""Every image's gradient in every layer of every family against one backward pass per image."""

import pytest
import torch
from families import SIZE, ZOO, plain, zoo

from osdtw_models import decouple
from osdtw_training.gradients import Recorder, matrix
from osdtw_training.layers import block_layers
from osdtw_training.objectives import task_objectives
from osdtw_training.observer import FisherKind, Observer

TASKS = [[4, 1], [5, 0, 3, 2]]


@pytest.mark.parametrize("family", [*ZOO, "regnet", "mixer"])
def test_gradients_by_image_are_those_of_one_image_at_a_time(family):
    made = {"shared_depth": 0, "task_classes": TASKS}
    network = zoo(family, **made) if family in ZOO else decouple(plain(family), 0, TASKS)
    network = network.double().eval()
    images, labels = torch.randn(3, 3, SIZE, SIZE, dtype=torch.float64), torch.tensor([0, 2, 1])
    layers = block_layers(network)
    with Recorder([layer.modules[0] for layer in layers]) as recorder:
        logits = network.forward_task(images.requires_grad_(), 0)
    arriving = recorder.arriving([torch.nn.functional.cross_entropy(logits, labels, reduction="none")])
    counted = 0
    for layer, inputs, back in zip(layers, recorder.inputs(), arriving, strict=True):
        found = layer.gradients(0, inputs, back)[0]
        for i in range(3):
            loss = torch.nn.functional.cross_entropy(network.forward_task(images[i : i + 1], 0), labels[i : i + 1])
            own = dict(layer.modules[0].named_parameters(recurse=False))
            each = dict(zip(own, torch.autograd.grad(loss, list(own.values())), strict=True))
            expected = matrix(layer.modules[0], each)
            if layer.length is not None:  # a filter before batch norm counts at its common length
                rows = matrix(layer.modules[0], {name: value.detach() for name, value in own.items()})
                expected = expected * (rows.norm(dim=-1, keepdim=True) / layer.length)
            torch.testing.assert_close(found[i], expected.flatten())
        counted += sum(p.numel() for p in layer.modules[0].parameters(recurse=False))
    own = sum(p.numel() for name, p in network.decoders[0].named_parameters() if name.startswith("block"))
    assert counted == own


def test_a_family_that_looks_at_windows_is_refused():
    network = decouple(plain("swin"), 0, TASKS).eval()
    objectives = task_objectives(network.partition, [3] * 6)
    observer = Observer(network, block_layers(network), objectives, FisherKind.EMPIRICAL, 0)
    images, weights = torch.randn(2, 3, SIZE, SIZE), torch.ones(2)
    with pytest.raises(ValueError, match=r"block2\..* sees images in pieces .* --shared-depth and --task-weights"):
        observer.look(images, torch.tensor([0, 1]), weights, weights)
