"""Glossary, API, search, and the numbers of figures and equations."""

import csv
import importlib
import inspect
import json
import pkgutil
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import minirl
from minirl.support.metrics import GLOSSARY

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "_build" / "html"
NOTEBOOKS = [path.stem for path in sorted((ROOT / "notebooks").glob("[0-9]*.ipynb"))]


def page(address):
    if not (SITE / "index.html").exists():
        pytest.skip("the site is not built: run `make docs` first")
    return BeautifulSoup((SITE / address).read_text(), "html.parser")


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_figures_of_a_notebook_are_numbered_and_captioned(name):
    with (ROOT / "docs" / "figures.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter=";") if row["notebook"] == name[:2]]
    figures = page(f"notebooks/{name}.html").select("figure:has(.caption-number)")
    for number, (figure, row) in enumerate(zip(figures, rows, strict=True), start=1):
        assert figure["id"] == f"figure-{row['cell']}"
        assert figure.select_one(".caption-number").text == f"Figure {int(name[:2])}.{number} "
        assert figure.img["alt"] == row["alt"]
        shown = figure.select_one(".caption-text").text
        assert re.findall(r"\w+", shown) == re.findall(r"\w+", row["caption"])


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_equations_of_a_notebook_are_numbered(name):
    numbers = [span.contents[0] for span in page(f"notebooks/{name}.html").select(".eqno")]
    expected = [f"(Eq. {int(name[:2])}.{number})" for number in range(1, len(numbers) + 1)]
    assert numbers == expected
    assert numbers or name == "11_silent_bugs"  # the only notebook without a displayed equation


def test_a_reference_to_a_figure_shows_its_number():
    link = page("rlhf/claims.html").select_one("a[href$='04_ppo.html#figure-5707b801']")
    assert link.text == "Figure 4.6"


def public_modules():
    found = (module.name for module in pkgutil.walk_packages(minirl.__path__, "minirl."))
    private = re.compile(r"\._")
    return ["minirl", *(name for name in found if not private.search(name))]


@pytest.mark.parametrize("name", public_modules())
def test_every_public_module_has_a_small_page_with_its_names(name):
    module = importlib.import_module(name)
    index = page("reference/api.html")
    if not module.__doc__:  # an empty __init__.py
        assert not (SITE / f"reference/api/{name}.html").exists()
        return
    assert index.select_one(f'td a[href="api/{name}.html#module-{name}"]')
    path = SITE / "reference" / "api" / f"{name}.html"
    assert path.stat().st_size < 200_000
    text = page(f"reference/api/{name}.html")
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if inspect.isclass(value) or inspect.isfunction(value):
            own = text.find(id=f"{name}.{public}")
            assert own or text.select_one(f'td a[href$="{value.__module__}.{public}"]'), public
    assert text.select("dl.py > dd > ul:first-child") == [], "a minus sign became a list"


def test_docstrings_are_shown_as_they_are_meant():
    shown = page("reference/api/minirl.advantages.html")
    protocol = shown.find(id="minirl.advantages.AdvantageEstimator")
    assert "(" not in protocol.text, "nobody calls a protocol"
    names = {code.text: code.parent for code in shown.select("dd p code")}
    assert names["lam"].name == "p", "the name of an argument"
    assert names["gae"]["href"] == "#minirl.advantages.gae"


def test_the_english_pages_end_before_the_chinese_ones_begin():
    assert page("zh.html").select_one(".related-pages .prev-page") is None
    assert page("reference/publishing.html").select_one(".related-pages .next-page") is None
    assert page("index.html").select_one(".related-pages .next-page")


def test_parts_in_another_language_say_so(sampled_address):
    here = page(sampled_address)
    for link in here.select(".sidebar-tree a"):
        language = next(part["lang"] for part in link.find_parents(lang=True))
        language = link.get("lang", language)
        assert (language == "zh") is (re.search("[\u4e00-\u9fff]", link.text) is not None), link


def test_every_name_of_code_that_is_a_reference_leads_somewhere(address):
    broken = [
        code.text for code in page(address).select("code.xref.py") if not code.parent.get("href")
    ]
    assert broken == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("max_kl", "notebooks/03_trust_regions.html#in-the-loop-exactly"),
        ("conjugate gradient", "reference/glossary.html#term-conjugate-gradient"),
        ("group_normalized", "minirl.exercises.rlhf.group_normalized"),
        ("GroupNormalized", "reference/api/minirl.advantages.html#minirl.advantages.Group"),
        ("actor-critic", "reference/glossary.html#term-actor-critic"),
        ("overoptimization", "reference/glossary.html#term-over-optimisation"),
        ("value function", "reference/glossary.html#term-value"),
        ("how to install", "index.html#how-to-install-and-run-it"),
        ("策略梯度", "notebooks/zh/01_policy_gradient.html#"),
        ("裁剪", "notebooks/zh/04_ppo.html#"),
    ],
)
def test_the_search_leads_to_the_section(visit, words, expected):
    results = visit(f"search.html?q={words}").locator("#search-results li")
    address = results.first.locator("a").get_attribute("href")
    assert expected in address
    assert results.locator("p mark").count() > 0
    assert page(address.split("#")[0]).find(id=address.split("#")[1])


def test_the_search_finds_every_section_with_a_chinese_word(visit):
    search = visit("search.html?q=优势")
    holds = """SITE.sections.filter(([page, title, , text]) =>
        `${title} ${text} ${SITE.pages[page][1]}`.includes("优势")).length"""
    found = int(re.search(r"(\d+) 个小节", search.locator("#search-status").inner_text())[1])
    assert found == search.evaluate(holds) > 20


def test_the_search_has_no_latex_in_its_titles():
    data = (SITE / "sections.js").read_text().removeprefix("const SITE = ").rstrip(";\n")
    assert [title for _, title, _, _ in json.loads(data)["sections"] if "\\" in title] == []


def test_the_description_of_a_page_is_text_in_its_language(address):
    here = page(address)
    tag = here.select_one('meta[name="description"]')
    if tag is None:
        return  # a page without a paragraph
    assert re.search(r"\\", tag["content"]) is None
    if here.html["lang"] != "zh":
        assert re.search("[\u4e00-\u9fff]", tag["content"]) is None
    assert len(tag["content"]) > 60


def test_the_search_offers_sections_with_some_of_the_words(visit):
    search = visit("search.html?q=advantage notwritten")
    assert search.locator("#search-status").inner_text().startswith("No section has all words")
    assert "advantage" in search.locator("#search-results p mark").first.inner_text().lower()


def test_the_search_answers_while_one_types(visit):
    search = visit("search.html")
    search.locator(".search-form input").fill("surrogate")
    search.locator("#search-results mark").first.wait_for()
    assert "surrogate" in search.url


def spoken(text):
    """The words, whatever the quotation marks."""
    return re.findall(r"\w+", text)


@pytest.fixture(scope="module")
def definitions():
    """What tooltips say, by the page of the list and the anchor."""
    terms = page("reference/glossary.html").select("dl.glossary dt")
    found = {("glossary.html", term["id"]): term.find_next("dd").p.text for term in terms}
    for term in page("reference/metrics.html").select("article dt"):
        meaning = GLOSSARY[term.code.text].meaning
        assert spoken(meaning) == spoken(term.find_next("dd").text)[: len(spoken(meaning))]
        found["metrics.html", term["id"]] = meaning
    return {address: spoken(text) for address, text in found.items()}


def test_every_term_of_the_glossary_has_a_definition_on_its_page(definitions):
    with (ROOT / "docs" / "glossary.csv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    shown = [text for (file, _), text in definitions.items() if file == "glossary.html"]
    assert shown == [spoken(row["definition"]) for row in rows]


def test_tooltips_show_the_definitions_of_the_glossary(definitions, address):
    here = page(address)
    seen = set()
    for link in here.select("a.term"):
        target, anchor = link["href"].split("#")
        assert spoken(link["title"]) == definitions[target.rpartition("/")[2], anchor]
        assert not link.find_parent(["h1", "h2", "h3", "h4", "code", "pre"])
        parts = [part["id"] for part in link.find_parents("section")]
        place = (parts[-2] if len(parts) > 1 else parts[-1], anchor)
        assert place not in seen, "a term has one tooltip per section"
        seen.add(place)
    if here.html["lang"] == "zh" or address.startswith("reference/api"):
        assert not seen
    elif re.fullmatch(r"notebooks/\d\d_\w+.html", address):
        assert seen
    elif address == "algorithms/trpo.html":
        assert here.select_one("a.term[href$='#metric-accepted_fraction'] > code.literal")


def test_a_definition_appears_on_hover_on_focus_and_on_touch(visit):
    notebook = visit("notebooks/03_trust_regions.html")
    box, term = notebook.locator("#term-definition"), notebook.locator("a.term").nth(1)
    assert term.inner_text() == "trust region"
    begin = "The set of policies whose KL divergence"
    assert box.is_hidden()
    term.hover()
    assert box.inner_text().startswith(begin)
    notebook.mouse.move(5, 5)
    box.wait_for(state="hidden")
    term.focus()
    assert box.inner_text().startswith(begin)
    assert term.get_attribute("aria-describedby") == "term-definition"
    notebook.keyboard.press("Escape")
    assert box.is_hidden()
    term.evaluate("term => term.blur()")
    touch = "new PointerEvent('pointerdown', {pointerType: 'touch', bubbles: true})"
    term.evaluate(f"term => {{ term.dispatchEvent({touch}); term.click(); }}")
    assert box.inner_text().startswith(begin)
    assert notebook.url.endswith("03_trust_regions.html")
    term.evaluate(f"term => {{ term.dispatchEvent({touch}); term.click(); }}")
    notebook.wait_for_url("**/glossary.html#term-trust-region")
