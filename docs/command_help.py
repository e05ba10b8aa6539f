"""The directive ``{commands}``: a section for each installed command, with its help as the command prints it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import patch

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


def helps() -> dict[str, str]:
    """What every command in ``[project.scripts]`` prints when it is asked for help.

    Returns:
        Helps by command.

    Raises:
        ValueError: If a command has no help.
    """
    scripts = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["scripts"]
    return {command: _help(command, *door.split(":")) for command, door in scripts.items()}


def _help(command: str, module: str, function: str) -> str:
    """What a command prints when it is asked for help, 90 columns wide and without colours."""
    out = io.StringIO()
    plain = patch.dict(os.environ, COLUMNS="90", NO_COLOR="1")
    with plain, contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        getattr(import_module(module), function)(["--help"])
    if not out.getvalue().strip():
        raise ValueError(f"{command} prints no help; let its door {module}:{function} answer to --help.")
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())


class Commands(SphinxDirective):
    """``{commands}``, without options or content."""

    def run(self) -> list[nodes.Node]:
        """The sections."""
        self.env.note_dependency(str(PROJECT))
        sections: list[nodes.Node] = []
        for command, text in helps().items():
            section = nodes.section(ids=[command], names=[command])
            section += nodes.title(text=command)
            section += nodes.literal_block(text, text, language="none")
            self.state.document.note_explicit_target(section)
            sections.append(section)
        return sections


def setup(app: Sphinx) -> dict[str, Any]:
    """Make the directive known to Sphinx."""
    app.add_directive("commands", Commands)
    return {"parallel_read_safe": True}
