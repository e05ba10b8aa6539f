"""What a run says before its first epoch."""

import pytest

from osdtw_training import inventory
from osdtw_training.checks import check
from osdtw_training.data import load_data


@pytest.mark.parametrize(
    ("amp", "has", "said"), [("bfloat16", False, True), ("bfloat16", True, False), ("none", False, False)]
)
def test_says_when_half_precision_is_slower(tiny, capsys, monkeypatch, amp, has, said):
    monkeypatch.setattr(inventory, "has_bfloat16", lambda: has)
    recipe = tiny(amp=amp)
    data = load_data(recipe)
    inventory.announce(recipe, data, check(recipe, data))
    assert ("--amp none is faster here" in capsys.readouterr().out) == said
