"""The documents' tables are those of the studies, and only what stands between the marks is replaced."""

from pathlib import Path

import pytest

import proxy_tables
import study_tables

ROOT = Path(__file__).parents[2]


def test_the_documents_are_what_the_studies_say():
    for path, text in proxy_tables.render(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"run python benchmarks/proxy_tables.py: {path} differs"


def test_only_what_stands_between_the_marks_changes():
    text = "before\n<!-- a -->\nold\n<!-- /a -->\nafter <!-- b -->x<!-- /b -->"
    assert study_tables.between(text, "a", "new") == text.replace("old", "new")
    with pytest.raises(ValueError, match="has no marks <!-- c -->"):
        study_tables.between(text, "c", "new")
