"""The explorables draw and say minirl's numbers.

A pen that records what is drawn replaces the canvas. Its axes do not scale, so that the recorded
points are data.
"""

import functools
import json
import re

import numpy as np
import pytest
from explorable_figures import NAMES, explorables, result, with_scripts

MODULES = {name: explorables.load(name) for name in NAMES}
RECORDER = """
globalThis.Path2D = class { constructor(text) { this.text = text; } };
globalThis.record = (name, values, state = {}, width = 800) => {
  const calls = [];
  const note = (kind) => (...all) => { calls.push([kind, ...all]); return 20; };
  const context = new Proxy({}, {
    get: (_, key) => (key === "measureText" ? () => ({ width: 50 }) : note(key)), set: () => true,
  });
  const axes = (box, x, y) => { calls.push(["axes", x, y]); return { x: (v) => v, y: (v) => v }; };
  const pen = {
    width, height: 400, context, colour: new Proxy({}, { get: (_, key) => key }), ticks: roundTicks,
    axes, line: note("line"), text: note("text"), dot: note("dot"), legend: note("legend"),
  };
  const { compute, draw, describe } = explorables.definitions[name];
  const numbers = compute(values, explorables.data[name]);
  draw(pen, numbers, values, state);
  return { calls, text: describe(numbers, values) };
};
"""


class Picture:
    """What was drawn, in the order of drawing."""

    def __init__(self, calls, text):
        self.calls, self.text = calls, text

    def lines(self, colour):
        """The points of each line of a colour."""
        return [
            np.array(c[1], dtype=float) for c in self.calls if c[0] == "line" and c[2] == colour
        ]

    def line(self, colour):
        (points,) = self.lines(colour)
        return points

    def dots(self, colour):
        return np.array([c[1:3] for c in self.calls if c[0] == "dot" and c[3] == colour])

    def panels(self):
        """The axes of each panel, and what was drawn after them."""
        starts = [i for i, call in enumerate(self.calls) if call[0] == "axes"]
        ends = [*starts[1:], len(self.calls)]
        return [
            (*self.calls[i][1:], Picture(self.calls[i:end], self.text))
            for i, end in zip(starts, ends, strict=True)
        ]


@functools.cache
def engine_of(name):
    engine = with_scripts(name)
    engine.eval(RECORDER)
    return engine


def picture_of(name, values, state="{}", width=800):
    call = f"record({json.dumps(name)}, {json.dumps(values)}, {state}, {width})"
    return Picture(**result(engine_of(name), call))


def cases(name):
    return pytest.mark.parametrize("values", MODULES[name].CASES, ids=str)


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-7, atol=1e-9)


@cases("trust-region")
def test_the_picture_of_the_trust_region(values):
    module = MODULES["trust-region"]
    picture, expected = picture_of("trust-region", values), module.numbers(values)
    start, step, max_kl = module.START, np.array(expected["step"]), values["max_kl"]
    observation = np.zeros(1, dtype=int)
    old, cache = module.POLICY.forward(observation)

    def policy(theta):
        return module.POLICY.with_parameters(theta)(observation)

    # all points of the curves around the old policy have the KL max_kl, exactly or in the model
    (ball,) = picture.lines("blue")
    (model,) = (line for line in picture.lines("ink") if len(line) > 2)
    for curve in (ball, model):
        sides = np.sign(curve - start)
        assert {*map(tuple, sides)} >= {(1, 1), (1, -1), (-1, 1), (-1, -1)}
        close(curve[0], curve[-1])
    close([old.kl(policy(theta))[0] for theta in ball[::10]], max_kl)
    for theta in model[::10]:
        product = module.fisher_vector_product(module.POLICY, cache, old, np.ones(1), theta - start)
        close((theta - start) @ product / 2, max_kl)

    # the directions, the steps of the line search, and PPO's epochs
    (gradient,) = picture.lines("orange")
    close(gradient[0], start)
    arrow, size = gradient[1] - start, np.linalg.norm(expected["gradient"])
    close(arrow * size, np.linalg.norm(step) * np.array(expected["gradient"]))
    full, *crosses = picture.lines("vermillion")
    close(full, [start, start + step])
    accepted = [start + expected["fraction"] * step] if expected["fraction"] else []
    close(picture.dots("vermillion"), np.reshape(accepted, (-1, 2)) if accepted else [])
    rejected = [part for part, *_ in expected["tries"] if part != expected["fraction"]]
    if np.any(step):
        close([cross[2] for cross in crosses], [start + part * step for part in rejected])
    close(picture.line("green"), expected["path"])
    close(picture.dots("green"), expected["path"])
    close(picture.dots("ink"), [start])

    # the surrogate has the same value along each contour, and a larger one on the next contour
    [(_, y, _)] = picture.panels()
    levels = []
    for contour in picture.lines("sky"):
        inside = contour[(contour[:, 1] > y["min"]) & (contour[:, 1] < y["max"])]
        points = inside[:: max(1, len(inside) // 5)]
        surrogates = [policy(theta).probs[0] @ expected["advantages"] for theta in points]
        if np.any(step) and len(points):
            close(surrogates, surrogates[0])
            levels.append(surrogates[0])
    assert levels == sorted(levels)
    assert len(levels) > 8 or not np.any(step)


@pytest.mark.parametrize("width", [250, 800])
@cases("trust-region")
def test_nothing_leaves_the_map_of_the_trust_region_and_its_axes_have_ticks(values, width):
    [(x, y, picture)] = picture_of("trust-region", values, width=width).panels()
    for axis in (x, y):
        assert sum(axis["min"] <= tick <= axis["max"] for tick, _ in axis["ticks"]) >= 2
    curves = [call[1] for call in picture.calls if call[0] == "line" and call[2] != "sky"]
    dots = [call[1:3] for call in picture.calls if call[0] == "dot"]
    points = np.array([*dots, *(point for curve in curves for point in curve)], dtype=float)
    assert (points.min(axis=0) >= [x["min"], y["min"]]).all()
    assert (points.max(axis=0) <= [x["max"], y["max"]]).all()


def test_the_exact_curve_of_the_trust_region_has_no_corners():
    values = {**MODULES["trust-region"].CASES[0], "max_kl": 1}
    (ball,) = picture_of("trust-region", values).lines("blue")
    edges = np.diff(ball, axis=0)
    angles = np.unwrap(np.arctan2(edges[:, 1], edges[:, 0]))
    assert np.abs(np.diff(angles)).max() < np.radians(20)


def test_equal_rewards_lead_to_no_step_in_the_picture():
    (values,) = (
        case
        for case in MODULES["trust-region"].CASES
        if case["reward1"] == case["reward2"] == case["reward3"]
    )
    picture = picture_of("trust-region", values)
    assert len(picture.lines("vermillion")) == 1, "no cross"
    assert len(picture.dots("vermillion")) == 0


@cases("trust-region")
def test_the_text_says_whether_ppo_leaves_the_trust_region(values):
    numbers = MODULES["trust-region"].numbers(values)
    text = picture_of("trust-region", values).text
    if np.any(numbers["step"]):
        assert ("is above max_kl" in text) == (numbers["ppo_kl"] > values["max_kl"])
        assert ("is not above max_kl" in text) == (numbers["ppo_kl"] <= values["max_kl"])


@cases("beta-answers")
def test_each_bar_has_its_own_percentage(values):
    picture = picture_of("beta-answers", values)
    bars = {
        (round(call[1][0][1]), call[2]) for call in picture.calls if call[0] == "line" and call[3:]
    }
    numbers = MODULES["beta-answers"].numbers(values)
    for colour, key in (("blue", "probabilities"), ("orange", "references")):
        shares = [c[1:] for c in picture.calls if c[0] == "text" and c[4:] == [{"fill": colour}]]
        assert len(shares) == len(numbers[key])
        for (words, _, y, _), share in zip(shares, numbers[key], strict=True):
            assert (round(y), colour) in bars
            if words[0] in "<>":
                assert share < 1e-4 if words[0] == "<" else share > 0.9995
            else:
                assert same(words.removesuffix(" %"), 100 * share)
                assert words != "100 %"


@pytest.mark.parametrize("prompt", "0123")
def test_the_axes_of_beta_are_the_same_for_both_rewards(prompt):
    values = {"beta": 0.3, "prompt": prompt}
    (gold,), (learned,) = (
        picture_of("beta-answers", {**values, "reward": reward}).panels()
        for reward in ("gold", "learned")
    )
    assert gold[:2] == learned[:2]


@cases("beta-answers")
def test_the_picture_of_beta(values):
    picture = picture_of("beta-answers", values)
    expected = MODULES["beta-answers"].numbers(values)
    roots = np.sqrt(expected["kls"])
    [(x, y, curves)] = picture.panels()
    # the bars of both policies have one scale
    bars = Picture(picture.calls[: picture.calls.index(["axes", x, y])], "")
    lengths = [line[1, 0] - line[0, 0] for c in ("blue", "orange") for line in bars.lines(c)]
    shares = [*expected["probabilities"], *expected["references"]]
    slope, offset = np.polyfit(shares, lengths, 1)
    assert slope > 200
    np.testing.assert_allclose(lengths, offset + slope * np.array(shares), atol=1e-6)

    close(curves.line("vermillion"), np.transpose([roots, expected["golds"]]))
    close(curves.dots("vermillion"), [[expected["kl"] ** 0.5, expected["gold"]]])
    if values["reward"] == "learned":
        close(curves.line("blue"), np.transpose([roots, expected["rewards"]]))
        close(curves.dots("blue"), [[expected["kl"] ** 0.5, expected["reward"]]])
        best = np.transpose([np.sqrt(expected["bestKls"]), expected["bestGolds"]])
        close(curves.line("green"), best)
    else:
        assert not curves.lines("blue")
        assert not curves.lines("green")


@cases("cartpole")
def test_the_picture_of_the_cart_after_a_second(values):
    """If every action is the most likely one, the animation is Gymnasium's episode."""
    engine, expected = engine_of("cartpole"), MODULES["cartpole"].numbers(values)
    engine.eval("Math.random = () => 0.5;")
    after = f"""(() => {{
      const {{ compute, advance }} = explorables.definitions.cartpole;
      const [values, state] = [{json.dumps(values)}, {{}}];
      const numbers = compute(values, explorables.data.cartpole);
      for (let i = 0; i < 200 && (state.steps ?? 0) < 50 && !state.pause; i++)
        advance(state, 0.01, numbers, values);
      return state;
    }})()"""
    state = result(engine, after)
    assert state["steps"] == min(50, expected["steps"])
    close(state["cart"], expected["after_a_second"])
    for cart, right, now in (
        ([0, 0, np.radians(values["angle"]), 0], expected["right"], "{}"),
        (state["cart"], state["right"], json.dumps(state)),
    ):
        picture = picture_of("cartpole", values, now)
        (rectangle,) = (call[1:] for call in picture.calls if call[0] == "fillRect")
        track = picture.lines("ink")[0]
        metre = (track[1, 0] - track[0, 0]) / 4.8
        close(rectangle[0] + rectangle[2] / 2, track[:, 0].mean() + cart[0] * metre)
        foot, tip = picture.line("vermillion")
        close(foot[0], rectangle[0] + rectangle[2] / 2)
        close(np.arctan2(tip[0] - foot[0], foot[1] - tip[1]), cart[2])
        (left_part, right_part) = (picture.line(colour) for colour in ("orange", "green"))
        close(left_part[1], right_part[0])
        share = np.diff(right_part[:, 0]) / (right_part[1, 0] - left_part[0, 0])
        close(share, right)


@cases("gae-lambda")
def test_the_picture_of_lambda(values):
    module = MODULES["gae-lambda"]
    picture, expected = picture_of("gae-lambda", values), module.numbers(values)
    (_, _, left), (_, _, states) = picture.panels()
    lams = np.arange(101) / 100
    errors = np.add(expected["biases"], expected["variances"])
    for colour, curve in (
        ("vermillion", expected["biases"]),
        ("blue", expected["variances"]),
        ("ink", errors),
    ):
        close(left.line(colour), np.transpose([lams, curve]))
    close(left.dots("green"), [[values["lam"], expected["bias"] + expected["variance"]]])
    (diamond,) = (call[1]["text"] for call in left.calls if call[0] == "fill" and call[1:])
    x, y = map(float, re.match(r"M (\S+) (\S+) ", diamond).groups())
    close([x, y + 8], [expected["best"], expected["smallest"]])
    close(states.line("sky"), np.transpose([range(5), module.VALUES]))
    critic = module.VALUES + values["wrong"] * module.ERROR
    close(states.dots("orange"), np.transpose([range(5), critic]))


@cases("group-size")
def test_the_picture_of_the_group_size(values):
    module = MODULES["group-size"]
    picture, p, size = picture_of("group-size", values), values["p"], values["group_size"]
    [(_, y, _)] = picture.panels()
    rates = np.arange(1, 100) / 100
    weights = [module.normalized_weight(rate, size) for rate in rates]
    shares = np.array([module.silent_share(rate, size) for rate in rates])
    close(picture.line("blue"), np.transpose([rates, weights]))
    close(picture.line("vermillion"), np.transpose([rates, shares * y["max"]]))
    close(picture.line("ink"), [[0, 1 - 1 / size], [1, 1 - 1 / size]])
    close(picture.dots("blue"), [[p, module.normalized_weight(p, size)]])
    close(picture.dots("vermillion"), [[p, module.silent_share(p, size) * y["max"]]])
    assert max(weights) <= y["max"]


@cases("bug-detective")
def test_the_picture_of_a_run(values):
    module = MODULES["bug-detective"]
    picture, runs = picture_of("bug-detective", values), module.curves()
    bug, columns = [*runs.items()][int(values["run"])]
    names = ("mean_return", "kl", "explained_variance", "rows_per_step")
    for name, (_, y, panel) in zip(names, picture.panels(), strict=True):
        curves = [call for call in panel.calls if call[0] == "line" and call[2] != "ink"]
        drawn = [runs["no bug"]] * (bug == values["guess"] != "no bug") + [columns]
        assert len(curves) == len(drawn)
        assert curves[-1][2] == "blue"
        for (_, points, *_), run in zip(curves, drawn, strict=True):
            inside = np.clip(run[name], y["min"], y["max"])
            close(points, np.transpose([run["environment_steps"], inside]))


@cases("bug-detective")
def test_only_the_smallest_kls_of_a_run_are_outside_its_panel(values):
    _, columns = [*MODULES["bug-detective"].curves().items()][int(values["run"])]
    names = ("mean_return", "kl", "explained_variance", "rows_per_step")
    for name, (_, y, _) in zip(names, picture_of("bug-detective", values).panels(), strict=True):
        assert columns[name].max() <= y["max"]
        if name == "kl":
            assert y["min"] == 1e-5, "the caption names this number"
        else:
            assert columns[name].min() >= y["min"]


@cases("bug-detective")
def test_the_text_mentions_grey_curves_if_there_are_any(values):
    picture = picture_of("bug-detective", values)
    colours = {call[2] for call in picture.calls if call[0] == "line"}
    assert ("grey" in picture.text) == (len(colours - {"blue", "ink"}) == 1)


@pytest.mark.parametrize("width", [250, 800])
def test_the_values_of_the_critic_are_drawn_at_every_width(width):
    values = MODULES["gae-lambda"].CASES[0]
    labels = [y["label"] for _, y, _ in picture_of("gae-lambda", values, width=width).panels()]
    assert labels == ["squared error in thousandths", "value of the state"]


UNITS = {" %": 1e-2, " thousandths": 1e-3, " millionths": 1e-6}
NUMBER = rf"(-?[\d,]*\.?\d+(?:e-?\d+)?)({'|'.join(UNITS)})?"
# For each figure, sentences of the text; `#` is the number with the name at the right, or the first
# one of a list of numbers.
SENTENCES = {
    "trust-region": {
        "The advantages are #": "advantages",
        "With max_kl = #": "max_kl",
        "The line search accepts #": "fraction",
        "The accepted step has a KL of #": "kl",
        "The accepted step has a KL of .*? and improves the surrogate by #": "gain",
        "PPO reaches a KL of #": "ppo_kl",
        "PPO reaches a KL of .*? and improves the surrogate by #": "ppo_gain",
        "ratios of PPO are #": "ratios",
    },
    "beta-answers": {
        "With β = #": "beta",
        "Its learned reward is #": "reward",
        "Its gold reward is #": "gold",
        "has a KL of #": "kl",
        "has probability #": "probabilities",
        "probability .*, and # under": "references",
    },
    "cartpole": {
        "At an angle of #": "angle",
        "pushes right with probability #": "right",
        "it balances the pole for # steps": "steps",
    },
    "gae-lambda": {
        r"With \S+ = #": "lam",
        "and n = #": "episodes",
        "squared bias is #": "bias",
        "variance divided by n is #": "variance",
        "smallest sum, #": "smallest",
        r"at \S+ = #": "best",
    },
    "group-size": {
        "With K = #": "group_size",
        "success rate #": "p",
        "has the weight #": "weight",
        "# of its groups": "silent",
    },
    "bug-detective": {
        "the mean return is #": "final_return",
        "largest KL of an update is #": "largest_kl",
        "and # of": "above",
        "critic is #": "explained",
        "uses # rows": "rows_per_step",
    },
}


@pytest.mark.parametrize("name", NAMES)
def test_the_text_says_the_numbers_of_minirl(name):
    found = dict.fromkeys(SENTENCES[name], 0)
    for values in MODULES[name].CASES:
        text = picture_of(name, values).text
        expected = {**values, **MODULES[name].numbers(values)}
        for sentence, key in SENTENCES[name].items():
            match = re.search(sentence.replace("#", NUMBER), text)
            if match:
                found[sentence] += 1
                number, unit = np.ravel(expected[key]).astype(float)[0], UNITS.get(match[2], 1)
                assert same(match[1], number / unit), (key, number, text)
    assert all(found.values()), found


def same(words, number):
    """Whether a number in a text is this number, rounded to as many digits as the text shows."""
    mantissa, _, exponent = words.replace(",", "").partition("e")
    decimals = len(mantissa.partition(".")[2]) - int(exponent or 0)
    if "," in words:
        decimals = len(mantissa.rstrip("0")) - len(mantissa)  # the zeros at the end are not exact
    return abs(float(words.replace(",", "")) - number) <= 0.5001 * 10.0**-decimals


# What Chinese text also writes in Latin letters: names, symbols, and units.
NAMES_IN_CHINESE = {
    *("CartPole", "Gymnasium", "TRPO", "PPO", "KL", "SGD", "nat", "max", "kl", "epoch", "logits"),
    *("softmax", "epsilon"),
}
TRANSLATED = [name for name in NAMES if explorables.chinese(name)]


@pytest.mark.parametrize("name", TRANSLATED)
def test_the_chinese_figure_has_no_english_sentence(name):
    engine, module = with_scripts(name, chinese=True), MODULES[name]
    engine.eval(RECORDER)
    table = explorables.chinese(name)
    texts = [table[module.TITLE], re.sub(r"\$[^$]*\$|`[^`]*`", "", table[module.CAPTION])]
    texts += result(
        engine,
        f"""explorables.definitions["{name}"].controls.flatMap(({{ label, options = [] }}) => [
            label, ...(options.call ? options(explorables.data["{name}"]) : options).flat()])""",
    )
    states = ["{}"]
    if name == "cartpole":
        episode = "cart: [0, 0, 0, 0], right: 0.5, pause: 1"
        states += [f"{{ {episode}, steps: 500, push: {{ force: {force} }} }}" for force in (-1, 1)]
        states += [f"{{ {episode}, steps: 9 }}"]
    for values in module.CASES:
        for state in states:
            call = f"record({json.dumps(name)}, {json.dumps(values)}, {state})"
            picture = Picture(**result(engine, call))
            texts.append(picture.text)
            for kind, *arguments in picture.calls:
                if kind == "text":
                    texts.append(arguments[0])
                elif kind == "axes":
                    texts += [axis["label"] for axis in arguments]
                elif kind == "legend":
                    texts += [words for words, *_ in arguments[0]]
    words = {word for text in texts for word in re.findall(r"[A-Za-z]{2,}", str(text))}
    assert words <= NAMES_IN_CHINESE, words - NAMES_IN_CHINESE
    # each sentence of the table is used
    used = json.dumps(texts, ensure_ascii=False)
    for sentence in explorables.table(name).keys() - {module.CAPTION}:
        longest = max(re.split(r"\{\d\}", table[sentence]), key=len)
        assert longest in used, sentence
