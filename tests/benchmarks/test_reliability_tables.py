"""The tables of docs/reliability.md are those of the studies, and a study's rows add up."""

import json
from pathlib import Path

import pytest

import reliability_tables

ROOT = Path(__file__).parents[2]


def test_the_document_is_what_the_studies_say():
    ((path, text),) = reliability_tables.render(ROOT).items()
    assert path.read_text(encoding="utf-8") == text, "run python benchmarks/reliability_tables.py"


@pytest.mark.parametrize("name", reliability_tables.ORDER)
def test_every_try_is_survived_or_lost(name):
    path = ROOT / "benchmarks" / "studies" / "reliability" / f"{name}.json"
    for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
        assert set(row) == {"fault", "where", "tries", "survived", "lost", "note"}
        assert 0 <= row["survived"] <= row["tries"]
        assert row["survived"] + row["lost"] == row["tries"] > 0
