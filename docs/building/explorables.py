"""The directive `{explorable} NAME`: a figure with controls from `docs/explorables/NAME.js`.

`docs/explorables/NAME.py` has what belongs to it in Python:

- `TITLE`, `CAPTION` (Markdown) and `FUNCTIONS`, the dotted names of the equations' functions,
- `SECTIONS`, the sections of notebooks that contain the figure, such as `("3.5",)`,
- `data()`, the second argument of `compute`, or None,
- `CASES` and `numbers(values)`: minirl's numbers, with which the tests compare those of `compute`.

If there is a table `docs/explorables/NAME.zh.json`, the figure is in Chinese on Chinese pages. The
keys of the table are the English sentences, with `{0}`, `{1}`, ... for what changes, and its values
are the Chinese ones. `explorable.zh.json` is the table of the frame.
"""

import html
import json
import re
import runpy
import shutil
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import nbformat
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from building.chinese import is_chinese

DOCS = Path(__file__).parents[1]
SOURCE, TARGET = DOCS / "explorables", DOCS / "_static" / "explorables"


@cache
def load(name: str) -> SimpleNamespace:
    """The Python half of an explorable."""
    return SimpleNamespace(**runpy.run_path(str(SOURCE / f"{name}.py")))


def names() -> list[str]:
    return sorted(path.stem for path in SOURCE.glob("*.py"))


def data_script(name: str) -> str:
    """JavaScript that stores the data of an explorable; a script also loads from a file:// page."""
    return f"explorables.data[{json.dumps(name)}] = {json.dumps(load(name).data())};\n"


def table(file: str) -> dict[str, str]:
    path = SOURCE / f"{file}.zh.json"
    return json.loads(path.read_text()) if path.exists() else {}


def chinese(name: str) -> dict[str, str]:
    """English sentences of an explorable and their Chinese translation; empty without a table."""
    return {**table("explorable"), **table(name)} if table(name) else {}


def words_script(name: str) -> str:
    """JavaScript that stores the Chinese sentences of an explorable."""
    return f"Object.assign(explorables.words, {json.dumps(chinese(name), ensure_ascii=False)});\n"


def write_scripts() -> None:
    shutil.rmtree(TARGET, ignore_errors=True)
    TARGET.mkdir(parents=True)
    for path in [*SOURCE.glob("*.js"), SOURCE / "explorable.css"]:
        shutil.copy(path, TARGET)
    for name in names():
        (TARGET / f"{name}-data.js").write_text(data_script(name))
        if chinese(name):
            (TARGET / f"{name}-zh.js").write_text(words_script(name))


def insert(notebook: nbformat.NotebookNode) -> None:
    """Put the explorables of a notebook's sections below the first cell of each section."""
    for name in names():
        for section in load(name).SECTIONS:
            heading = re.compile(rf"^## {re.escape(section)} ", re.M)
            for index, cell in enumerate(notebook.cells):
                if cell.cell_type == "markdown" and heading.search(cell.source):
                    directive = f"```{{explorable}} {name}\n```"
                    notebook.cells.insert(index + 1, nbformat.v4.new_markdown_cell(directive))
                    break


class Explorable(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        if name not in names():
            raise self.error(f"no explorable is called {name!r}; there are {', '.join(names())}")
        if self.env.app.builder.name != "html":
            return []  # an e-book has no figures that can be operated
        page = self.env.temp_data.setdefault("explorables", [])
        if name in page:
            raise self.error(f"the explorable {name!r} is twice on this page")
        module = load(name)
        words = chinese(name) if is_chinese(self.env.docname) else {}

        def say(sentence: str) -> str:
            return words.get(sentence, sentence)

        caption, _ = self.state.inline_text(say(module.CAPTION), self.lineno)
        links: list[nodes.Node] = []
        for number, function in enumerate(module.FUNCTIONS):
            label = say("Show me the equation") if number == 0 else function.rsplit(".")[-1]
            link = addnodes.pending_xref(
                "", nodes.Text(label), refdomain="py", reftype="obj", reftarget=function
            )
            link["refwarn"] = True
            links += [nodes.Text(", " if number else " "), link]
        text = nodes.paragraph("", "", *caption, *links)
        top = "../" * self.env.docname.count("/") + "_static/explorables"
        own = [f"{name}-zh"] * bool(words) + [f"{name}-data", name]
        frame = [] if page else ["pen", "text", "explorable"]
        scripts = [f'<script defer src="{top}/{each}.js"></script>' for each in frame + own]
        if not page:
            scripts.insert(0, f'<link rel="stylesheet" href="{top}/explorable.css">')
        page.append(name)
        language = f' lang="{"zh" if words else "en"}"' if is_chinese(self.env.docname) else ""
        begin = (
            f'<figure class="explorable" id="explorable-{name}" role="group"{language}'
            f' aria-label="{html.escape(say(module.TITLE))}">'
            f"<p><strong>{html.escape(say(module.TITLE))}</strong></p>"
            '<div class="explorable-controls"></div>'
            '<div><canvas aria-hidden="true"></canvas></div>'
            '<p class="explorable-text"></p>'
            '<p class="explorable-spoken" aria-live="polite"></p>'
            f"<noscript>{say('This figure needs JavaScript.')}</noscript><figcaption>"
        )
        return [
            nodes.raw("", begin, format="html"),
            text,
            nodes.raw("", "</figcaption></figure>" + "".join(scripts), format="html"),
        ]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("explorable", Explorable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
