"""How Sphinx builds these pages. Nothing is fetched while building."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import wse_tornado  # noqa: E402 - from the tree that the pages belong to

project = "wse_tornado"
author = "the authors of wse_tornado"
release = version = wse_tornado.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"wse_tornado {release}"
html_copy_source = False
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["tables.css"]

# In docstrings `name` is a reference where there is something of that name, else plain code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# `Connection` in an annotation is that of its own flavour; Sphinx sees two of the name.
suppress_warnings = ["ref.python"]

myst_heading_anchors = 3
