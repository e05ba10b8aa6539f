"""Training throughput beside a bare loop of timm's own parts, both interleaved in one process.

    python benchmarks/throughput.py    -> benchmarks/studies/throughput.json

Ours is `engine.fit` with all that a run does: order and augmentation by seed, epoch and image, checkpoint and metrics.
Bare is timm's loader, optimiser, transform and saver around forward, backward and step. Networks, batches and
augmentation are alike: random parts and flips of photographs, padded crops and flips of small images. Times are
processor seconds of one thread, medians over repeats: what a noisy machine leaves to compare.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_loader
from timm.optim import create_optimizer_v2
from timm.utils import CheckpointSaver
from torch.utils.data import Dataset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from osdtw_models.files import write_text
from osdtw_models.partition import ClassPartition
from osdtw_training.batches import Batches
from osdtw_training.data import load_data
from osdtw_training.engine import fit
from osdtw_training.networks import new_network
from osdtw_training.preparation import preparation
from osdtw_training.provenance import processor
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Schedule
from osdtw_training.runs import Run

RESULTS = Path(__file__).parent / "studies" / "throughput.json"
REPEATS = 3
CLASSES = 4
SMALL = Recipe(model="osdtw_resnet20", batch_size=128, holdout=0.0)
PHOTOS = Recipe(model="osdtw_resnet18", batch_size=32, holdout=0.0, crop="resized", img_size=112)


@dataclass
class Case:
    """One kind of data: the recipe, and the images in memory or in their files."""

    recipe: Recipe
    batches: Batches
    dataset: Dataset[Any]
    transform: Callable[[Any], Any] | None


class InMemory(Dataset[Any]):
    """Small images as timm's loader wants them."""

    def __init__(self, pixels: np.ndarray[Any, Any], labels: list[int]) -> None:
        self.pixels, self.labels = pixels, labels
        self.transform: Callable[[Any], Any] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """An image, transformed, and its class."""
        assert self.transform is not None
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def write_images(folder: Path, number: int, side: int, suffix: str) -> None:
    """Smooth noise, so that JPEG has something to do."""
    stream = np.random.default_rng(0)
    for i in range(number):
        coarse = stream.integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((side + i % 64, side), Image.Resampling.BICUBIC)
        file = folder / f"class{i % CLASSES}" / f"{i}{suffix}"
        file.parent.mkdir(parents=True, exist_ok=True)
        (image if side > 32 else image.resize((side, side))).save(file)


def case_of(recipe: Recipe, folder: Path) -> Case:
    """The images of a folder for both loops."""
    recipe = replace(recipe, data=str(folder))
    data = load_data(recipe)
    batches = data.train_batches(recipe)
    if recipe.crop == "resized":
        return Case(recipe, batches, ImageFolder(str(folder)), None)
    assert isinstance(data.train.images, torch.Tensor)
    wanted = preparation(recipe)
    steps = [transforms.RandomCrop(wanted.img_size, padding=4), transforms.RandomHorizontalFlip()]
    steps += [transforms.ToTensor(), transforms.Normalize(wanted.mean, wanted.std)]
    pixels = data.train.images.permute(0, 2, 3, 1).numpy()
    return Case(recipe, batches, InMemory(pixels, data.train.labels.tolist()), transforms.Compose(steps))


def bare_loader(case: Case) -> Any:
    """timm's loader for a case."""
    wanted = preparation(case.recipe)
    loader = create_loader(
        case.dataset,
        input_size=(3, wanted.img_size, wanted.img_size),
        batch_size=case.recipe.batch_size,
        is_training=True,
        use_prefetcher=case.transform is None,
        color_jitter=0.0,
        interpolation=wanted.interpolation,
        mean=wanted.mean,
        std=wanted.std,
        num_workers=0,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    if case.transform is not None:
        case.dataset.transform = case.transform  # type: ignore[attr-defined]
    return loader


def network_of(case: Case) -> Any:
    """The plain backbone."""
    return new_network(case.recipe, ClassPartition.single(CLASSES))


def ours(case: Case, folder: Path) -> float:
    """Processor seconds of an epoch in `engine.fit`."""
    network = network_of(case)

    def loss(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(network.forward_task(images, 0).float(), labels)

    run = Run(folder)
    return seconds(lambda: fit("train", network, [network], loss, case.batches, Schedule(1, 0.01), case.recipe, run))


def bare(case: Case, folder: Path) -> float:
    """Processor seconds of an epoch of the bare loop, at whose end timm's saver writes a checkpoint."""
    network, loader = network_of(case).train(), bare_loader(case)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.01, weight_decay=5e-4, momentum=0.9)
    folder.mkdir()
    saver = CheckpointSaver(network, optimizer, checkpoint_dir=str(folder))

    def epoch() -> None:
        for images, labels in loader:
            images = images.contiguous(memory_format=torch.channels_last)
            value = F.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        saver.save_checkpoint(0, 0.0)

    return seconds(epoch)


def seconds(work: Callable[[], object]) -> float:
    """Processor seconds that a piece of work takes."""
    started = time.process_time()
    work()
    return time.process_time() - started


def drain(batches: Any) -> None:
    """Read all batches."""
    for _ in batches:
        pass


def measure(name: str, recipe: Recipe, number: int, side: int, suffix: str) -> dict[str, Any]:
    """Both loops on one kind of images, interleaved."""
    with tempfile.TemporaryDirectory() as root:
        write_images(Path(root) / "images", number, side, suffix)
        case = case_of(recipe, Path(root) / "images")
        found: dict[str, list[float]] = {"ours": [], "bare": [], "ours_loading": [], "bare_loading": []}
        for repeat in range(REPEATS + 1):
            times = {
                "ours": ours(case, Path(root) / f"run{repeat}"),
                "bare": bare(case, Path(root) / f"bare{repeat}"),
                "ours_loading": seconds(lambda repeat=repeat: drain(case.batches.epoch(repeat))),
                "bare_loading": seconds(lambda: drain(bare_loader(case))),
            }
            print(name, {key: round(value, 3) for key, value in times.items()}, flush=True)
            if repeat:  # the first one warms up
                for key, value in times.items():
                    found[key].append(value)
    images = case.batches.steps * case.batches.batch_size
    rates = {key: images / statistics.median(values) for key, values in found.items()}
    ratios = [a / b for a, b in zip(found["bare"], found["ours"], strict=True)]
    size = preparation(case.recipe).img_size
    return {
        "name": name,
        "model": recipe.model,
        "img_size": size,
        "batch_size": recipe.batch_size,
        "images": images,
        "images_per_second": rates,
        "ratio": statistics.median(ratios),
        "ratio_range": [min(ratios), max(ratios)],
        "loading_ratio": rates["ours_loading"] / rates["bare_loading"],
    }


def main() -> None:
    """Measure and write the results file."""
    torch.set_num_threads(1)
    rows = [
        measure("small images in memory", SMALL, 640, 32, ".png"),
        measure("photographs", PHOTOS, 96, 256, ".jpg"),
    ]
    study = {
        "command": "python benchmarks/throughput.py",
        "hardware": {"processor": processor(), "threads": 1},
        "date": time.strftime("%Y-%m-%d"),
        "repeats": REPEATS,
        "rows": rows,
    }
    write_text(RESULTS, json.dumps(study, indent=2) + "\n")
    print(f"Wrote {RESULTS}")


if __name__ == "__main__":
    main()
