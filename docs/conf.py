"""How the site is built: `make docs`, offline, every warning an error."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "extensions"), str(HERE.parent)]

import jaxcnnbp  # noqa: E402  from this source tree

project = "jaxcnnbp"
author = "the jaxcnnbp authors"
copyright = author  # noqa: A001  Sphinx calls it so
release = version = jaxcnnbp.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "docstrings",
    "formulas",
    "benchmarks",
    "migration",
    "commands",
    "pages",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False
default_role = "literal"

myst_enable_extensions = ["colon_fence", "dollarmath", "fieldlist"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "count, index"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Source", "Reference"]

html_theme = "furo"
html_title = f"jaxcnnbp {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
# A page opened as a file may not fetch others, so a summary of what was found could not be shown there.
html_show_search_summary = False
html_math_renderer = "mathml"
