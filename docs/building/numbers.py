"""Numbers of figures and equations: "Figure 3.2" and "(Eq. 3.2)" in notebook 3.

Elsewhere they have no chapter: "Figure 2". On every page they begin with 1.

A figure is an output of a notebook with a caption, or on a page an image in a paragraph of its own
that is followed by a paragraph in italics, its caption. Every displayed equation has a number. It
is written with "Eq.", because "(3.2)" means a section here, and "(9)" an equation of a paper.
"""

import re
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

from building.chinese import is_chinese


def prefixes(docname: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The word before a number of this page, and what is put before the dot."""
    words = {"figure": "Figure", "displaymath": "Eq."}
    if is_chinese(docname):
        words = {"figure": "图", "displaymath": "式"}
    notebook = re.match(r"notebooks/(solutions/)?(?:zh/)?(\d\d)_", docname)
    if not notebook:
        return words, ()
    return words, (("S" if notebook[1] else "") + str(int(notebook[2])),)


class Captions(SphinxTransform):
    """Make figures of images with captions in italics, and mark equations as numbered."""

    default_priority = 200  # before Sphinx gives the figures their identifiers

    def apply(self) -> None:
        for paragraph in list(self.document.findall(nodes.paragraph)):
            if len(paragraph) == 1 and isinstance(paragraph[0], nodes.image):
                self.make_figure(paragraph)
        for number, equation in enumerate(self.document.findall(nodes.math_block), start=1):
            if not equation.get("number") and not self.env.docname.startswith("reference/api/"):
                equation["number"] = number
                equation["ids"].append(f"equation-{number}")
        if is_chinese(self.env.docname):  # its figures are those of the English notebook: one label
            for figure in self.document.findall(nodes.figure):
                for name in figure["names"]:
                    del self.document.nameids[name], self.document.nametypes[name]
                figure["names"] = []

    def make_figure(self, paragraph: nodes.paragraph) -> None:
        caption = paragraph.next_node(descend=False, siblings=True)
        if (
            isinstance(caption, nodes.paragraph)
            and len(caption) == 1
            and isinstance(caption[0], nodes.emphasis)
        ):
            text = nodes.caption(caption.rawsource, "", *caption[0].children)
            figure = nodes.figure("", paragraph[0], text)
            figure.source, figure.line = paragraph.source, paragraph.line
            paragraph.replace_self(figure)
            caption.parent.remove(caption)


class Wrappers(SphinxPostTransform):
    """Give each identifier to one element, and put the figures of notebooks into wrappers.

    Furo copies the identifiers of tables and formulas to the elements around them. On phones, the
    wrapper of a figure scrolls sideways and its caption does not.
    """

    formats = ("html",)
    default_priority = 600  # after Furo

    def run(self, **kwargs: Any) -> None:
        for container in list(self.document.findall(nodes.container)):
            if {"math-wrapper", "table-wrapper"} & set(container["classes"]):
                container["ids"] = []
            elif "cell_output" in container["classes"]:
                for figure in container.findall(nodes.figure):
                    image = figure[0]
                    wrapper = nodes.container(classes=["wide-image"])
                    figure.replace(image, wrapper)
                    wrapper.append(image)


def number_by_page(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Begin with 1 on every page. Sphinx itself counts through all pages."""
    for docname, kinds in env.toc_fignumbers.items():
        words, front = prefixes(docname)
        for kind, numbers in kinds.items():
            for count, identifier in enumerate(numbers, start=1):
                first, *rest = (*front, str(count))
                numbers[identifier] = (f"{words[kind]} {first}" if kind in words else first, *rest)
    return []


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Captions)
    app.add_post_transform(Wrappers)
    app.connect("env-get-updated", number_by_page, priority=900)  # after Sphinx has counted
    return {"parallel_read_safe": True, "parallel_write_safe": True}
