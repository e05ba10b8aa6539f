"""Documents name only what exists: commands, options, recipes, extras, files; their examples run.

In every document, commands in indented lines are parsed by their own parsers. In ``docs/`` and on the cards, fenced
examples (``python`` and ``sh``) are run as well, those of one page in their order, in a folder of their own.
"""

import argparse
import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = PROJECT["scripts"]
RECIPES = ROOT / "training" / "osdtw_training" / "recipes"
DOCUMENTS = [
    path.relative_to(ROOT).as_posix()
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
        *sorted((ROOT / "model_cards").glob("osdtw_*.md")),
    )
]
EXAMPLES = {
    document: blocks
    for document in DOCUMENTS[2:]
    if (
        blocks := re.findall(
            r"^```(python|sh)\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    )
}
# A command and its words, to the end of the line, a comment or the closing backtick.
CALLS = re.findall(r"(?:^    |`)(osdtw-\w+)([^`#\n]*)", README, re.MULTILINE)


@pytest.fixture(scope="module")
def helps():
    """The help of a command, asked once."""
    return {}


def help_of(command, helps, capsys):
    if command not in helps:
        module, function = SCRIPTS[command].split(":")
        with pytest.raises(SystemExit) as stop:
            getattr(import_module(module), function)(["--help"])
        assert not stop.value.code
        helps[command] = capsys.readouterr().out
    return helps[command]


def test_commands_are_installed_and_all_named():
    assert {command for command, _ in CALLS} == SCRIPTS.keys()


@pytest.mark.parametrize("command", sorted(SCRIPTS))
def test_options_are_in_the_commands_help(command, helps, capsys):
    known = set(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(command, helps, capsys)))
    named = {
        option for name, words in CALLS if name == command for option in re.findall(r"(?<!\S)--?[a-z][\w-]*", words)
    }
    assert named <= known


def test_recipes_are_packaged():
    named = re.findall(r"osdtw-train ([a-z]\w*)", README)
    assert named
    assert not [name for name in named if not (RECIPES / f"{name}.toml").is_file()]


def test_extras_are_in_the_project_and_all_named():
    texts = README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {extra for extras in re.findall(r"'\.\[([\w,-]+)\]'", texts) for extra in extras.split(",")}
    assert named == PROJECT["optional-dependencies"].keys()


def test_modules_run_with_python_exist():
    for module in re.findall(r"python -m ([\w.]+)", README):
        assert import_module(module).main


def test_targets_are_in_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", README, re.MULTILINE)) <= set(targets)


def test_python_compiles_and_imports():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")
        for module, name in re.findall(r"^from ([\w.]+) import (\w+)", block, re.MULTILINE):
            assert hasattr(import_module(module), name)


class Understood(Exception):
    """A parser took all words; nothing is to be done with them."""


def understanding(parse):
    def parse_and_stop(*args, **kwargs):
        parse(*args, **kwargs)
        raise Understood

    return parse_and_stop


def call(words):
    command, *rest = shlex.split(words, comments=True)
    module, function = SCRIPTS[command].split(":")
    return getattr(import_module(module), function)(rest)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_are_understood(document, monkeypatch, tmp_path):
    tyro = import_module("tyro")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", understanding(argparse.ArgumentParser.parse_args))
    monkeypatch.setattr(tyro, "cli", understanding(tyro.cli))
    for line in re.findall(r"^    (osdtw-.*)$", (ROOT / document).read_text(encoding="utf-8"), re.MULTILINE):
        with pytest.raises(Understood):
            assert call(line) == 0, line


def with_pace(document):
    """Commands train and export, which takes longer than a few calls from Python."""
    return pytest.param(document, marks=[pytest.mark.slow] if "sh" in dict(EXAMPLES[document]) else [])


@pytest.mark.parametrize("document", [with_pace(document) for document in EXAMPLES])
def test_examples_run(document, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    names = {}
    for language, block in EXAMPLES[document]:
        if language == "python":
            exec(compile(block, document, "exec"), names)
        else:
            for line in block.splitlines():
                assert call(line) == 0, line


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_links_images_and_sections_exist(document):
    text = (ROOT / document).read_text(encoding="utf-8")
    sections = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]+)\)", text):
        path, _, section = link.partition("#")
        if "://" not in link:
            assert not path or (ROOT / path).exists(), link
            assert path or section in sections, link


def test_the_map_names_every_module_and_no_other():
    tree = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    roofs = [ROOT / "osdtw_models", ROOT / "training" / "osdtw_training", ROOT / "export" / "osdtw_export"]
    roofs += [ROOT / "benchmarks", ROOT / "docs"]
    modules = {path.name for roof in roofs for path in roof.rglob("*.py")} - {"__init__.py"}
    tests = {path.name for path in (ROOT / "tests").glob("*.py")}
    named = set(re.findall(r"\w+\.py", tree))
    assert modules <= named
    assert named <= modules | tests
