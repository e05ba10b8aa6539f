"""What a user installs: every file of the three packages, nothing else, and commands that start without extras."""

import configparser
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

import osdtw_models

ROOT = Path(__file__).parents[1]
HOMES = [ROOT / "osdtw_models", ROOT / "training" / "osdtw_training", ROOT / "export" / "osdtw_export"]
OF_EXTRAS = ["jinja2", "matplotlib", "onnx", "onnx_ir", "onnxruntime", "onnxscript", "pyarrow", "sklearn", "tyro"]


def files(home):
    """Every file of a package, weights and recipes included."""
    return [path for path in home.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", out], cwd=ROOT, check=True, capture_output=True)
    return out


@pytest.fixture(scope="module")
def wheel(dist):
    with zipfile.ZipFile(next(dist.glob("*.whl"))) as archive:
        yield archive


def test_wheel_holds_the_three_packages_and_nothing_else(wheel):
    expected = {str(path.relative_to(home.parent)) for home in HOMES for path in files(home)}
    card = "osdtw_export/card_template.md"  # model_cards/template.md, for whoever publishes a run
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == expected | {card}
    assert wheel.read(card) == (ROOT / "model_cards" / "template.md").read_bytes()


def test_source_archive_holds_all_that_builds_the_wheel(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}  # without the leading folder
    needed = {str(path.relative_to(ROOT)) for home in HOMES for path in files(home)}
    assert needed | {"LICENSE", "README.md", "pyproject.toml"} <= found


def test_commands_start_without_extras(wheel):
    name = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    points = configparser.ConfigParser()
    points.read_string(wheel.read(name).decode())
    doors = [door.split(":") for door in points["console_scripts"].values()]
    assert len(doors) == 9
    code = f"import sys; sys.modules.update(dict.fromkeys({OF_EXTRAS}))\n"  # None: importing it is an error
    code += "".join(f"import {module}; assert callable({module}.{function})\n" for module, function in doors)
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_floors_that_are_tested_are_those_that_are_asked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]
    asked = {
        (need.name, Version(bound.version))
        for need in map(Requirement, lines)
        for bound in need.specifier
        if bound.operator == ">="
    }
    lines = (ROOT / "constraints-floors.txt").read_text(encoding="utf-8").splitlines()
    tested = {(name, Version(version)) for name, equals, version in (line.partition("==") for line in lines) if equals}
    assert tested
    assert tested <= asked


def test_citation_is_of_this_version_and_names_the_paper():
    """Required fields of the Citation File Format 1.2.0, and the ones that this project states."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert cited.keys() >= {"cff-version", "message", "title", "authors"}
    assert (cited["cff-version"], cited["type"]) == ("1.2.0", "software")
    assert str(cited["version"]) == osdtw_models.__version__
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert cited["license"] == project["license"]
    assert cited["authors"] == [{"name": "The OSDTW developers"}]  # an entity
    (paper,) = cited["references"]
    assert paper.keys() >= {"type", "title", "authors"}
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2605.24969"}]
    template = (ROOT / "model_cards" / "template.md").read_text(encoding="utf-8")
    assert paper["title"] in template
    assert cited["title"] in template
    assert " and ".join(f"{a['given-names']} {a['family-names']}" for a in paper["authors"]) in template
