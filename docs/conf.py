"""Sphinx configuration; `make docs` builds with warnings as errors."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from minirl.metrics import GLOSSARY  # noqa: E402

project = "minirl"
copyright = "2026, the minirl founders"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = "minirl"
exclude_patterns = ["_build", "speed-table.md", "metrics-list.md"]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True

entries = [
    f"`{name}`{f' ({metric.unit})' if metric.unit else ''}\n: {metric.meaning}. "
    f"*Healthy:* {metric.healthy}.\n"
    for name, metric in GLOSSARY.items()
]
(HERE / "metrics-list.md").write_text("\n".join(entries))
