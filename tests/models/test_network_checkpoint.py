"""Reading a checkpoint at another depth: the same function or a refusal, never something between."""

import pytest
import torch

from osdtw_models import create_model
from osdtw_models.checkpoint import convert_checkpoint

TASKS = [[4, 1], [5, 0, 3, 2]]


def load(model, state):
    model.load_state_dict(convert_checkpoint(state, model))
    return model


@pytest.mark.parametrize("saved_depth", range(8))
@pytest.mark.parametrize("tasks", [TASKS, [[0, 5], [2, 1], [4, 3]]])
def test_a_shallower_network_computes_the_same(build, images, tasks, saved_depth):
    saved = build(task_classes=tasks, shared_depth=saved_depth)
    for depth in range(saved_depth + 1):
        model = load(build(task_classes=tasks, shared_depth=depth), saved.state_dict())
        torch.testing.assert_close(model(images), saved(images), rtol=0, atol=1e-12)


@pytest.mark.parametrize("saved_depth", [0, 3, 7])
def test_one_task_is_read_at_any_depth(build, images, saved_depth):
    tasks = [list(range(6))]
    saved = build(task_classes=tasks, shared_depth=saved_depth)
    for depth in range(8):
        model = load(build(task_classes=tasks, shared_depth=depth), saved.state_dict())
        torch.testing.assert_close(model(images), saved(images), rtol=0, atol=1e-12)


def test_forked_blocks_are_copies_and_the_checkpoint_stays_as_it_was(build):
    saved = build(task_classes=TASKS, shared_depth=5).state_dict()
    before = dict(saved)
    converted = convert_checkpoint(saved, build(task_classes=TASKS, shared_depth=3))
    pointers = [values.data_ptr() for name, values in converted.items() if "block5.conv1" in name]
    assert len(set(pointers)) == 2
    assert saved.keys() == before.keys()
    assert all(saved[name] is before[name] for name in saved)


def refusal(state, model):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (the callers compare the whole sentence)
        load(model, state)
    return str(caught.value)


def test_a_deeper_network_is_refused(build):
    sentence = refusal(build(shared_depth=3).state_dict(), build(shared_depth=4))
    assert sentence == (
        "The checkpoint shares 3 blocks but the model 4; decoders that differ cannot be merged, so choose "
        "shared_depth of at most 3."
    )


@pytest.mark.parametrize("tasks", [[[4, 1], [5, 0, 2, 3]], [[4, 1, 5], [0, 3, 2]], [[5, 0, 3, 2], [4, 1]]])
def test_another_partition_is_refused(build, tasks):
    sentence = refusal(build(task_classes=TASKS).state_dict(), build(task_classes=tasks))
    assert sentence == (
        "The checkpoint was trained on another partition of the classes into tasks; create the model with the "
        "checkpoint's task_classes (see its config.json)."
    )


def test_another_number_of_tasks_is_refused(build):
    sentence = refusal(build(task_classes=TASKS).state_dict(), build(task_classes=[list(range(6))]))
    assert sentence == (
        "The checkpoint has 2 tasks but the model has 1; create the model with the checkpoint's task_classes (see "
        "its config.json)."
    )


def test_new_classes_keep_the_order_of_the_new_model(build):
    model = build(num_classes=4, task_classes=[[3, 0], [2, 1]])
    converted = convert_checkpoint(build(task_classes=TASKS).state_dict(), model)
    assert converted["class_position"].tolist() == [1, 3, 2, 0]


def test_weights_of_another_partition_are_refused_on_every_way_in():
    net = create_model("osdtw_resnet14", num_classes=4, class_counts=[4, 3, 2, 1])
    other = create_model("osdtw_resnet14", num_classes=4, class_counts=[1, 2, 3, 4])
    with pytest.raises(ValueError, match="another partition"):
        other.load_state_dict(net.state_dict())
    assert torch.equal(other.class_position, other.partition.class_position)
