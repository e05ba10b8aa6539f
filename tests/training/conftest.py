"""What the tests of training share: a tiny recipe and one finished run of it."""

import dataclasses

import pytest
import torch

from osdtw_models.image_set import ImageSet
from osdtw_training.pipeline import Result, run_recipe
from osdtw_training.recipe import Recipe
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Search, Warmup

TINY = Recipe(
    model="osdtw_resnet14",
    imbalance_factor=50,
    holdout=0.1,
    img_size=16,
    crop_pad=1,
    flip=False,
    batch_size=64,
    warmup=Warmup(epochs=2, lr=0.05, rise_epochs=1),
    tasks=Schedule(epochs=2, lr=0.02),
    search=Search(samples=12, weights=3),
    joint=Joint(epochs=2, lr=0.02),
    refit=Refit(epochs=2, lr=0.01),
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)
    torch.set_num_threads(1)  # what the recipes say, and much faster where other programs run


@pytest.fixture(scope="session")
def tiny():
    """The tiny recipe with changes: long-tailed digits at 16 pixels, all stages of two epochs."""

    def tiny(**changes) -> Recipe:
        return dataclasses.replace(TINY, **changes)

    return tiny


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Result:
    """One finished run of the tiny recipe, for every test that only reads."""
    return run_recipe(TINY, tmp_path_factory.mktemp("finished") / "run")


@pytest.fixture
def no_figures(monkeypatch):
    """Runs without pictures, where only the numbers matter: drawing takes longer than training here."""
    monkeypatch.setattr("osdtw_training.figures.draw", lambda run: [])


@pytest.fixture(scope="session")
def noise():
    """Images of random pixels, the labels given or, without them, each image its own class."""

    def noise(labels=None, number=10, side=8) -> ImageSet:
        labels = torch.arange(number) if labels is None else torch.as_tensor(labels)
        generator = torch.Generator().manual_seed(0)
        images = torch.randint(0, 256, (len(labels), 3, side, side), dtype=torch.uint8, generator=generator)
        classes = tuple(f"c{c}" for c in range(int(labels.max()) + 1))
        return ImageSet(images, labels, classes, tuple(f"image{i}" for i in range(len(labels))))

    return noise
