"""How the documentation is built: ``make docs``, into build/site, offline, warnings are errors.

Sphinx with MyST and furo: maintained, reads the Markdown of this folder as it is and google-style docstrings, and the
pages load nothing from the network.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # command_help

import osdtw_models

project = "OSDTW"
author = "The OSDTW developers"
version = release = osdtw_models.__version__
copyright = f"{author}, Apache-2.0"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "command_help"]
exclude_patterns = ["images"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"

html_theme = "furo"
html_title = f"OSDTW {version}"
html_copy_source = False
html_show_sphinx = False
