"""Sphinx configuration; `make docs` builds with warnings as errors.

Sphinx reads Markdown and notebooks below this folder. `building/` writes there first what is made
from other files: the glossary of metrics, the map of equations, and the notebooks.
"""

import sys
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

from building import (  # noqa: E402
    api,
    cards,
    chinese,
    explorables,
    gallery,
    glossary,
    lists,
    lite,
    notebooks,
)

project = "minirl"
version = release = metadata.version("minirl-numpy")
author = "The minirl founders"
copyright = "2026, the minirl founders"
extensions = [
    "building.api",
    "building.book",
    "building.explorables",
    "building.glossary",
    "building.maths",  # formulas are typeset by KaTeX at build time
    "building.numbers",
    "building.search",
    "building.site",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
    "building.chinese",  # lang="zh" on the Chinese pages
    "building.lite",  # the notebooks in the browser, and as downloads
]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the stored outputs; `make execute` runs them
numfig = True  # building/numbers.py: the numbers bring their words, such as "Figure 3.2"
numfig_format = dict.fromkeys(["figure", "table", "code-block"], "%s")
math_eqref_format = "{number}"
html_theme = "furo"
html_title = "minirl"
html_favicon = "_static/favicon.svg"
html_static_path = ["_static"]
templates_path = ["_templates"]
html_additional_pages = {"search": "search.html"}
html_css_files = ["minirl.css", "reference.css", "notebooks.css", "site.css", "gallery.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "katex"
suppress_warnings = ["epub.unknown_project_files"]  # fonts and licences, which the e-book omits
epub_css_files = ["book.css"]
epub_description = "A textbook of reinforcement learning and RLHF in pure NumPy"
epub_tocscope, epub_tocdepth = "includehidden", 2
epub_identifier = epub_uid = f"minirl-{version}"
epub_scheme = "ID"
exclude_patterns = [
    "_build",
    "notebooks/cards.md",
    "notebooks/gallery.md",
    "notebooks/list.zh.md",
    "reference/api-list.md",
    "reference/equations-list.md",
    "reference/glossary-list.md",
    "reference/metrics-list.md",
    "results/speed-table.md",
    "results/speed-peers-table.md",
]
copybutton_selector = ":not(.output) > div.highlight > pre"
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
default_role = "py:obj"  # of names in single backticks in docstrings
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True

api.write_api()
explorables.write_scripts()
lists.write_metrics()
notebooks.copy_notebooks()
cards.write_cards()
gallery.write_gallery()
chinese.copy_chinese()
lite.add_buttons()
lists.write_equations()
glossary.write_glossary()
