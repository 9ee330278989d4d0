"""What holds for every page that is visited: one visit per page, since opening it is slow."""

import pytest
from conftest import SITE

# KaTeX hides its own typesetting from screen readers and gives them MathML.
AXE = "axe.run({exclude: [['.katex-html']]}, {resultTypes: ['violations']})"
BROKEN_WORDS = """selector => [...document.querySelectorAll(selector)].flatMap(code => {
    if (!code.offsetParent) return [];
    const walker = document.createTreeWalker(code, NodeFilter.SHOW_TEXT), broken = [];
    for (let node; (node = walker.nextNode()); ) {
        for (const word of node.data.matchAll(/\\w+/g)) {
            const range = document.createRange();
            range.setStart(node, word.index);
            range.setEnd(node, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map(box => Math.round(box.top))).size > 1)
                broken.push(word[0]);
        }
    }
    return broken;
})"""
UNREACHABLE = """() => [...document.querySelectorAll("article *")].filter(block =>
    block.checkVisibility() && block.scrollWidth > block.clientWidth + 1 && block.clientWidth > 1
    && ["auto", "scroll"].includes(getComputedStyle(block).overflowX)
    && !(block.tabIndex === 0 && block.getAttribute("role") && block.getAttribute("aria-label"))
).map(block => block.outerHTML.slice(0, 200))"""
OUT_OF_VIEW = """() => [...document.querySelectorAll(".sidebar-tree .current-page > a")].filter(
    link => {
        const box = link.getBoundingClientRect();
        return box.width && (box.top < 0 || box.bottom > innerHeight);
    }).map(link => link.innerText)"""
UNDERLINED = """() => [...document.querySelectorAll("article .highlight .nn")].filter(name =>
    getComputedStyle(name).textDecorationLine !== "none").map(name => name.innerText)"""
# A wide formula in the first column would cover the others.
LOSES_FIRST_COLUMN = """() => [...document.querySelectorAll(".table-wrapper.scrolls")].filter(
    table => !table.matches(".narrow-first, :has(:is(td, th):first-child .katex)")
).map(table => table.innerText.slice(0, 200))"""
LANDMARKS = "axe.run({include: [['article']]}, {runOnly: ['landmark-unique']})"
OPEN_FOLDED = "() => document.querySelectorAll('details').forEach(block => (block.open = true))"
WIDER_THAN_THE_SCREEN = "() => document.documentElement.scrollWidth - innerWidth"
# Furo's permalinks are invisible until the pointer is near, but they take up space.
PERMALINK_OF_THE_PAGE = """() =>
    document.querySelector("h1 > .headerlink")?.getClientRects().length ?? 0"""


def violations(page):
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]}"
        for rule in page.evaluate(AXE)["violations"]
        if rule["impact"] in ("serious", "critical")
    ]


@pytest.fixture(scope="module")
def axe():
    package = pytest.importorskip("axe_core_python.base", reason="needs the extra `browser`")
    return package.AXE_SCRIPT


def test_the_folder_of_the_site_holds_the_site_only(root):
    """An older build may have left Sphinx's own files there: delete the folder once."""
    assert not (SITE / ".doctrees").exists()


def test_a_page_is_complete_and_accessible(visit, axe, sampled_address):
    page = visit(sampled_address)
    assert page.title() != ""
    assert page.locator(".katex-error, merror").count() == 0
    assert page.evaluate(BROKEN_WORDS, "article code.literal") == []
    assert page.evaluate(BROKEN_WORDS, ".sidebar-tree a, h1") == []
    assert page.evaluate(OUT_OF_VIEW) == []
    assert page.evaluate(UNREACHABLE) == []
    page.evaluate(OPEN_FOLDED)
    page.evaluate(axe)
    assert violations(page) == []
    page.emulate_media(color_scheme="dark")
    assert page.evaluate(UNDERLINED) == [], "names of modules in code are no links"
    assert violations(page) == []


def test_a_page_fits_a_phone(visit, axe, sampled_address):
    page = visit(sampled_address, width=390)
    assert page.evaluate(WIDER_THAN_THE_SCREEN) <= 0
    assert page.evaluate(UNREACHABLE) == []
    assert page.locator(".scrolls figcaption").count() == 0, "the caption would fade"
    assert page.evaluate(PERMALINK_OF_THE_PAGE) == 0, "it would need a line of its own"
    assert page.evaluate(LOSES_FIRST_COLUMN) == []
    page.evaluate(axe)
    assert page.evaluate(LANDMARKS)["violations"] == []
