"""Recipes: strict about keys, types and values, and the same after a trip through a file."""

import json

import pytest
from timm import is_model

from osdtw_training.recipe import Recipe
from osdtw_training.recipe_files import packaged_recipes, read_recipe
from osdtw_training.recipe_tables import Joint, Refit, Schedule, Search, Warmup
from osdtw_training.values import from_values, to_values


@pytest.fixture
def read(tmp_path):
    def read(text: str) -> Recipe:
        (tmp_path / "mine.toml").write_text(text)
        return read_recipe(tmp_path / "mine.toml")

    return read


def test_an_empty_file_is_the_defaults(read):
    assert read("") == Recipe(name="mine")


def test_fields_and_tables_are_read(read):
    recipe = read('model = "osdtw_resnet14"\ntask_weights = [0.25, 0.75]\n[warmup]\nlr = 1\nobjective = "tasks"\n')
    assert recipe == Recipe(
        name="mine", model="osdtw_resnet14", task_weights=(0.25, 0.75), warmup=Warmup(lr=1.0, objective="tasks")
    )
    assert isinstance(recipe.warmup.lr, float)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epochs = 3", "unknown key 'epochs'"),
        ("[joint]\nepoch = 3", "unknown key 'joint.epoch'"),
        ("[stage4]\nepochs = 3", "unknown key 'stage4'"),
        ('seed = "0"', "'seed' must be of type int"),
        ("seed = 1.5", "'seed' must be of type int"),
        ("seed = true", "'seed' must be of type int"),
        ("flip = 1", "'flip' must be of type bool"),
        ("data = 3", "'data' must be of type str"),
        ("holdout = false", "'holdout' must be of type float"),
        ("mean = 0.5", "'mean' must be a list of 3 numbers"),
        ("mean = [0.5, 0.5]", "'mean' must be a list of 3 numbers"),
        ('mean = [0.5, 0.5, "0.5"]', "'mean' must be of type float"),
        ("task_weights = 0.5", "'task_weights' must be a list"),
        ('fusion = "best"', "'fusion' is 'best'; choose one of 'raw', 'valid', 'pool'"),
        ("joint = 3", "'joint' must be a table"),
        ('[tasks]\nlr = "high"', "'tasks.lr' must be of type float"),
        ('[refit]\ndecoders = "new"', "'refit.decoders' is 'new'"),
        ("task_weights = [0.5, 0.6]", "task_weights [0.5, 0.6] must be positive and sum to 1"),
        ("task_weights = [1.5, -0.5]", "task_weights"),
        ("task_weights = []", "task_weights"),
        ("imbalance_factor = 0.01", "imbalance_factor is 0.01"),
        ("holdout = 1.0", "holdout is 1.0"),
        ("holdout = -0.1", "holdout is -0.1"),
        ("batch_size = 0", "batch_size is 0"),
        ("img_size = 0", "img_size is 0"),
        ("num_tasks = 0", "num_tasks is 0"),
        ("threads = -1", "threads is -1"),
        ("[refit]\ndistill = 1.5", "refit.distill is 1.5"),
        ("[train]\nrise_epochs = -2.0", "rise_epochs -2.0; none may be negative"),
        ("[train]\nfinal_lr = -0.1", "final_lr -0.1 and rise_epochs 0.0; none may be negative"),
        ("[peer]\nbeta = 1.0", "peer.beta is 1.0"),
        ("[peer]\nmixup = 0.0", "peer.mixup is 0.0; it must be above 0"),
        ("[peer]\nreject = -1", "peer.reject is -1; it must be at least 0"),
        ("[peer]\ndefer = 1.5", "peer.defer is 1.5; it is a part"),
        ("[peer]\nmeta = 0", "peer.meta is 0"),
        ('method = "nbn"\ngrad_checkpointing = true', "nbn runs on exchanged parameters"),
        ('method = "mfm"\naccumulate = 2', "mfm takes its virtual step on whole batches"),
        ("[joint]\nepochs = -1", "joint has epochs -1"),
        ("[refit]\nlr = -0.1", "refit has epochs 0, lr -0.1"),
        ("seed = ", "is not a TOML file"),
    ],
)
def test_what_is_wrong_is_named_with_its_key_and_file(read, text, said):
    with pytest.raises(ValueError, match=r"mine\.toml: |mine\.toml is") as caught:
        read(text)
    assert said in str(caught.value)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="is not a TOML file"):
        read_recipe(tmp_path / "mine.toml")


def test_an_unknown_recipe_lists_the_packaged_ones():
    with pytest.raises(FileNotFoundError, match="No recipe cifar1000") as caught:
        read_recipe("cifar1000")
    assert all(name in str(caught.value) for name in packaged_recipes())


@pytest.mark.parametrize("name", packaged_recipes())
def test_packaged_recipes_can_be_run(name):
    recipe = read_recipe(name)
    assert is_model(recipe.model)
    assert recipe.passes() > 0
    assert recipe.name == name


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe(),
        Recipe(data_dir="here", imbalance_factor=100, head_threshold=20, shared_depth=0, task_weights=(0.1, 0.9)),
        Recipe(method="balanced_softmax", train=Schedule(3, 0.1, 0.01, 0.5), refit=Refit(decoders="tasks", distill=1)),
        *map(read_recipe, packaged_recipes()),
    ],
)
def test_recipes_survive_json(recipe):
    assert from_values(Recipe, json.loads(json.dumps(to_values(recipe)))) == recipe


def test_passes_count_each_task_of_stage_1_and_only_the_stages_that_run():
    stages = {"warmup": Warmup(3), "tasks": Schedule(2), "joint": Joint(5), "train": Schedule(7)}
    given = {"shared_depth": 2, "task_weights": (0.5, 0.5)}
    alone = Search(structure="diagonal", replicates=False)
    assert Recipe(**stages, refit=Refit(4), num_tasks=3, search=alone).passes() == 3 + 3 * 2 + 5 + 4
    assert Recipe(**stages, refit=Refit(4), num_tasks=3).passes() == 3 + 3 * 2 * 2 + 5 + 4  # halves: once more
    assert Recipe(**stages, refit=Refit(4), **given).passes() == 3 + 2 * 2 + 5 + 4
    assert Recipe(**stages, refit=Refit(4, decoders="joint"), num_tasks=1, search=alone).passes() == 3 + 2 + 5
    assert Recipe(**stages, refit=Refit(4), method="balanced_softmax").passes() == 7


@pytest.mark.parametrize("name", ["../x", "a/b", "..", "", "a\\b", "a\nb"])
def test_a_name_is_that_of_a_folder(tiny, name):
    with pytest.raises(ValueError, match="leave out slashes"):
        tiny(name=name)
