"""What the proxy costs on ResNet-32: statistics and search beside one epoch of training, in one run.

    python benchmarks/proxy_cost.py --data-dir CIFAR100    -> benchmarks/studies/proxy_cost.json

The networks are not trained: cost depends on shapes, but for the search of ``diagonal``, which adds up coordinates of
like curvature and finds fewer of them here than in a trained network. Times are processor seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from osdtw_models.cifar import CifarResNet
from osdtw_models.files import write_text
from osdtw_models.network import OsdtwNet
from osdtw_training import fisher, planning, sampling, stages, store
from osdtw_training.data import load_data
from osdtw_training.networks import new_network
from osdtw_training.provenance import processor
from osdtw_training.recipe_files import read_recipe
from osdtw_training.runs import Run
from osdtw_training.steps import autocast

RESULTS = Path(__file__).parent / "studies" / "proxy_cost.json"
STRUCTURES = ("refit", "diagonal", "ekfac")
STEPS = 20


def measure(data_dir: str) -> dict[str, object]:
    """Seconds of an epoch, of each structure's statistics, and of the search with them."""
    recipe = replace(read_recipe("cifar100_lt_replicates"), data_dir=data_dir)
    torch.set_num_threads(1)
    data = load_data(recipe)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        stage = stages.prepare(recipe, data, Run(Path(folder) / "run"))
        networks = [new_network(recipe, stage.partition, 0) for _ in range(3)]
        epoch = seconds(lambda: train(stage, STEPS)) / STEPS * stage.batches.steps
        for structure in STRUCTURES:
            wanted = replace(recipe, search=replace(recipe.search, structure=structure))
            run = Run(Path(folder) / structure)
            arguments = (networks[0], stage.objectives, stage.batches, wanted, run, networks[1:])
            statistics = seconds(lambda arguments=arguments: planning.measure(*arguments))
            found, _ = store.load(run)
            searched = seconds(lambda found=found, wanted=wanted: planning.find(found, wanted))
            rows[structure] = {"images": found.samples, "statistics": statistics, "search": searched}
        large = memory(stage)
    return {
        "command": "python benchmarks/proxy_cost.py --data-dir CIFAR100",
        "hardware": {"processor": processor(), "threads": 1, "amp": recipe.amp},
        "date": time.strftime("%Y-%m-%d"),
        "model": recipe.model,
        "training_epoch": epoch,
        "structures": rows,
        "large": large,
    }


def memory(stage: stages.Context) -> dict[str, float]:
    """Peak memory of this process while the diagonal statistics of a network of 29 million parameters are taken."""
    tasks = stage.partition.to_lists()
    network = OsdtwNet(CifarResNet(32, width=128), stage.partition.num_classes, shared_depth=0, task_classes=tasks)
    # As many images as are looked at together; more of them take longer, not more memory.
    fisher.measure(network, stage.objectives, stage.batches, sampling.CHUNK, damping=0.01)
    return {
        "parameters_of_a_task": sum(parameter.numel() for parameter in network.decoders[0].parameters()),
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    }


def train(stage: stages.Context, steps: int) -> None:
    """Some steps of stage 1 on one task: forward, backward, and the optimiser's step."""
    recipe = stage.recipe
    network = new_network(recipe, stage.partition, 0)
    optimizer = torch.optim.SGD(network.decoders[0].parameters(), lr=0.01, momentum=0.9)
    for step, (images, labels) in enumerate(stage.batches.epoch(0)):
        if step == steps:
            return
        with autocast(recipe):
            loss = stage.objectives[0](network.forward_task(images, 0), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def seconds(work: Callable[[], None]) -> float:
    """Processor seconds that a piece of work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Measure and write the results file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="CIFAR-100 in the Hub's parquet layout or torchvision's")
    write_text(RESULTS, json.dumps(measure(parser.parse_args().data_dir), indent=2) + "\n")
    print(f"Wrote {RESULTS}")


if __name__ == "__main__":
    main()
