"""The e-book: no search page and no buttons, and what readers of EPUB 3 require."""

import re
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from building.search import formula


def leave_out_search(app: Sphinx) -> None:
    """The reader's program searches."""
    app.config.html_additional_pages = {}


def type_formulas(app: Sphinx, env: BuildEnvironment) -> None:
    """Write formulas in the table of contents, which is plain text, as one would type them."""
    for tree in [*env.tocs.values(), *env.titles.values()]:
        for node in list(tree.findall(nodes.math)):
            node.parent.replace(node, nodes.Text(formula(node.astext())))


def remove_buttons(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """The book contains neither JupyterLite nor the downloads."""
    for node in list(doctree.findall(nodes.raw)):
        if "notebook-links" in node.astext():
            node.parent.remove(node)


def mark_formulas(app: Sphinx, error: Exception | None) -> None:
    """Say in the list of files which pages contain MathML, and pack the book again."""
    if error is not None:
        return

    def mark(match: re.Match[str]) -> str:
        has_formula = "<math" in Path(app.outdir, match[1]).read_text()
        return match[0] + (' properties="mathml"' if has_formula else "")

    path = Path(app.outdir, "content.opf")
    expression = r'href="([^"]+)" media-type="application/xhtml\+xml"(?! properties)'
    path.write_text(re.sub(expression, mark, path.read_text()))
    app.builder.build_epub()


def connect(app: Sphinx) -> None:
    if app.builder.name == "epub":
        leave_out_search(app)
        app.connect("env-updated", type_formulas)
        app.connect("doctree-resolved", remove_buttons)
        app.connect("build-finished", mark_formulas)


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", connect)
    return {"parallel_read_safe": True}
