"""The glossary, and a tooltip with the definition where a section first uses one of its terms.

The names of metrics have tooltips, too.

`docs/glossary.csv` has one row per term: other forms of the word, whether pages explain it in a
tooltip, the definition, the symbol, the section that introduces it, and its function. Words with
several meanings, such as "value" and "return", have no tooltip.
"""

import re

from docutils import nodes
from sphinx.application import Sphinx

from building.chinese import is_chinese, rows
from building.lists import DOCS, section_link
from minirl.support.metrics import GLOSSARY

UNTOUCHED = (  # words here are no running text
    nodes.title,
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.math,
    nodes.math_block,
    nodes.raw,
    nodes.caption,
    nodes.thead,
)
WITHOUT_TOOLTIPS = (
    "gallery",
    "reference/glossary",
    "reference/metrics",
    "reference/api",
    "reference/equations",
    "search",
)


METRICS = {  # the two names that are left out also mean arguments
    name: metric.meaning for name, metric in GLOSSARY.items() if name not in ("epochs", "episodes")
}


def entries() -> list[dict[str, str]]:
    return rows(DOCS / "glossary.csv")


def forms(entry: dict[str, str]) -> list[str]:
    """All forms of a term, without the plurals that only add an s."""
    return [entry["term"], *filter(None, entry["also"].split("|"))]


def pattern(form: str) -> str:
    """An expression for a form, which may begin a sentence but not belong to a name in capitals."""
    if form == form.lower():
        form = rf"(?:(?<![a-zA-Z,]\s){form[0].upper()}|{form[0]}){form[1:]}"
    return form.replace(" ", r"\s+") + "s?"


def write_glossary() -> None:
    lines = ["```{glossary}"]
    for entry in entries():
        facts = [f"${entry['symbol']}$"] if entry["symbol"] else []
        if entry["section"]:
            facts.append(section_link(entry["section"]))
        if entry["function"]:
            facts.append(f"{{py:obj}}`{entry['function']}`")
        lines += [entry["term"], f"  {entry['definition']}", "", f"  {', '.join(facts)}", ""]
    lines += ["```", "", "## Metrics", ""]
    for name, metric in GLOSSARY.items():
        unit = f" ({metric.unit})" if metric.unit else ""
        lines += [f"`{name}`{unit}", f": {metric.meaning}.", ""]
    (DOCS / "reference" / "glossary-list.md").write_text("\n".join(lines))


def term_link(content: nodes.Node, address: str, definition: str) -> nodes.reference:
    link = nodes.reference("", "", content, internal=True, classes=["term"], refuri=address)
    link["reftitle"] = definition
    return link


class Terms:
    """Finds terms in text, and makes links to their definitions."""

    def __init__(self) -> None:
        self.by_form = {form.lower(): entry for entry in entries() for form in forms(entry)}
        known = sorted(self.by_form, key=len, reverse=True)  # "policy gradient" before "policy"
        spelling = {form.lower(): form for entry in entries() for form in forms(entry)}
        alternatives = "|".join(pattern(spelling[form]) for form in known)
        self.expression = re.compile(rf"(?<![\w-])(?:{alternatives})(?![\w-])")

    def entry(self, words: str) -> dict[str, str]:
        words = re.sub(r"\s+", " ", words.lower())
        return self.by_form[words if words in self.by_form else words.removesuffix("s")]

    def with_links(self, text: str, seen: set[str], addresses: dict[str, str]) -> list[nodes.Node]:
        """The text in pieces, in which terms that were not seen before are links."""
        pieces: list[nodes.Node] = []
        end = 0
        for match in self.expression.finditer(text):
            entry = self.entry(match[0])
            if entry["term"] in seen or entry["hover"] != "yes":
                continue
            seen.add(entry["term"])
            word = nodes.Text(match[0])
            link = term_link(word, addresses[entry["term"]], entry["definition"])
            pieces += [nodes.Text(text[end : match.start()]), link]
            end = match.end()
        return [*pieces, nodes.Text(text[end:])]


def is_untouched(node: nodes.Node) -> bool:
    """Whether words below this node are no running text, or are covered by the link of a card."""
    return isinstance(node, UNTOUCHED) or "notebook-cards" in node.get("classes", [])


def name_metrics(app: Sphinx, doctree: nodes.document) -> None:
    """Give every metric on the page of metrics an anchor."""
    if app.env.docname == "reference/metrics":
        for term in doctree.findall(nodes.term):
            term["ids"].append(f"metric-{term[0].astext()}")


def add_tooltips(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    skipped = is_chinese(docname) or docname.startswith(WITHOUT_TOOLTIPS)
    if app.builder.name != "html" or skipped:
        return
    terms = Terms()
    addresses = {
        name: f"{app.builder.get_relative_uri(docname, page)}#{anchor}"
        for (kind, name), (page, anchor) in app.env.domains.standard_domain.objects.items()
        if kind == "term"
    }
    metrics = app.builder.get_relative_uri(docname, "reference/metrics")
    seen: dict[str, set[str]] = {}
    for text in list(doctree.findall(nodes.Text)):
        name = str(text) if isinstance(text.parent, nodes.literal) else ""
        old = text.parent if name in METRICS else text
        above, node = [], old.parent
        while node is not None:
            above.append(node)
            node = node.parent
        sections = [node for node in above if isinstance(node, nodes.section)]
        paragraph = any(isinstance(node, nodes.paragraph) for node in above)
        if paragraph and sections and not any(map(is_untouched, above)):
            section = sections[-2] if len(sections) > 1 else sections[-1]  # below the title
            known = seen.setdefault(section["ids"][0], set())
            if old is text:
                pieces = terms.with_links(text, known, addresses)
                if len(pieces) > 1:
                    text.parent.replace(text, pieces)
            elif f"`{name}`" not in known:  # "entropy" is a term as well
                known.add(f"`{name}`")
                link = term_link(old.deepcopy(), f"{metrics}#metric-{name}", METRICS[name])
                old.parent.replace(old, link)


def setup(app: Sphinx) -> dict[str, bool]:
    texts = (entries(), METRICS)
    app.add_config_value("glossary_terms", texts, "html")  # a change writes all pages again
    app.connect("doctree-read", name_metrics)
    app.connect("doctree-resolved", add_tooltips, priority=900)
    app.add_js_file("terms.js", loading_method="defer")
    return {"parallel_read_safe": True, "parallel_write_safe": True}
