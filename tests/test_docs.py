"""The documentation builds without a warning and without the network, and holds every command as it is."""

import os
import re
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages; a proxy that nobody serves makes every look at the network an error."""
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", out / "doctrees", ROOT / "docs", out]
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {path.stem: path.read_text(encoding="utf-8") for path in out.glob("*.html")}


def test_every_page_is_built(site):
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= site.keys()


def test_pages_load_nothing_from_elsewhere(site):
    for name, page in site.items():
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]*\ssrc=\"([^\"]*)", page)
        loaded += re.findall(r"<link[^>]*\shref=\"([^\"]*)", page)
        assert loaded, name
        assert not [link for link in loaded if re.match(r"(https?:)?//", link)], name


def test_every_command_has_a_section_with_its_help(site):
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    page = site["commands"]
    for command in scripts:
        section = page.partition(f'<section id="{command}"')[2].partition("</section>")[0]
        said = unescape(re.sub(r"<[^>]+>", "", section))
        assert "--help" in said, command
        assert command in said.partition("usage: ")[2].splitlines()[0], command
    assert "--warmup.epochs" in page


def test_names_of_the_packages_have_their_docstrings(site):
    called = {"osdtw_models": "Predictor", "osdtw_training": "train", "osdtw_export": "OnnxClassifier"}
    for package, member in called.items():
        assert re.search(rf'<dt [^>]*id="{package}[.\w]*\.?{member}"', site["api"]), member
