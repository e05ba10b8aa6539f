"""README names only what exists: commands, options, recipes, extras, files, Python that compiles."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = PROJECT["scripts"]
RECIPES = ROOT / "training" / "osdtw_training" / "recipes"
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


def test_extras_are_in_the_project():
    named = set(re.findall(r"'\.\[([\w-]+)\]'", README))
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


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
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
    roofs.append(ROOT / "benchmarks")
    modules = {path.name for roof in roofs for path in roof.rglob("*.py")} - {"__init__.py"}
    tests = {path.name for path in (ROOT / "tests").glob("*.py")}
    named = set(re.findall(r"\w+\.py", tree))
    assert modules <= named
    assert named <= modules | tests
