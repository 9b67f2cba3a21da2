"""Settings of Sphinx. The source folder is the repository, so that its Markdown files link to each other as they lie.

``make docs`` builds ``build/site``; what is special about it stands in ``docs/site``.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "site")]

project = "qas"
copyright = "the quantum-architecture-search developers, Apache-2.0"
html_title = "qas"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "expansion", "formulas", "notebooks"]
root_doc = "docs/index"
include_patterns = [
    "docs/**.md", "results/**.md", "benchmarks/README.md", "examples/*.ipynb", "examples/plugin/README.md",
    "CHANGELOG.md", "CONTRIBUTING.md",
]  # fmt: skip
exclude_patterns = [".*", "build", "pools", "**/node_modules"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
highlight_language = "bash"
default_role = "py:obj"
suppress_warnings = [
    "toc.not_included",  # tables of results are reached from their lists; the tests look after docs/
    "ref.python",  # a plain name in a docstring, `angles`, may be that of several things, and then is no link
]
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 90
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False

html_math_renderer = "mathml"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_js_files = ["sort.js"]
html_additional_pages = {"index": "front.html"}
html_copy_source = False
html_show_sphinx = False
templates_path = ["templates"]
pygments_style = "friendly"
pygments_dark_style = "github-dark"
