"""Everything that can be wrong before training, looked at before training."""

from __future__ import annotations

import hashlib

from osdtw_models.partition import ClassPartition
from osdtw_training import distributed, planning
from osdtw_training.class_weights import class_weights
from osdtw_training.data import LongTailedData
from osdtw_training.networks import new_network, tasks_of
from osdtw_training.recipe import Recipe


def check(recipe: Recipe, data: LongTailedData, start: bool = False) -> ClassPartition:
    """The partition of a run's classes, after everything that can be wrong before training was looked at.

    Args:
        recipe: The recipe.
        data: The images.
        start: Whether the run will start from the recipe's weights of the backbone.

    Returns:
        The partition.

    Raises:
        ValueError: If there are fewer classes than tasks, the head threshold leaves a task empty, there is nothing
            to train or to choose the epoch on, class weights do not fit the classes, a batch is too small for the
            processes, they see different images, a fixed plan does not fit the network, or the statistics would not
            fit into memory.
        FileNotFoundError: If the weights of the backbone cannot be had.
    """
    if not recipe.passes():
        table = "[train]" if recipe.method != "osdtw" else "[warmup]"
        raise ValueError(f"The recipe trains for 0 epochs; set epochs in {table}.")
    if (recipe.eval_metric != "last" or recipe.method == "tau_norm") and not len(data.holdout):
        what = "eval_metric" if recipe.eval_metric != "last" else "tau_norm"
        raise ValueError(f"{what} found no held-out image to choose by; set holdout_least to 1.")
    class_weights(data.train_batches(recipe))
    _check_processes(recipe, data)
    partition = tasks_of(recipe, data.counts)
    try:
        network = new_network(recipe, partition, start=start)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error} On the command line: --backbone-weights FILE, or none.") from error
    planning.check_memory(recipe, network)
    planning.check_fixed(recipe, network.num_blocks, partition.num_tasks)
    return partition


def _check_processes(recipe: Recipe, data: LongTailedData) -> None:
    """Every process must get images of every micro-batch, of the same data, and a device of its own."""
    if distributed.processes() > 1 and ":" in recipe.device:
        raise ValueError(f'device is {recipe.device}, one for all processes; give "cuda": each takes its own.')
    if distributed.processes() > 1 and recipe.method == "mfm":
        raise ValueError("mfm takes its virtual step on whole batches; train it in one process, without torchrun.")
    halved = recipe.searched and recipe.search.replicates
    images = min(recipe.batch_size, len(data.train)) // (2 if halved else 1)
    parts = distributed.processes() * recipe.accumulate
    if images < parts and parts > 1:
        raise ValueError(
            f"A batch of {images} images{' (of half of the data)' if halved else ''} cannot be split over "
            f"{distributed.processes()} processes and {recipe.accumulate} micro-batches; raise batch_size."
        )
    listed = repr((data.train.names, data.train.labels.tolist())).encode()
    seen = int.from_bytes(hashlib.sha256(listed).digest()[:7], "big")
    if distributed.of_first(seen) != seen:
        raise ValueError(
            f"Process {distributed.number()} sees other images in {recipe.data} than the first process; give every "
            "machine the same files."
        )
