"""A page with the extensions of `docs/building`, built in a moment: cards, formulas, figures."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup

ROOT = Path(__file__).parents[2]
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
CONFIGURATION = """
extensions = ["myst_nb", "sphinx_design", "building.glossary", "building.maths"]
extensions += ["building.numbers", "building.search"]
html_theme, html_math_renderer, nb_execution_mode = "furo", "katex", "off"
myst_enable_extensions = ["colon_fence", "dollarmath"]
numfig = True
numfig_format = {"figure": "%s"}
"""
TEXT = """# Page

OpenAI Baselines is a library. A baseline helps.

::::{grid} 1
:class-container: notebook-cards
:::{grid-item-card} Card
:link: index
:link-type: doc

A rollout and an advantage.
:::
::::

## Equations

It follows that

$$
\\bigl(\\log\\pi_{\\text{old}}\\bigr)\\,\\frac{1}{2}
$$
is small.

| a | b |
|---|---|
| 1 | 2 |

```{glossary}
baseline
  A number.
rollout
  Steps.
advantage
  A difference.
```
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The parsed page, and its rows in the index of the search."""
    folder = tmp_path_factory.mktemp("small")
    picture = nbformat.v4.new_output("display_data", {"image/png": DOT})
    cell = nbformat.v4.new_code_cell("draw()", outputs=[picture])
    cell.metadata["mystnb"] = {"figure": {"caption": "A caption", "name": "figure-1"}}
    cells = [nbformat.v4.new_markdown_cell(TEXT), cell]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "index.ipynb")
    (folder / "conf.py").write_text(CONFIGURATION)
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "html", str(folder)]
    command.append(str(folder / "html"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "docs")])}
    subprocess.run(command, env=environment, check=True)
    data = (folder / "html" / "sections.js").read_text()
    rows = json.loads(data.removeprefix("const SITE = ").rstrip(";\n"))["sections"]
    return BeautifulSoup((folder / "html" / "index.html").read_text(), "html.parser"), rows


def test_words_below_the_link_of_a_card_and_names_have_no_tooltip(site):
    page, _ = site
    assert [link.text for link in page.select("article a.term")] == ["baseline"]
    assert "A rollout and an advantage." in page.select_one(".notebook-cards").text


def test_an_identifier_belongs_to_one_element(site):
    page, _ = site
    identifiers = Counter(element["id"] for element in page.select("article [id]"))
    assert {"equation-1", "figure-1"} <= set(identifiers)
    assert set(identifiers.values()) == {1}
    assert page.select_one(".math > .eqno a")["href"] == "#equation-1"


def test_a_figure_scrolls_without_its_caption(site):
    page, _ = site
    figure = page.select_one(".cell_output figure")
    assert figure.select_one(".wide-image img") is not None
    assert figure.select_one("figcaption").text.strip().startswith("Figure 1 A caption")
    assert figure.select_one(".wide-image figcaption") is None


def test_the_search_shows_formulas_as_one_would_type_them(site):
    _, rows = site
    [text] = [text for _, title, _, text in rows if title == "Equations"]
    assert "It follows that (log pi_old) 1/2 is small." in text


def test_each_term_of_the_glossary_is_a_result_of_the_search(site):
    _, rows = site
    assert [0, "rollout", "term-rollout", "Steps."] in rows


@pytest.mark.parametrize(
    ("latex", "typed"),
    [
        (r"\bigl(\pi_{\theta}\bigr)\;\le\,\Big[x\Big]", "(pi_theta) le [x]"),
        (r"\frac{r - 1}{2\epsilon}, \qquad \tfrac12 x", "(r - 1)/(2 epsilon), 1/2 x"),
        (r"\begin{aligned} a &= b \\ &= c \end{aligned}", "a = b = c"),
        (r"\mathbb E_{\text{old}}[V(s_{t+1}) \mid s]", "E_old[V(s_(t+1)) | s]"),
    ],
)
def test_a_formula_is_typed(monkeypatch, latex, typed):
    monkeypatch.syspath_prepend(ROOT / "docs")
    from building import search

    assert search.formula(latex) == typed
