"""Sphinx configuration; `make docs` builds with warnings as errors.

What Sphinx can't read where it lies is written beside these pages first: the glossary of metrics,
the map of equations, and the notebooks, with their links turned from files of the repository into
pages of this site.
"""

import csv
import re
import shutil
import sys
from pathlib import Path

import nbformat
from mdit_py_plugins.anchors.index import slugify

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from minirl.support.metrics import GLOSSARY  # noqa: E402

project = "minirl"
copyright = "2026, the minirl founders"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "off"  # the stored outputs; `make execute` runs them
html_theme = "furo"
html_title = "minirl"
html_static_path = ["_static"]
html_css_files = ["minirl.css"]
mathjax_path = "mathjax/tex-svg.js"  # vendored: maths can be read without a network
exclude_patterns = [
    "_build",
    "reference/equations-list.md",
    "reference/metrics-list.md",
    "results/speed-table.md",
    "results/speed-peers-table.md",
]
autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_use_rtype = False
napoleon_use_param = False
napoleon_use_ivar = True


def write_glossary() -> None:
    entries = [
        f"`{name}`{f' ({metric.unit})' if metric.unit else ''}\n: {metric.meaning}. "
        f"*Healthy:* {metric.healthy}.\n"
        for name, metric in GLOSSARY.items()
    ]
    (HERE / "reference" / "metrics-list.md").write_text("\n".join(entries))


def as_page(text: str) -> str:
    """Markdown of a notebook, with links to docs and source files that this site has."""
    text = re.sub(r"\]\(((?:\.\./)*)\.\./docs/", r"](\1../", text)

    def module(match: re.Match[str]) -> str:
        name = match[2].replace("/", ".").removesuffix(".__init__")
        return f"{{mod}}`{match[1].strip('`')} <{name}>`"

    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(minirl/[\w/]+)\.py\)", module, text)


def fold(cell: nbformat.NotebookNode) -> None:
    """Write on the button of a folded cell what is behind it, and give its figure a text."""
    figures = [o for o in cell.outputs if {"image/png", "image/gif"} & set(o.get("data", {}))]
    options = cell.metadata.setdefault("mystnb", {})
    tags = cell.metadata.get("tags", [])
    if "hide-cell" in tags:
        options["code_prompt_show"] = "Show the code and its output"
        options["code_prompt_hide"] = "Hide the code and its output"
    elif "hide-input" in tags:
        what = "the code of this figure" if figures else "the code"
        options["code_prompt_show"], options["code_prompt_hide"] = f"Show {what}", f"Hide {what}"
    if figures:
        titles = re.findall(r"""title[(=]\s*f?(["'])(.+?)\1""", cell.source)
        words = [
            re.sub(r"\\n", " ", title).strip(" .,;") for _, title in titles if "{" not in title
        ]
        text = ". ".join(["Figure", *words]).replace("$", "").replace("\\", "")
        options.setdefault("image", {}).setdefault("alt", text)


def copy_notebooks() -> None:
    source, target = HERE.parent / "notebooks", HERE / "notebooks"
    shutil.rmtree(target, ignore_errors=True)
    for path in sorted(source.rglob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = as_page(cell.source)
            else:
                fold(cell)
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, copy)


def section_link(section: str) -> str:
    """A link to the section of a notebook that is numbered like 3.4."""
    [notebook] = (HERE / "notebooks").glob(f"{int(section.split('.')[0]):02}_*.ipynb")
    for cell in nbformat.read(notebook, as_version=4).cells:
        heading = re.search(rf"^## ({re.escape(section)} .*)", cell.source, re.M)
        if cell.cell_type == "markdown" and heading:
            words = re.sub(r"\$[^$]*\$|`", "", heading[1])  # anchors leave formulas out
            return f"[{section}](../notebooks/{notebook.name}#{slugify(words)})"
    raise ValueError(f"equations.csv: {notebook.name} has no section {section}")


def write_equations() -> None:
    """equations.csv as a list under the titles of the notebooks."""
    lines, current = [], ""
    with (HERE / "equations.csv").open(newline="") as file:
        for row in csv.DictReader(file, delimiter=";"):
            number = row["section"].split(".")[0]
            if number != current:
                lines.append(f"## Notebook {number}\n")
                current = number
            equation = row["equation"] if "$" in row["equation"] else f"${row['equation']}$"
            tests, name = row["test"].split("::")
            lines.append(
                f"{row['name']}, {section_link(row['section'])}\n: {equation}\n\n"
                f"  {{py:obj}}`{row['function']}`\n\n  `{name}` in `{tests}`\n"
            )
    (HERE / "reference" / "equations-list.md").write_text("\n".join(lines))


write_glossary()
copy_notebooks()
write_equations()
