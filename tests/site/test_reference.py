"""Glossary, API, search, and the numbers of figures and equations."""

import csv
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

import minirl

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
        if "$" not in row["caption"]:
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
        if isinstance(value, type):
            own = text.find(id=f"{name}.{public}")
            assert own or text.select_one(f'td a[href$="{value.__module__}.{public}"]'), public


def test_every_name_of_code_that_is_a_reference_leads_somewhere(address):
    broken = [
        code.text for code in page(address).select("code.xref.py") if not code.parent.get("href")
    ]
    assert broken == []
