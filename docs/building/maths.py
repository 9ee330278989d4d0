"""KaTeX typesets the formulas while the site is built: readers load no script for them.

A formula that KaTeX cannot read is a warning, and `make docs` treats warnings as errors. The e-book
contains MathML only, which readers of EPUB 3 typeset themselves.
"""

import atexit
import functools
from pathlib import Path
from typing import Any

from docutils import nodes
from py_mini_racer import JSEvalException, MiniRacer
from sphinx.application import Sphinx
from sphinx.locale import _
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

LOGGER = logging.getLogger(__name__)


@functools.cache
def engine() -> MiniRacer:
    javascript = MiniRacer()
    atexit.register(javascript.close)  # Python would not end while its thread runs
    javascript.eval((Path(__file__).parent / "katex" / "katex.min.js").read_text())
    return javascript


@functools.cache
def typeset(formula: str, display: bool, output: str) -> str:
    options = {"displayMode": display, "output": output, "strict": False, "throwOnError": True}
    return engine().call("katex.renderToString", formula, options)


def html(translator: Any, node: nodes.Element, formula: str, display: bool) -> str:
    output = "mathml" if translator.builder.name == "epub" else "htmlAndMathml"
    try:
        return typeset(formula, display, output)
    except JSEvalException as error:
        reason = str(error).partition("ParseError: ")[2].partition("\n")[0]
        LOGGER.warning("KaTeX cannot read the formula %s: %s", formula, reason, location=node)
        return translator.encode(formula)


def visit_inline(translator: Any, node: nodes.math) -> None:
    translator.body += [
        translator.starttag(node, "span", "", CLASS="math notranslate nohighlight"),
        html(translator, node, node.astext(), display=False),
        "</span>",
    ]
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    translator.body.append(translator.starttag(node, "div", CLASS="math notranslate nohighlight"))
    if node.get("number"):
        translator.body.append(f'<span class="eqno">({get_node_equation_number(translator, node)})')
        translator.add_permalink_ref(node, _("Link to this equation"))
        translator.body.append("</span>")
    formula = node.astext()
    if r"\\" in formula and not formula.lstrip().startswith(r"\begin"):
        formula = rf"\begin{{split}}{formula}\end{{split}}"
    translator.body += [html(translator, node, formula, display=True), "</div>\n"]
    raise nodes.SkipNode


def link_style(app: Sphinx, page: str, template: str, context: dict[str, Any], tree: Any) -> None:
    if context.get("has_maths_elements"):
        app.add_css_file("katex/katex.min.css")


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_block, None))
    app.connect("html-page-context", link_style)
    return {"parallel_read_safe": True}
