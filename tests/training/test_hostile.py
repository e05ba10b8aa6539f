"""Hostile recipes, lists of runs, weights, priors and names: used, or refused in one sentence."""

from random import Random

import pytest

import attacks_on_texts
from osdtw_training.recipe_files import read_recipe
from sandbox import attempt

TRIES = 60


@pytest.mark.parametrize("attack", attacks_on_texts.ATTACKS, ids=lambda attack: attack.fault)
def test_every_try_is_used_or_refused_in_one_sentence(attack, tmp_path):
    state = attack.begin(tmp_path)
    found = [attempt(attack.craft(Random(f"test/{i}"), tmp_path, state)) for i in range(TRIES)]
    assert set(found) == {"accepted", "refused"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 5000, "nested too deep"),
        ("x" * 70_000, "more than 64 kB"),
        ("seed = " + "9" * 5000, "is not a TOML file"),
        ("seed = 9223372036854775808", "give a finite number"),
        ("[joint]\nlr = nan", "give a finite number"),
        ("[joint]\nlr = 1" + "0" * 400, "give a finite number"),
        ("batch_size = 128.0", "must be of type int"),
        ("seed = true", "must be of type int"),
    ],
)
def test_what_a_recipe_cannot_hold_is_named(tmp_path, text, said):
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(ValueError, match=said):
        read_recipe(tmp_path / "recipe.toml")
