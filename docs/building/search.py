"""The search of the site: every section of every page is a result of its own.

After a build, `sections.js` holds the sections with their texts. `search.html` alone loads it, and
the library MiniSearch ranks them in the browser. Both are scripts, so that the search also works on
pages that are opened as files. Sphinx's own index is left out: its results are whole pages, and
it does not find Chinese words of two characters.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx

from building.glossary import entries, forms

BLOCKS = (
    nodes.paragraph,
    nodes.literal_block,
    nodes.entry,
    nodes.term,
    nodes.caption,
    nodes.field_name,
)
UNREAD = (
    nodes.title,
    nodes.raw,
    nodes.comment,
    nodes.image,
    addnodes.toctree,
    addnodes.index,
    addnodes.desc_signature,
)


def fraction(match: re.Match[str]) -> str:
    """A fraction in one line, such as `1/(2 epsilon)`."""
    parts = (part.strip("{} ") for part in match.groups())
    return "/".join(p if re.fullmatch(r"\\?\w+", p) else f"({p})" for p in parts)


def formula(latex: str) -> str:
    """A formula as one would type it: `pi_old` for `\\pi_{\\text{old}}`."""
    for expression, replacement in [
        (r"\\(?:begin|end)\{\w+\*?\}|\\(?:left|right|[bB]igg?[lmr]?|\w+style)\b|&", ""),
        (r"\\(?:q?quad\b|[,;:!> \\])|~", " "),  # space, and the end of a line
        (r"\\mid\b", "|"),
        (r"\\(?:text|math|operatorname)[a-z]*\*?\s*\{([^{}]*)\}", r"\1"),
        (r"\\(?:text|math)[a-z]*\s", ""),
        (r"([_^])\{(\\?\w*)\}", r"\1\2"),
        (r"([_^])\{([^{}]*)\}", r"\1(\2)"),
        (r"\\[dt]?frac\s*(\w|\{[^{}]*\})\s*(\w|\{[^{}]*\})", fraction),
        (r"(?<=[^\W_])\\(?=[a-zA-Z])", " "),  # `log pi` for `\log\pi`
        (r"[\\{}$]", ""),
    ]:
        latex = re.sub(expression, replacement, latex)
    return " ".join(latex.split())


def words(node: nodes.Node) -> Iterator[str]:
    """The text of a node, without that of the sections, functions and glossary terms in it."""
    if isinstance(node, nodes.Text):
        yield node.astext()
    elif isinstance(node, nodes.math):
        yield formula(node.astext())
    elif isinstance(node, nodes.math_block):
        yield f" {formula(node.astext())} "
    elif isinstance(node, nodes.Element) and "cell_output" in node.get("classes", []):
        for caption in node.findall(nodes.caption):  # of a figure; print-outs are left out
            yield caption.astext() + " "
    elif not isinstance(node, (*UNREAD, nodes.section, addnodes.desc, addnodes.glossary)):
        for child in node.children:
            yield from words(child)
        if isinstance(node, BLOCKS):
            yield " "


def title_of(node: nodes.Node) -> str:
    """The text of a title, with its formulas as one would type them."""
    return "".join(word for child in node.children for word in words(child))


def sections(doctree: nodes.document) -> Iterator[tuple[str, str, str]]:
    """Title, anchor and text of each section, function, class and term of the glossary."""
    for glossary in doctree.findall(addnodes.glossary):
        also = {entry["term"]: ", ".join(forms(entry)[1:]) for entry in entries()}
        for item in glossary.findall(nodes.definition_list_item):
            term, definition = item.children
            text = " ".join("".join(words(definition)).split())
            others = also[term.astext()]
            yield term.astext(), term["ids"][0], f"Also: {others}. {text}" if others else text
    for node in doctree.findall(lambda n: isinstance(n, nodes.section | addnodes.desc)):
        if isinstance(node, nodes.section):
            title, anchor, content = title_of(node[0]), node["ids"][0], node.children
        else:
            signature = node[0]
            if not signature["ids"]:
                continue
            anchor = signature["ids"][0]
            title, content = anchor.removeprefix("minirl."), node.children
        text = "".join(word for child in content for word in words(child))
        yield title, anchor, " ".join(text.split())


def write_sections(app: Sphinx, exception: Exception | None) -> None:
    if exception or app.builder.name != "html":
        return
    pages, rows = [], []
    for docname in sorted(app.env.found_docs - {"gallery"}):  # its captions are those of others
        title = title_of(app.env.titles[docname])
        pages.append([app.builder.get_target_uri(docname), title])
        for section, anchor, text in sections(app.env.get_doctree(docname)):
            rows.append([len(pages) - 1, section, anchor, text])
    data = json.dumps({"pages": pages, "sections": rows}, ensure_ascii=False)
    (Path(app.outdir) / "sections.js").write_text(f"const SITE = {data};\n")


def without_the_index_of_sphinx(app: Sphinx) -> None:
    if app.builder.name == "html":
        app.builder.search = False


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", without_the_index_of_sphinx)
    app.connect("build-finished", write_sections)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
