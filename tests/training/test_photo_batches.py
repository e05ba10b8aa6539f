"""Training on photographs: the same images whatever the workers, and a whole run from files to a loaded network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from osdtw_models import create_model
from osdtw_models.load import load_model
from osdtw_training.batches import Batches
from osdtw_training.cli import train
from osdtw_training.data import load_data
from osdtw_training.pipeline import run_recipe
from osdtw_training.preparation import preparation
from osdtw_training.recipe_files import read_recipe

COUNTS = {"ant": 12, "bee": 8, "cow": 4, "dog": 3}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Four classes of coloured noise of different sizes, with test images."""
    root = tmp_path_factory.mktemp("photos")
    stream = np.random.default_rng(0)
    for split, counts in {"train": COUNTS, "test": dict.fromkeys(COUNTS, 2)}.items():
        for label, (name, number) in enumerate(counts.items()):
            (root / split / name).mkdir(parents=True)
            for i in range(number):
                shape = (40 + i, 50 - i, 3)
                pixels = stream.integers(0, 120, shape) + np.array([135, 0, 0]) * (label == 0) + 20 * label
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{i}.jpg")
    return root


@pytest.fixture
def photos(tiny, folder):
    """The tiny recipe on the folder, at 32 pixels."""

    def photos(**changes):
        given = {"data": str(folder), "imbalance_factor": None, "crop": "resized", "img_size": 32, "batch_size": 8}
        return tiny(**{**given, "model": "osdtw_resnet14", "flip": True, **changes})

    return photos


def epoch(recipe, number=3):
    data = load_data(recipe)
    batches = list(data.train_batches(recipe).epoch(number))
    return torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches])


def test_an_epoch_depends_on_seed_and_epoch_but_not_on_workers_or_the_state_of_generators(photos):
    images, labels = epoch(photos())
    torch.rand(5)
    for other in (epoch(photos()), epoch(photos(workers=2))):
        assert torch.equal(images, other[0])
        assert torch.equal(labels, other[1])
    state = torch.random.get_rng_state()
    assert not torch.equal(images, epoch(photos(seed=1))[0])
    assert not torch.equal(images, epoch(photos(), 4)[0])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_an_image_gets_the_same_part_in_any_batch(photos):
    recipe = photos(batch_size=1)
    data = load_data(recipe)
    whole = {int(i): x for x, i in zip(*stamped(data.train, data.train_indices, recipe), strict=True)}
    some = data.train.subset([4, 1, 9])
    part = {int(i): x for x, i in zip(*stamped(some, [data.train_indices[i] for i in (4, 1, 9)], recipe), strict=True)}
    assert all(torch.equal(x, whole[i]) for i, x in part.items())


def stamped(images, indices, recipe):
    """Images of an epoch, and which of the source each is: labels replaced by indices."""
    numbered = type(images)(images.images, torch.tensor(indices), images.class_names, images.names)
    batches = list(Batches(numbered, indices, recipe).epoch(0))
    return torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])


def test_parts_are_flipped_and_of_many_sizes_but_never_beyond_the_scale(photos):
    whole = photos(crop_scale=(1.0, 1.0), flip=False, holdout=0.0, batch_size=1)
    assert preparation(whole).img_size == 32
    images, _ = epoch(whole)
    assert images.shape == (27, 3, 32, 32)
    cropped, _ = epoch(photos(crop_scale=(0.1, 0.2), flip=False, holdout=0.0, batch_size=1))
    assert (images - cropped).abs().mean() > 0.1


def test_a_run_on_photographs_ends_in_a_network_that_loads(photos, tmp_path, no_figures):
    result = run_recipe(photos(), tmp_path / "run")
    assert result.results["test_images"] == 8
    network = load_model(tmp_path / "run")
    assert network.pretrained_cfg["input_size"][-1] == 32
    listed = json.loads((tmp_path / "run" / "images.json").read_text())
    assert listed["training_counts"] == [11, 8, 4, 3]
    assert {row["name"].split("/")[0] for row in listed["train"]} == set(COUNTS)


def test_the_recipe_of_photographs_prepares_images_as_the_models_weights_want_them():
    recipe = read_recipe("folder")
    wanted = preparation(recipe)
    cfg = create_model(recipe.model, device="meta").pretrained_cfg
    assert (wanted.img_size, wanted.crop_pct, wanted.interpolation) == (224, cfg["crop_pct"], cfg["interpolation"])
    assert (wanted.mean, wanted.std) == (cfg["mean"], cfg["std"])


def test_without_a_network_or_weights_one_sentence_says_how_to_start(folder, tmp_path, capsys):
    run = tmp_path / "run"
    assert train(["--data", str(folder), "--output", str(run), "--workers", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("osdtw-train: timm's weights of resnet18 could not be loaded")
    assert "--backbone-weights FILE, or none" in said
    assert said.count("\n") == 1
    assert not (run / "recipe.json").exists()  # the same command works once the weights are there


def test_weights_of_a_file_start_the_warm_up(folder, tmp_path, photos, no_figures):
    import timm

    plain = timm.create_model("resnet18", num_classes=3)
    save_file(plain.state_dict(), tmp_path / "resnet18.safetensors")
    stage = photos(model="osdtw_resnet18", backbone_weights=str(tmp_path / "resnet18.safetensors"), threads=1)
    from osdtw_models.partition import ClassPartition
    from osdtw_training.networks import new_network

    network = new_network(stage, ClassPartition.single(4), start=True)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(network.eval().forward_features(images), plain.eval().forward_features(images))


def test_statistics_too_large_are_refused_before_training(photos, tmp_path):
    from osdtw_training.recipe_tables import Search

    with pytest.raises(ValueError, match=r"gradients of 256 images would take \d+ GB; .*'diagonal'"):
        run_recipe(photos(model="osdtw_resnet18", search=Search()), tmp_path / "run")
    assert not (tmp_path / "run").exists()
