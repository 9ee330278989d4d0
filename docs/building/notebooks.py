"""Copies the notebooks beside the pages: links lead to pages of the site, figures have a text."""

import re
import shutil
from pathlib import Path

import nbformat

from building import explorables
from building.chinese import rows

DOCS = Path(__file__).parents[1]
SOURCE, TARGET = DOCS.parent / "notebooks", DOCS / "notebooks"


def as_page(text: str) -> str:
    """Markdown of a notebook, with links to docs and source files that this site has."""
    text = re.sub(r"\]\(((?:\.\./)*)\.\./docs/", r"](\1../", text)

    def module(match: re.Match[str]) -> str:
        name = match[2].replace("/", ".").removesuffix(".__init__")
        return f"{{mod}}`{match[1].strip('`')} <{name}>`"

    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(minirl/[\w/]+)\.py\)", module, text)


def figure_texts() -> dict[str, dict[str, str]]:
    """Caption and alternative text of each figure, by the identifier of its cell."""
    return {row["cell"]: row for row in rows(DOCS / "figures.csv")}


def fold(cell: nbformat.NotebookNode, captions: dict[str, dict[str, str]]) -> None:
    """Write on the button of a folded cell what is behind it; caption its figure."""
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
        row = captions[cell.id]
        options["figure"] = {"caption": row["caption"], "name": f"figure-{cell.id}"}
        options.setdefault("image", {})["alt"] = row["alt"]


def copy_notebooks() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    captions = figure_texts()
    for path in sorted(SOURCE.rglob("[0-9]*.ipynb")):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = as_page(cell.source)
            else:
                fold(cell, captions)
        explorables.insert(notebook)
        copy = TARGET / path.relative_to(SOURCE)
        copy.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, copy)
