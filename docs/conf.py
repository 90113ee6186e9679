"""The site: every document of the repository that people read, from its root, so that links between them hold.

sphinx-build -c docs -W -n . build/site      # .ci/docs does it, with MathJax beside it
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "site")]

import crfrnn  # noqa: E402 (this checkout's)

project, author, release, copyright = "crfrnn", "the authors of crfrnn", crfrnn.__version__, "MIT licence"
language = "en"
root_doc = "docs/index"
include_patterns = ["docs/**", "benchmarks/results/*.md", "crfrnn/**/README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
include_patterns += ["SECURITY.md"]
exclude_patterns = ["build", "dist", ".*", "**/__pycache__", "docs/gallery"]
exclude_patterns += ["benchmarks/results/volumes.md"]  # a table that docs/volumes.md has

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "docstrings",
    "links",
    "languages",
]

# Markdown, as GitHub reads it
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["myst.header"]  # tables of results may begin at the second level

# Docstrings
default_role = "autolink"  # `name` is a link where there is such a name
napoleon_numpy_docstring = False
napoleon_use_rtype = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"

nitpick_ignore_regex = [("py:.*", r"(?!crfrnn\.).*")]  # other projects' names: their inventories are elsewhere
nitpick_ignore_regex += [("py:.*", r"crfrnn\..*\.(Predictions|Operator|_\w+)")]  # aliases and bases

# Equations without a network: one file that draws them as SVG
mathjax_path = "mathjax/tex-svg.js"

# Executed examples
sphinx_gallery_conf = {
    "examples_dirs": str(ROOT / "docs/gallery"),
    "gallery_dirs": "docs/examples",
    "filename_pattern": r"plot_\w+\.py$",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "remove_config_comments": True,
    "download_all_examples": False,
    "capture_repr": ("_repr_html_",),
    "show_memory": False,
    "write_computation_times": False,  # its page asks another host for a script
    "show_signature": False,
    "min_reported_time": 3600,
    "plot_gallery": "True",
}

# Pages
html_theme = "furo"
html_title = "crfrnn"
html_static_path = ["site/static"]
html_extra_path = ["site/root"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
html_search_language = "zh"  # splits Chinese into words and stems English ones
