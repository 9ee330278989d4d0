"""Each explorable on its page in Chromium: every control is used, and the numbers are minirl's.

Sliders are moved with the keyboard only. `figure.values` and `figure.numbers` are what the frame
exposes: the values of the controls and the result of `compute` for them.
"""

import math
import re

import pytest
from explorable_figures import DOCS, NAMES, assert_same_numbers, explorables

expect = pytest.importorskip("playwright.sync_api", reason="needs the extra `browser`").expect

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
# The elements of the figure that are wider than the screen or need to be scrolled sideways, without
# the formulas for screen readers, which are clipped to one pixel.
WIDE = """figure => [...figure.querySelectorAll(":not(.katex-mathml *)")]
    .filter((e) => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth)
    .map((e) => e.outerHTML.slice(0, 80))"""
# Violations of axe's rules inside the figure, those that it calls serious or critical.
AXE = """async (figure) => (await axe.run(figure)).violations
    .filter((rule) => ["serious", "critical"].includes(rule.impact))
    .map((rule) => `${rule.id}: ${rule.nodes.map((node) => node.html.slice(0, 80))}`)"""


# The built pages that contain an explorable, with its name.
PLACES = [
    (path.relative_to(SITE).as_posix(), name)
    for path in sorted(SITE.rglob("*.html"))
    for name in re.findall(r'id="explorable-([\w-]+)"', path.read_text())
]


def pages_of(name):
    return [page for page, each in PLACES if each == name]


@pytest.fixture
def figure_of(visit):
    """`figure_of(name)` opens the first page that contains the figure."""

    def figure_of(name, **options):
        page = visit(pages_of(name)[0], **options)
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
    for control in figure.locator("input, select").all():
        assert control.evaluate("control => control.labels.length") == 1
        label = control.evaluate("control => control.labels[0].firstChild.textContent")
        role = (
            "combobox" if control.evaluate("control => control.tagName") == "SELECT" else "slider"
        )
        expect(figure.get_by_role(role, name=label, exact=True)).to_have_count(1)
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
    screens = (1280, "light"), (1280, "dark"), (390, "dark"), (390, "light"), (320, "light")
    for width, scheme in screens:
        figure.page.set_viewport_size({"width": width, "height": 800})
        figure.page.emulate_media(color_scheme=scheme)
        figure.page.evaluate(TWO_FRAMES)
        assert figure.evaluate(COLOURS) >= 8
        assert figure.evaluate(WIDE) == [], (width, scheme)
        if (width, scheme) in ((1280, "light"), (390, "dark")):  # half a second each
            assert figure.evaluate(AXE) == [], (width, scheme)
        pictures.add(figure.evaluate(PICTURE))
    assert len(pictures) == len(screens), (
        "the picture follows the width of the page and its colours"
    )


@pytest.mark.parametrize(("place", "name"), PLACES)
def test_each_page_with_the_figure_shows_it(visit, place, name):
    figure = visit(place).locator(f"#explorable-{name}")
    figure.scroll_into_view_if_needed()
    assert len(check(figure, name)) > 40
    assert figure.evaluate(COLOURS) >= 8


@each_explorable
def test_going_back_shows_a_figure_that_agrees_with_its_controls(figure_of, name):
    figure = figure_of(name)
    for control in figure.locator("input, select").all():
        control.press("End")
    figure.page.goto("about:blank")
    figure.page.go_back()
    expect(figure.locator(".explorable-text")).not_to_be_empty()
    values = figure.evaluate("figure => figure.values")
    for choice in figure.locator("select").all():
        assert choice.input_value() == values[choice.get_attribute("name")]
    for slider in figure.locator(SLIDERS).all():
        shown = slider.get_attribute("aria-valuetext")
        slider.dispatch_event("input")  # the figure reads the position of the slider
        assert slider.get_attribute("aria-valuetext") == shown
    check(figure, name)


# The height of an element, and of the words in it.
HEIGHTS = """element => {
    const range = document.createRange();
    range.selectNodeContents(element);
    return [element, range].map((each) => Math.round(each.getBoundingClientRect().height));
}"""


def test_the_text_is_announced_once_after_a_pause_and_does_not_move_the_page(figure_of):
    figure = figure_of("trust-region", width=390)
    spoken, text = figure.locator(".explorable-spoken"), figure.locator(".explorable-text")
    expect(spoken).to_be_empty()
    figure.evaluate("""figure => {
        window.announced = 0;
        const spoken = figure.querySelector(".explorable-spoken");
        new MutationObserver(() => (window.announced += 1)).observe(spoken, { childList: true });
    }""")
    heights = []
    for reward in ("reward1", "reward2", "reward3"):  # equal rewards need few words
        figure.locator(f"[name={reward}]").press("Home")
        heights.append(text.evaluate(HEIGHTS))
    assert heights == sorted(heights, key=lambda pair: pair[0])
    last, last_words = heights[-1]
    assert last_words < last, "the text was higher before"
    expect(spoken).to_have_text(text.inner_text())
    assert figure.page.evaluate("announced") == 1
    figure.page.set_viewport_size({"width": 1280, "height": 800})
    figure.page.evaluate(TWO_FRAMES)
    wide, _ = text.evaluate(HEIGHTS)
    assert wide < last, "the height belongs to the width"


CART = "figure => figure.state.cart"


def moves(figure):
    before = figure.evaluate(PICTURE)
    figure.page.wait_for_timeout(300)
    return figure.evaluate(PICTURE) != before


def test_the_cart_stands_still_for_readers_who_prefer_less_motion(figure_of):
    figure = figure_of("cartpole")
    assert not moves(figure)
    still = figure.evaluate(PICTURE)
    figure.get_by_role("combobox").select_option("5")
    other = figure.evaluate(PICTURE)
    assert other != still, "the picture shows the chosen policy"
    figure.get_by_role("slider").press("End")
    assert figure.evaluate(PICTURE) != other, "the picture shows the chosen angle"
    figure.get_by_role("button", name="Push left").press("Enter")
    assert moves(figure), "a push starts the motion"
    figure.get_by_role("button", name="Pause").press("Enter")
    figure.page.evaluate(TWO_FRAMES)
    assert not moves(figure)
    figure.get_by_role("slider").press("Home")
    assert figure.evaluate(CART) == [0, 0, pytest.approx(-11 * math.pi / 180), 0]


def test_the_cart_moves_and_the_keys_push_it(figure_of):
    figure = figure_of("cartpole", reduced_motion="no-preference")
    figure.get_by_role("combobox").select_option("5")
    assert moves(figure)
    picture = figure.get_by_role("application")
    for key, sign in {"ArrowRight": 1, "ArrowLeft": -1}.items():
        # the page runs no frame between the key and this question
        force = picture.evaluate(
            """(picture, key) => {
            picture.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
            return picture.closest("figure").state.push.force;
        }""",
            key,
        )
        assert force * sign > 0
    # frames per second stay those of the screen, however often the reader stops and starts
    button = figure.get_by_role("button", name="Pause")
    button.evaluate("button => { for (let i = 0; i < 20; i++) button.click(); }")
    loops = figure.evaluate("""figure => new Promise((done) => {
        let redraws = 0;
        const context = figure.querySelector("canvas").getContext("2d");
        const { scale } = context;
        context.scale = (...sizes) => { redraws += 1; scale.apply(context, sizes); };
        let frames = 0;
        const count = () => (++frames < 30 ? requestAnimationFrame(count) : done(redraws / frames));
        requestAnimationFrame(count);
    })""")
    assert 0.5 < loops < 1.2


# Whether the figure takes a key that is pressed in an element from the browser.
TAKEN = """(figure, [selector, modifiers]) => {
    const options = { key: "ArrowRight", bubbles: true, cancelable: true, ...modifiers };
    return !figure.querySelector(selector).dispatchEvent(new KeyboardEvent("keydown", options));
}"""


def test_the_figure_takes_only_the_keys_that_push(figure_of):
    figure = figure_of("cartpole")
    for place in ("[role=application]", "button"):
        assert figure.evaluate(TAKEN, [place, {}])
        for modifier in ("altKey", "ctrlKey", "metaKey", "shiftKey"):
            assert not figure.evaluate(TAKEN, [place, {modifier: True}]), modifier
    for place in ("input", "select", "figcaption a"):
        assert not figure.evaluate(TAKEN, [place, {}]), place


def test_a_finger_moves_the_sliders(figure_of):
    figure = figure_of("group-size", width=390, has_touch=True)
    for slider in figure.locator(SLIDERS).all():
        box, before = slider.bounding_box(), slider.input_value()
        slider.tap(position={"x": 0.8 * box["width"], "y": box["height"] / 2})
        assert float(slider.input_value()) > float(before)
        values = figure.evaluate("figure => figure.values")
        assert values[slider.get_attribute("name")] == float(slider.input_value())
        check(figure, "group-size")
