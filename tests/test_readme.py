"""README names only what exists: commands, options, files, Python that compiles."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_commands_are_installed():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(re.findall(r"osdtw-(?:train|search|eval|predict|export|\w+)(?= )", README)) <= scripts.keys()
    assert all(script in README for script in scripts)


def test_targets_are_in_the_makefile():
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([a-z-]+)", README)) <= set(targets)


def test_python_compiles():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        compile(block, "README.md", "exec")


@pytest.mark.parametrize("document", ["README.md", "ARCHITECTURE.md"])
def test_links_and_images_exist(document):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_the_map_names_every_module():
    tree = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    packages = [ROOT / "osdtw_models", ROOT / "training/osdtw_training", ROOT / "export/osdtw_export"]
    modules = {path.name for package in packages for path in package.glob("*.py")} - {"__init__.py"}
    assert not [name for name in sorted(modules) if name not in tree]
