"""The gallery shows every figure, and each of its links opens the place of the figure."""

import csv
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from PIL import Image

ROOT = Path(__file__).parents[2]
SITE = ROOT / "docs" / "_build" / "html"
LIMIT = 1_000_000  # bytes of a first visit


def page(address):
    if not (SITE / "gallery.html").exists():
        pytest.skip("the site is not built: run `make docs` first")
    return BeautifulSoup((SITE / address).read_text(), "html.parser")


def rows():
    with (ROOT / "docs" / "figures.csv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter=";"))


def words(text):
    return re.findall(r"\w+", text)


def test_every_figure_of_a_notebook_has_a_thumbnail_and_a_link(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from building import gallery

    monkeypatch.setattr(gallery, "TARGET", tmp_path)
    monkeypatch.setattr(gallery, "PAGES", ())
    gallery.write_gallery()
    text = (tmp_path / "gallery.md").read_text()
    links = re.findall(r"\{numref\}`figure-(\w+)`", text)
    assert links == [row["cell"] for row in rows()]
    sizes = [path.stat().st_size for path in (tmp_path / "gallery").iterdir()]
    assert len(sizes) == len(links)
    assert max(sizes) < 25_000


def test_the_page_shows_every_figure_of_the_notebooks():
    items = page("gallery.html").select(".gallery-item")
    count: dict[str, int] = {}
    for row, item in zip(rows(), items, strict=False):
        number = count[row["notebook"]] = count.get(row["notebook"], 0) + 1
        assert item.img["alt"] == row["alt"]
        assert (SITE / item.img["src"]).exists()
        assert item.a["href"].endswith(f"#figure-{row['cell']}")
        name = f"Figure {int(row['notebook'])}.{number}"
        assert words(item.select_one("p").text) == words(f"{name}. {row['caption']}")


def test_the_page_shows_every_figure_of_the_pages():
    names = [item.img["src"] for item in page("gallery.html").select(".gallery-item")]
    pages = [
        path
        for folder in ("algorithms", "rlhf", "results")
        for path in (SITE / folder).glob("*.html")
        if ".zh" not in path.name
    ]
    captions = [c for path in pages for c in page(path).select("figure .caption-number")]
    assert len(names) == len(set(names)) == len(rows()) + len(captions)
    assert len(captions) > 20


def test_every_link_leads_to_a_place_that_exists():
    links = [item.a["href"] for item in page("gallery.html").select(".gallery-item")]
    parsed = {address: page(address) for address in {link.split("#")[0] for link in links}}
    for link in links:
        address, _, anchor = link.partition("#")
        assert not anchor or parsed[address].find(id=anchor), link


def test_a_first_visit_is_light(visit, root):
    shown, sizes = visit("gallery.html"), {}
    shown.on(
        "response",
        lambda response: sizes.update({response.url: int(response.headers["content-length"])}),
    )
    shown.reload(wait_until="networkidle")
    assert f"{root}gallery.html" in sizes
    assert sum(sizes.values()) < LIMIT, sizes


def wait_until_shown(page, cell):
    """The browser scrolls smoothly, so this takes a moment; it fails after ten seconds."""
    figure = f"document.getElementById('figure-{cell}')"
    top = f"{figure}?.getBoundingClientRect().top"
    page.wait_for_load_state("networkidle")
    page.wait_for_function(f"() => {top} >= 0 && {top} < innerHeight / 2", timeout=10_000)


def test_the_keyboard_opens_a_figure(visit):
    page = visit("gallery.html")
    items = page.locator(".gallery-item")
    items.nth(0).locator("a").focus()
    page.keyboard.press("Tab")  # one step per figure
    assert items.nth(1).evaluate("item => getComputedStyle(item).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/01_policy_gradient.html#*")
    wait_until_shown(page, rows()[1]["cell"])


def test_a_touch_on_the_picture_opens_a_figure(visit):
    page = visit("gallery.html", width=390)
    page.locator(".gallery-item img").nth(1).click(force=True)  # the link covers the picture
    page.wait_for_url("**/01_policy_gradient.html#*")
    wait_until_shown(page, rows()[1]["cell"])


@pytest.mark.parametrize("width", [1280, 390])
def test_a_link_leads_to_the_last_figure_of_a_long_page(visit, width):
    cell = [row["cell"] for row in rows() if row["notebook"] == "03"][-1]
    page = visit(f"notebooks/03_trust_regions.html#figure-{cell}", width=width)
    wait_until_shown(page, cell)


def test_images_have_the_size_of_their_files():
    images = page("notebooks/03_trust_regions.html").select(".cell_output img")
    assert len(images) == len([row for row in rows() if row["notebook"] == "03"])
    for image in images:
        with Image.open(SITE / "notebooks" / image["src"]) as file:
            assert (int(image["width"]), int(image["height"])) == file.size
