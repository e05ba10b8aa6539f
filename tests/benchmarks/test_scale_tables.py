"""The tables of docs/scale.md are those of the studies."""

from pathlib import Path

import scale_tables


def test_the_document_is_what_the_studies_say():
    ((path, text),) = scale_tables.render(Path(__file__).parents[2]).items()
    assert path.read_text(encoding="utf-8") == text, "run python benchmarks/scale_tables.py"
