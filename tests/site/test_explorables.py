"""The explorables compute minirl's numbers: their JavaScript runs here in V8, without a browser."""

import html
import json
import os
import re
import subprocess
import sys

import pytest
from explorable_figures import DOCS, NAMES, assert_same_numbers, explorables, result, with_scripts


def computed(name, values):
    """What `compute` of NAME.js returns."""
    arguments = f"{json.dumps(values)}, explorables.data['{name}']"
    return result(with_scripts(name), f"explorables.definitions['{name}'].compute({arguments})")


@pytest.mark.parametrize("name", NAMES)
def test_computes_the_numbers_of_minirl(name):
    module = explorables.load(name)
    assert len(module.CASES) >= 3
    for values in module.CASES:
        numbers = computed(name, values)
        assert_same_numbers(numbers, module.numbers(values))


SCRIPTS = sorted(path.name for path in explorables.SOURCE.glob("*.js"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_is_short_and_needs_nothing_from_elsewhere(script):
    text = (explorables.SOURCE / script).read_text()
    assert len(text.splitlines()) < 150
    assert max(map(len, text.splitlines())) <= 120
    assert "http" not in text
    assert "import " not in text


@pytest.mark.parametrize(
    ("arguments", "ticks"),
    [
        ("0, 1, 4", [0, 0.5, 1]),
        ("0, 1, 5", [0, 0.2, 0.4, 0.6, 0.8, 1]),
        ("0, 0.0071, 4", [0, 0.002, 0.004, 0.006]),
        ("-17.5, 4.2, 5", [-15, -10, -5, 0]),
        ("-0.3, 0.3, 6", [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
        ("0, 1000, 1", [0, 1000]),
        ("3.1, 3.9, 1", []),
    ],
)
def test_ticks_are_round_numbers(arguments, ticks):
    drawn = result(with_scripts("group-size"), f"roundTicks({arguments})")
    assert drawn == [[tick, f"{tick:g}"] for tick in ticks]


# A control without a page: `input` has what `makeControl` sets.
SLIDER = """
const element = () => ({ append() {}, addEventListener() {}, setAttribute() {} });
globalThis.document = { createElement: element };
globalThis.valueOf = (control, position) => {
  const values = {};
  makeControl({ name: "x", label: "x", ...control, value: position }, "", values);
  return values.x;
};
"""


def test_the_values_of_logarithmic_sliders_are_round():
    engine = with_scripts("trust-region")
    engine.eval(SLIDER)
    (control,) = (
        control
        for control in result(engine, "explorables.definitions['trust-region'].controls")
        if control["name"] == "max_kl"
    )
    assert engine.eval(f"valueOf({{ logarithmic: true }}, {control['value']})") == 0.05
    assert engine.eval("valueOf({ logarithmic: true }, -2.95)") == 0.0011
    assert engine.eval("valueOf({ logarithmic: true, whole: true }, 0.55)") == 4
    assert engine.eval("valueOf({}, 0.123)") == 0.123


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """A page with all explorables, a missing one and a repeated one; what Sphinx printed; a
    Chinese page with two explorables."""
    folder = tmp_path_factory.mktemp("site")
    directives = [f"```{{explorable}} {name}\n```" for name in (*NAMES, "unknown", NAMES[0])]
    (folder / "index.md").write_text("# Page\n\n" + "\n\n".join(directives))
    translated, english = "```{explorable} cartpole\n```", "```{explorable} group-size\n```"
    (folder / "zh.md").write_text(f"# 页\n\n{translated}\n\n{english}")
    # The functions of the equations are not on this page.
    ignored = "suppress_warnings=ref.obj,toc.not_included"
    options = ["extensions=myst_nb,building.explorables", ignored]
    command = [sys.executable, "-m", "sphinx", "-C", "-q", "--no-color", "-b", "html"]
    command += [f"-D{option}" for option in options] + [str(folder), str(folder / "html")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(DOCS.parent), str(DOCS)])}
    process = subprocess.run(command, env=environment, text=True, capture_output=True, check=True)
    page, chinese = ((folder / "html" / f"{each}.html").read_text() for each in ("index", "zh"))
    return page, process.stderr, chinese


def test_an_unknown_or_repeated_name_is_one_clear_error(build):
    unknown, repeated = build[1].strip().splitlines()
    assert "index.md" in unknown
    assert f"no explorable is called 'unknown'; there are {', '.join(NAMES)}" in unknown
    assert f"the explorable {NAMES[0]!r} is twice on this page" in repeated


def test_a_page_loads_the_frame_once_and_before_the_figures(build):
    scripts = re.findall(r'<script defer src="_static/explorables/([^"]+)"', build[0])
    own = [f"{name}{end}.js" for name in NAMES for end in ("-data", "")]
    assert scripts == ["pen.js", "text.js", "explorable.js", *own]
    assert build[0].count("explorable.css") == 1


def test_a_figure_with_a_table_is_in_chinese_on_a_chinese_page(build):
    scripts = re.findall(r'<script defer src="_static/explorables/([^"]+)"', build[2])
    assert scripts[3:6] == ["cartpole-zh.js", "cartpole-data.js", "cartpole.js"]
    cartpole, group_size = build[2].split('<figure class="explorable"')[1:]
    words = explorables.chinese("cartpole")
    assert 'lang="zh"' in cartpole
    for english in (explorables.load("cartpole").TITLE, "Show me the equation"):
        assert english not in cartpole
        assert words[english] in cartpole
    assert 'lang="en"' in group_size
    assert "Show me the equation" in group_size


@pytest.mark.parametrize("name", NAMES)
def test_has_a_title_a_link_to_its_equation_and_a_text_for_every_reader(build, name):
    figure = build[0].split(f'id="explorable-{name}"')[1].split("</figure>")[0]
    assert html.escape(explorables.load(name).TITLE) in figure
    assert "Show me the equation" in figure
    assert 'class="explorable-text"' in figure
    assert 'class="explorable-spoken" aria-live="polite"' in figure


def test_the_links_to_several_equations_are_separated_by_commas(build):
    figure = build[0].split('id="explorable-trust-region"')[1].split("</figcaption>")[0]
    links = "Show me the equation, trust_region_search, natural_direction, clipped_surrogate_loss"
    assert links in " ".join(re.sub("<[^>]*>", "", figure).split())


@pytest.mark.parametrize("name", NAMES)
def test_is_on_a_page_or_in_a_notebook(name):
    pages = "".join(path.read_text() for path in [DOCS / "index.md", *DOCS.glob("*/*.md")])
    notebooks = "".join(path.read_text() for path in (DOCS.parent / "notebooks").glob("*.ipynb"))
    sections = explorables.load(name).SECTIONS
    assert sections or f"{{explorable}} {name}\n" in pages
    for section in sections:
        assert f'"## {section} ' in notebooks, f"no notebook has a section {section}"


# `moved(button, frames)`: the state of the animation after this number of frames of 0.02 s.
MOVE_CART = """
Math.random = () => 0.5;
const { controls, compute, advance } = explorables.definitions.cartpole;
const values = { checkpoint: "5", angle: 1 };
const numbers = compute(values, explorables.data.cartpole);
const moved = (name, frames) => {
  const state = {};
  advance(state, 0.001, numbers, values);
  if (name) controls.find((control) => control.name === name).press(state);
  for (let i = 0; i < frames; i++) advance(state, 0.02, numbers, values);
  return state;
};
"""


def test_the_cart_moves_where_it_is_pushed():
    engine = with_scripts("cartpole")
    engine.eval(MOVE_CART)
    left, none, right = (
        engine.eval(f"moved({json.dumps(name)}, 8).cart[0]") for name in ("left", None, "right")
    )
    assert left < none - 0.01
    assert right > none + 0.01


def test_after_a_fall_a_new_episode_begins():
    engine = with_scripts("cartpole")
    engine.eval(MOVE_CART)
    engine.eval("values.checkpoint = '0'; values.angle = 11;")
    engine.eval("const fallen = moved(null, 30), again = moved(null, fallen.steps + 43);")
    assert engine.eval("fallen.pause > 0 && fallen.steps < 30")
    assert engine.eval("again.pause === 0 && again.steps < 5")
    assert engine.eval("again.best === fallen.steps")


def test_the_cartpole_opens_on_the_untrained_policy():
    control = "explorables.definitions.cartpole.controls[0]"
    chosen = with_scripts("cartpole").eval(f"{control}.value ?? 0")
    assert explorables.load("cartpole").data()["checkpoints"][chosen]["steps"] == 0


def test_the_cartpole_policies_become_better():
    returns = [item["mean_return"] for item in explorables.load("cartpole").data()["checkpoints"]]
    assert returns == sorted(returns)
    assert returns[0] < 40
    assert returns[-1] > 450


@pytest.mark.parametrize(
    ("bug", "shows"),
    [
        ("no bug", lambda n: n["above"] == 0 and n["explained"] > 0.5 and n["rows_per_step"] == 1),
        ("trace across episodes", lambda n: n["explained"] < 0.3 and n["rows_per_step"] == 1),
        ("reset row", lambda n: n["rows_per_step"] > 1.1 and n["explained"] < 0.5),
        ("N x N critic loss", lambda n: abs(n["explained"]) < 0.1 and n["rows_per_step"] == 1),
        ("KL not checked", lambda n: n["above"] > 5),
        ("failed search kept", lambda n: 0 < n["above"] < 5 and n["largest_kl"] > 1),
    ],
)
def test_each_run_shows_the_clue_to_its_bug(bug, shows):
    module = explorables.load("bug-detective")
    assert [*module.CLUES].index(bug) != [*module.RUNS].index(bug), "the order gives it away"
    numbers = module.numbers({"run": str([*module.RUNS].index(bug)), "guess": bug})
    assert shows(numbers), numbers
    assert numbers["final_return"] > 0.8, "the return does not give it away"


def luminance(colour):
    """Relative luminance of `#rrggbb` as WCAG 2 defines it."""
    shares = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_colours_of_pictures_can_be_read_on_their_background():
    text = (DOCS / "explorables" / "explorable.css").read_text()
    blocks = [dict(re.findall(r"--explorable-(\w+): (#\w{6})", b)) for b in text.split("}")]
    blocks = [block for block in blocks if block]
    light, dark, dark_by_preference = blocks
    assert dark == dark_by_preference
    detective = (DOCS / "explorables" / "bug-detective.js").read_text()
    (grey,) = re.findall(r"GREY = \"(#\w{6})\"", detective)
    for colours in (light, dark):
        paper = luminance(colours.pop("paper"))
        del colours["faint"]  # of the grid
        colours["grey"] = grey
        for name, colour in colours.items():
            low, high = sorted([luminance(colour), paper])
            # WCAG 2, level AA: 4.5 for text, 3 for lines
            assert (high + 0.05) / (low + 0.05) >= (3 if name in ("sky", "grey") else 4.5), name
