"""The site: `make docs` builds it from the pages where they lie, `docs/index.md` is its first.

The whole repository is the source folder, so that a link from `docs/` to a notebook or to an
experiment's page leads to the same place in a checkout and on the site. Nothing is fetched.
"""

import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[2])]

from xlens import __version__ as version  # noqa: E402

project = "xlens"
author = "The xlens authors"
copyright = author
release = version

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
    "reference",
    "pictures",
    "gallery",
]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "docs/recipes/*.md",
    "docs/reference/*",
    "docs/images/*",
    "notebooks/*.ipynb",
    "experiments/*/README.md",
    "benchmarks/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
# Folders that hold no page: without them every file of the environment is looked at.
exclude_patterns = [".*", "build", "dist", "runs", "tests", "xlens", "atlas-run", "docs/site"]

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline", "attrs_block", "colon_fence"]
nb_execution_mode = "off"  # outputs are those of the tracked files; the tests run the cells
default_role = "code"  # docstrings say `name`, as Markdown does

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Links into other projects' pages need their inventories: `XLENS_DOCS_ONLINE=1 make docs`.
_ELSEWHERE = {
    "python": "https://docs.python.org/3/",
    "numpy": "https://numpy.org/doc/stable/",
    "pandas": "https://pandas.pydata.org/docs/",
    "torch": "https://docs.pytorch.org/docs/stable/",
    "sklearn": "https://scikit-learn.org/stable/",
}
if os.environ.get("XLENS_DOCS_ONLINE"):
    intersphinx_mapping = {name: (address, None) for name, address in _ELSEWHERE.items()}

html_theme = "furo"
html_title = f"xlens {version}"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
templates_path = ["templates"]
html_static_path = ["static"]
html_css_files = ["xlens.css"]
html_additional_pages = {"index": "redirect.html"}
