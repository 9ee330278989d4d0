"""Each explorable on its page in Chromium: every control is used, and the numbers are minirl's.

Sliders are moved with the keyboard only. `figure.values` and `figure.numbers` are what the frame
exposes: the values of the controls and the result of `compute` for them.
"""

import functools

import pytest
from explorable_figures import DOCS, NAMES, assert_same_numbers, explorables

SITE = DOCS / "_build" / "html"
MODULES = {name: explorables.load(name) for name in NAMES}
SLIDERS, LISTS, BUTTONS = "input[type=range]", "select", "button"
each_explorable = pytest.mark.parametrize("name", NAMES)

# The number of different colours in the picture: a blank canvas has one.
COLOURS = """figure => {
    const canvas = figure.querySelector("canvas");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return new Set(new Uint32Array(data.buffer)).size;
}"""
PICTURE = "figure => figure.querySelector('canvas').toDataURL()"
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# The elements of the figure that are wider than the screen or need to be scrolled sideways.
WIDE = """figure => [...figure.querySelectorAll("*")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth)
    .map((e) => e.outerHTML.slice(0, 80))"""
# Violations of axe's rules inside the figure, those that it calls serious or critical.
AXE = """async (figure) => (await axe.run(figure)).violations
    .filter((rule) => ["serious", "critical"].includes(rule.impact))
    .map((rule) => `${rule.id}: ${rule.nodes.map((node) => node.html.slice(0, 80))}`)"""


@functools.cache
def pages_of(name):
    """The built pages that contain an explorable."""
    mark = f'id="explorable-{name}"'
    pages = (path for path in sorted(SITE.rglob("*.html")) if mark in path.read_text())
    return [path.relative_to(SITE).as_posix() for path in pages]


@pytest.fixture
def figure_of(visit):
    """`figure_of(name)` opens the first page that contains the figure."""

    def figure_of(name):
        page = visit(pages_of(name)[0])
        figure = page.locator(f"#explorable-{name}")
        figure.scroll_into_view_if_needed()
        return figure

    return figure_of


def check(figure, name):
    """Compare the numbers on the page with minirl's; the text alternative."""
    numbers, values = figure.evaluate("figure => [figure.numbers, figure.values]")
    assert_same_numbers(numbers, MODULES[name].numbers(values))
    text = figure.locator(".explorable-text").inner_text()
    assert "NaN" not in text
    assert "undefined" not in text
    return text


@each_explorable
def test_is_on_a_page(root, name):
    assert pages_of(name), f"no page of the site contains the directive {{explorable}} {name}"


@each_explorable
def test_every_control_leads_to_the_numbers_of_minirl(figure_of, name):
    figure = figure_of(name)
    check(figure, name)
    for slider in figure.locator(SLIDERS).all():
        slider.press("Home")
        at_smallest = check(figure, name), figure.evaluate(PICTURE)
        assert float(slider.input_value()) == float(slider.get_attribute("min"))
        slider.press("End")
        at_largest = check(figure, name), figure.evaluate(PICTURE)
        assert float(slider.input_value()) == float(slider.get_attribute("max"))
        assert at_smallest[0] != at_largest[0], "the text says what the slider has changed"
        assert at_smallest[1] != at_largest[1], "the picture shows what the slider has changed"
        slider.press("Home")
        for _ in range(5):
            slider.press("PageUp")  # a tenth of the range
        check(figure, name)
        middle = slider.input_value()
        slider.press("ArrowLeft")
        check(figure, name)
        assert float(slider.input_value()) < float(middle)
    for choice in figure.locator(LISTS).all():
        texts = set()
        options = choice.locator("option").evaluate_all("all => all.map((one) => one.value)")
        for option in options:
            choice.select_option(option)
            texts.add(check(figure, name))
        assert len(texts) == len(options), "the text says which option is chosen"
    for button in figure.locator(BUTTONS).all():
        button.focus()
        button.press("Enter")
        check(figure, name)


@each_explorable
def test_can_be_seen_by_everyone(figure_of, name):
    axe = pytest.importorskip("axe_core_python.base").AXE_SCRIPT
    figure = figure_of(name)
    figure.page.evaluate(axe)
    pictures = set()
    for width, scheme in ((1280, "light"), (1280, "dark"), (390, "dark"), (390, "light")):
        figure.page.set_viewport_size({"width": width, "height": 800})
        figure.page.emulate_media(color_scheme=scheme)
        figure.page.evaluate(TWO_FRAMES)
        assert figure.evaluate(COLOURS) >= 8
        assert figure.evaluate(WIDE) == [], (width, scheme)
        if (width, scheme) in ((1280, "light"), (390, "dark")):  # half a second each
            assert figure.evaluate(AXE) == [], (width, scheme)
        pictures.add(figure.evaluate(PICTURE))
    assert len(pictures) == 4, "the picture follows the width of the page and its colours"
