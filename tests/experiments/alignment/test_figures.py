"""The alignment chain's figures: what is drawn where, that nothing overlaps, and bad input."""

import itertools
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image
from scipy.optimize import minimize

from minirl.exact.sequences import Frontier
from minirl.experiments import figures
from minirl.experiments.alignment import figures as alignment_figures
from minirl.experiments.alignment.figures import plot_frontier, plot_learning, plot_overoptimisation

NAN = float("nan")
METHODS = ["policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo", "dpo", "ipo"]
METHODS += ["best-of-n"]
MINUS = "\N{MINUS SIGN}"


def coin(beta, p=0.1):
    """KL, reward, J* of the best policy where the reference earns 1 with probability p, else 0."""
    weight = p * np.exp(1 / beta)
    q = weight / (1 - p + weight)
    kl = q * np.log(q / p) + (1 - q) * np.log((1 - q) / (1 - p))
    return kl, q, q - beta * kl


def coin_frontier(lowest=0.15):
    betas = np.geomspace(20.0, lowest, 200)[::-1]  # so that the KL falls
    kls, rewards, objectives = coin(betas)
    return Frontier(betas, rewards, kls, objectives)


def draw_frontier(points=None, *, beta=0.5, lowest=0.15, **options):
    optimum = coin(beta)[:2]
    options = {"frontier": coin_frontier(lowest), "optimum": optimum, "title": "t"} | options
    points = {"ppo": [optimum]} if points is None else points
    return plot_frontier(points=points, reference=(0.0, 0.1), beta=beta, **options)


def near_points(beta):
    """Three seeds of eight methods close to the optimum and five best-of-n, all possible."""
    kl, reward, _ = coin(beta)
    shifts = np.linspace(-0.03, 0.03, 24).reshape(8, 3)
    points = {
        name: [(kl * (1 + shift), reward * (1 - 3 * abs(shift))) for shift in row]
        for name, row in zip(METHODS[:8], shifts, strict=True)
    }
    return points | {"best-of-n": [(x, y - 0.01) for x, y, _ in map(coin, (3, 1, 0.6, 0.4, 0.3))]}


def labelled(axes, name):
    label = figures.LABELS.get(name, name)
    (line,) = [line for line in axes.get_lines() if line.get_label() == label]
    return line


def words(axes):
    return [text.get_text() for text in axes.texts]


def assert_lines(axes, **wanted):
    """The lines of these names go through these points."""
    for name, points in wanted.items():
        np.testing.assert_allclose(labelled(axes, name).get_xydata(), points)


def boxes_of_texts(axes):
    return {text.get_text(): text.get_window_extent() for text in axes.texts if text.get_text()}


def assert_inside(figure, boxes):
    for box in boxes:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= figure.bbox.width
        assert box.y1 <= figure.bbox.height


def drawn_panels(figure):
    """The boxes of all panels, which neither overlap nor reach the title or out of the figure."""
    figure.canvas.draw()
    panels = {i: axes.get_tightbbox() for i, axes in enumerate(figure.axes)}
    assert_apart(panels)
    assert_inside(figure, panels.values())
    assert figure._suptitle.get_window_extent().y0 >= max(box.y1 for box in panels.values())
    return panels


def assert_apart(boxes):
    for (name, box), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not box.overlaps(second), (name, other)


def test_all_methods_differ_in_line_and_in_marker_also_without_colour():
    styles = figures.algorithm_styles(METHODS)
    assert len(set(styles.values())) == len(METHODS)
    assert not set(styles.values()) & set(figures.OTHER_STYLES)
    shown = [styles[name] for name in METHODS[:8]]  # best-of-n has no curve
    grey = [line for _, line in shown]
    for line in set(grey):  # the same dashes only for colours of very different lightness
        same = [color for color, other in shown if other == line]
        assert np.ptp([lightness(color) for color in same]) > 0.15 or len(same) == 1
    looks = alignment_figures._marker_looks([*METHODS, "mine", "yours"])
    assert len({look["marker"] for look in looks.values()}) == len(METHODS) + 2
    for name in METHODS:
        assert looks[name]["markeredgecolor"] == styles[name][0]


def lightness(color):
    red, green, blue = (int(to_hex(color)[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.299 * red + 0.587 * green + 0.114 * blue


def test_the_frontier_runs_from_the_reference_through_all_its_points():
    figure = draw_frontier()
    main = figure.axes[0]
    kls, rewards, _ = coin(np.geomspace(20.0, 0.15, 200))
    assert_lines(main, frontier=np.c_[np.append(0.0, kls), np.append(0.1, rewards)])
    assert main.get_xlabel() == "KL(policy || reference), nats per sentence"
    assert main.get_ylabel() == "expected gold reward"
    assert figure._suptitle.get_text() == "t"


def test_only_what_lies_above_the_frontier_is_marked_as_impossible():
    figure = draw_frontier(near_points(0.5), lowest=0.4)
    for axes in figure.axes[:2]:
        (area,) = axes.collections
        assert area.get_hatch()
        region = area.get_paths()[0]
        for beta in (2.0, 1.0, 0.5):
            kl, reward, _ = coin(beta)
            assert region.contains_point((kl, reward + 1e-3))
            assert not region.contains_point((kl, reward - 1e-3))
        kl, _, objective = coin(0.4)  # the last beta: further on, its tangent is the bound
        assert region.contains_point((kl + 1, objective + 0.4 * (kl + 1) + 1e-6))
        assert not region.contains_point((kl + 1, objective + 0.4 * (kl + 1) - 1e-6))
    assert "no policy can be here" in words(figure.axes[0])


def test_every_point_is_drawn_in_both_panels_and_hollow():
    points = near_points(0.5)
    figure = draw_frontier(points, labels={"best-of-n": list("abcde")})
    for axes in figure.axes[:2]:
        assert_lines(axes, **points, optimum=[coin(0.5)[:2]], reference=[(0.0, 0.1)])
        for name in points:
            line = labelled(axes, name)
            assert line.get_linestyle() == "None"
            assert (line.get_markerfacecolor() == "none") == (name != "best-of-n")
    everything = np.vstack([(0.0, 0.1), *points.values()])
    low, high = np.transpose([figure.axes[0].get_xlim(), figure.axes[0].get_ylim()])
    assert (low < everything).all()
    assert (everything < high).all()


def test_the_line_of_equal_objective_has_slope_beta_and_touches_at_the_optimum():
    main = draw_frontier(beta=0.5).axes[0]
    line = labelled(main, "equal objective")
    kl, reward, objective = coin(0.5)
    assert (line.get_slope(), *line.get_xy1()) == (0.5, kl, reward)
    told = {f"equal objective J = {objective:.2f}", f"optimum: J* = {objective:.2f}"}
    assert told | {"reference: J = 0.10"} <= set(words(main))
    text = next(text for text in main.texts if text.get_text().startswith("equal"))
    x, y = text.get_position()
    assert 0 < y - (objective + 0.5 * x) < 0.01 * np.ptp(main.get_ylim())
    ((right, up),) = np.diff(main.transData.transform([(0, 0), (1, 0.5)]), axis=0)
    assert text.get_rotation() == pytest.approx(np.degrees(np.arctan2(up, right)))


def test_the_enlargement_holds_what_is_near_the_optimum():
    kl, reward, objective = coin(0.5)
    gain = objective - 0.1
    points = {
        "ppo": [(1.1 * kl, reward + 0.02)],
        "trpo": [(1.05 * kl, reward + 0.025 * kl - 0.049 * gain)],
        "rloo": [(0.80 * kl, reward - 0.100 * kl - 0.051 * gain)],  # its objective is too low
        "ipo": [(0.74 * kl, reward - 0.13 * kl)],  # its objective would do, but it is far away
        "best-of-n": [(0.9 * kl, reward - 0.05 * kl)],  # a setting, not a seed
    }
    figure = draw_frontier(points, labels={"best-of-n": ["n = 4"]})
    main, zoom, _ = figure.axes
    (left, right), (bottom, top) = zoom.get_xlim(), zoom.get_ylim()
    assert (left, right) == pytest.approx((kl - 0.012 * kl, 1.1 * kl + 0.012 * kl))
    assert (bottom, top) == pytest.approx((reward - 0.0024, reward + 0.02 + 2 * 0.0024))
    assert zoom.get_title(loc="left") == "around the optimum, enlarged"
    ends = sorted(tuple(np.ravel([line.xy1, line.xy2])) for line in figure.artists)
    assert ends == [(right, bottom, left, bottom), (right, top, left, top)]
    assert all(line.axesA is main and line.axesB is zoom for line in figure.artists)


@pytest.mark.parametrize(
    ("points", "labels", "panels"),
    [
        ({"ipo": [(0.0, 0.1)], "best-of-n": [(0.1, 0.2)]}, None, 2),
        ({"best-of-n": [coin(0.5)[:2]]}, {"best-of-n": ["n = 2"]}, 2),
        ({"best-of-n": [coin(0.5)[:2]]}, None, 3),
    ],
)
def test_without_a_method_near_the_optimum_nothing_is_enlarged(points, labels, panels):
    assert len(draw_frontier(points, labels=labels).axes) == panels


def test_the_key_tells_each_methods_fraction_of_the_optimum():
    # beta 1/2, J_ref = 1, J* = 4 - 1 = 3
    figure = plot_frontier(
        Frontier(*(np.array([x]) for x in (0.5, 4.0, 2.0, 3.0))),
        {
            "ppo": [(1.0, 2.5), (1.0, 3.5)],  # J = 2 and 3: 50 % and 100 %
            "ipo": [(1.0, 1.0)],  # J = 1/2
            "best-of-n": [(1.0, 2.0), (2.0, 3.8), (4.0, 4.5)],  # J = 1.5, 2.8, 2.5
        },
        reference=(0.0, 1.0),
        optimum=(2.0, 4.0),
        beta=0.5,
        labels={"best-of-n": ["n = 2", "4", "8"]},
        title="",
    )
    main, *_, key = figure.axes
    told = words(key)
    assert f"J = reward {MINUS} 0.5 KL" in told
    assert told[-6:] == ["PPO", "75.0 %", "IPO", f"{MINUS}25.0 %", "best-of-n", "up to 90.0 %"]
    places = {text.get_text(): text.xy for text in main.texts if hasattr(text, "xy")}
    wanted = {"n = 2": (1.0, 2.0), "4": (2.0, 3.8), "8": (4.0, 4.5)}
    assert wanted.items() <= places.items()
    assert [line.get_marker() for line in key.get_lines()[1:]] == ["D", "X", "."]


@pytest.mark.parametrize("beta", [0.2, 1.5])
def test_no_words_of_the_frontier_overlap_or_are_cut_off(beta):
    labels = {"best-of-n": [f"n = {n}" for n in (2, 4, 8, 16, 64)]}
    figure = draw_frontier(near_points(beta), beta=beta, labels=labels)
    drawn_panels(figure)
    main, _, key = figure.axes
    own = {text: box for text, box in boxes_of_texts(main).items() if not text.startswith("n =")}
    own.pop(next(text for text in own if text.startswith("equal")))  # aslant: its box is too large
    assert_apart(own)
    assert_apart(boxes_of_texts(key))
    frame = main.get_window_extent()
    for box in own.values():
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert box.y1 <= frame.y1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": {"ppo": []}}, "points['ppo'] must have shape (N, 2), got (0,)"),
        ({"points": {"ppo": [(1.0, 2, 3)]}}, "points['ppo'] must have shape (N, 2), got (1, 3)"),
        ({"points": {"ppo": [(NAN, 2.0)]}}, "limits cannot be NaN"),  # Matplotlib's own error
        ({"optimum": (0.5, 0.1)}, "J* - J_ref must be a finite number above 0"),
        ({"optimum": (0.5, NAN)}, "J* - J_ref must be a finite number above 0"),
    ],
)
def test_the_frontier_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_frontier(**changes)


SENTENCES = np.array([0.0, 10_000.0, 20_000.0])


# J from 1 towards 3; what is missing, of 2, is 1, .5, .125 and 1, .25, .025 for two seeds
CURVES = {"ppo": [(SENTENCES, [1.0, 2.0, 2.75]), (SENTENCES, [1.0, 2.5, 2.95])]}


OFFLINE = {
    "dpo": [([6000] * 3, [1.0, 2.0, 2.9]), ([6000] * 3, [1.0, 2.0, 2.8])],
    "ipo": [(np.full(2, 6200.0), [1.0, 1.5])],
}


def draw_learning(curves=CURVES, offline=OFFLINE, **options):
    options = {"reference_objective": 1.0, "optimal_objective": 3.0, "title": "t"} | options
    return plot_learning(curves, offline=offline, **options)


def test_learning_shows_the_objective_and_beneath_it_what_is_missing():
    above, below = draw_learning().axes
    seeds = [line for line in above.get_lines() if line.get_label().startswith("_")][:2]
    for line, (sentences, objectives) in zip(seeds, CURVES["ppo"], strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.c_[sentences, objectives])
    assert_lines(above, ppo=np.c_[SENTENCES, [1.0, 2.25, 2.85]])
    assert_lines(below, ppo=np.c_[SENTENCES, [1.0, 0.375, 0.075]])
    mean = labelled(above, "ppo")
    assert mean.get_linewidth() > 2 * seeds[0].get_linewidth()
    assert to_hex(mean.get_color()) == figures.VERMILLION.lower()
    assert (above.get_yscale(), below.get_yscale()) == ("linear", "log")
    assert below.yaxis.get_major_formatter()(0.003, 0) == "0.3 %"
    assert below.xaxis.get_major_formatter()(20_000, 0) == "20k"
    assert above.get_xlim() == below.get_xlim()
    assert below.get_xlim()[0] == 0.0
    label = "sentences sampled\n(thick: mean over 1 to 2 seeds, thin: each seed)"
    assert below.get_xlabel() == label


def test_offline_methods_rise_at_their_place_to_the_mean_of_their_seeds():
    figure = draw_learning()
    above, below = figure.axes
    for axes, start, ends in ((above, 1.0, (2.85, 1.5)), (below, 1.0, (0.075, 0.75))):
        for name, used, end in zip(("dpo", "ipo"), (6000, 6200), ends, strict=True):
            line = labelled(axes, f"{name.upper()} (offline)")
            np.testing.assert_allclose(line.get_xydata(), [(used, start), (used, end)])
            assert line.get_marker() == alignment_figures.MARKERS[name][0]
            assert line.get_markevery() == [1]
            # drawn aside of each other by points, not by sentences
            shift = line.get_transform().transform((used, end)) - axes.transData.transform(
                (used, end)
            )
            points = shift * 72 / figure.dpi
            np.testing.assert_allclose(points, [5.0 * (name == "ipo"), 0.0], atol=1e-6)
    thin = [line for line in above.get_lines() if len(line.get_xdata()) == 3][3:]
    assert [list(line.get_ydata()) for line in thin] == [[1.0, 2.0, 2.9], [1.0, 2.0, 2.8]]
    assert all(set(line.get_xdata()) == {6000.0} for line in thin)


def test_the_axes_hold_offline_methods_alone_and_a_single_seed_has_no_thin_line():
    above, below = draw_learning({}, {"dpo": [([6000, 6000], [1.0, 2.98])]}).axes
    assert above.get_xlim()[1] > 6000
    assert below.get_ylim()[0] < 0.01
    assert below.get_xlabel() == "sentences sampled\n(one seed per method)"
    assert not below.texts
    above, _ = draw_learning({"ppo": CURVES["ppo"][:1]}, {}).axes
    assert above.get_lines()[0].get_label() == "PPO"
    assert len(above.get_lines()) == 1 + 2


def test_both_objectives_are_dashed_lines_with_names():
    above, _ = draw_learning().axes
    dashed = [line for line in above.get_lines() if line.is_dashed()]
    ends = [line.get_ydata()[0] for line in dashed if set(line.get_xdata()) == {0, 1}]
    assert ends == [3.0, 1.0]
    optimum, reference = ((text.get_text(), text.get_position()[1]) for text in above.texts)
    assert optimum == ("optimum\nJ* = 3.00", 3.0)
    assert re.fullmatch(r"reference\n.* = 1\.00", reference[0])
    assert reference[1] == 1.0


def test_what_has_reached_the_optimum_is_left_out_of_the_logarithmic_panel():
    curves = {"ppo": [(SENTENCES, [1.0, 2.9, 3.0])], "trpo": [(SENTENCES, [1.0, 2.0, 2.5])]}
    figure = draw_learning(curves, {})
    figure.canvas.draw()  # no warning
    assert words(figure.axes[1]) == ["TRPO"]


def test_names_stand_at_the_right_in_the_order_of_the_ends_and_apart():
    rng = np.random.default_rng(0)
    ends = dict(zip(METHODS[:6], 3 - 0.02 * rng.random(6), strict=True))
    curves = {name: [(SENTENCES, [1.0, 2.0, end])] for name, end in ends.items()}
    figure = draw_learning(curves, title="W long title " * 12)
    drawn_panels(figure)
    above, below = figure.axes
    boxes = boxes_of_texts(below)
    assert_apart(boxes)
    by_height = sorted(boxes, key=lambda name: boxes[name].y0)
    assert by_height == [
        figures.LABELS[name] for name in sorted(ends, key=lambda name: -ends[name])
    ]
    colors = {text.get_text(): text.get_color() for text in below.texts}
    assert colors == {figures.LABELS[name]: figures.KNOWN_STYLES[name][0] for name in ends}
    legend, frame = above.get_legend().get_window_extent(), above.get_window_extent()
    assert legend.y0 >= frame.y1
    assert legend.x1 <= figure.bbox.width
    assert legend.y1 <= figure._suptitle.get_window_extent().y0


def test_spread_is_the_nearest_arrangement_that_keeps_its_distance():
    rng = np.random.default_rng(1)
    for count, apart in ((1, 0.1), (4, 0.1), (5, 0.2), (5, 0.25)):
        wanted = np.sort(rng.random(count) ** 2)
        found = alignment_figures._spread(wanted, apart)
        best = minimize(
            lambda y, wanted=wanted: ((y - wanted) ** 2).sum(),
            np.linspace(0.0, 1.0, count),
            jac=lambda y, wanted=wanted: 2 * (y - wanted),
            bounds=[(0.0, 1.0)] * count,
            constraints={"type": "ineq", "fun": lambda y, apart=apart: np.diff(y) - apart},
            method="SLSQP",
            tol=1e-12,
        )
        np.testing.assert_allclose(found, best.x, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"curves": {"ppo": []}},
            "curves['ppo'] must have columns of one length of at least 1, go",
        ),
        ({"curves": {"ppo": [([], [])]}}, "got sentences of seed 0 (0,), objective of seed 0 (0,)"),
        (
            {"curves": {"ppo": [(SENTENCES, SENTENCES), (SENTENCES, [1.0])]}},
            "sentences of seed 1 (3,), objective of seed 1 (1,)",
        ),
        ({"offline": {"dpo": [([6, 6], [1.0])]}}, "offline['dpo'] must have columns of one length"),
        ({"optimal_objective": 1.0}, "J* - J_ref must be a finite number above 0, got 0.0"),
        ({"reference_objective": NAN}, "J* - J_ref must be a finite number above 0, got nan"),
    ],
)
def test_learning_names_what_is_wrong(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        draw_learning(**changes)


def overoptimised():
    """Gold 1, 3, 2 at distances 0, 1, 2; the second path begins a little further on."""
    kl = np.array([0.0, 1.0, 4.0])
    return {
        "exact optimum": {"kl": kl + 0.01, "gold": [1.1, 3.5, -2.0], "learned": [1.1, 4.0, 5.0]},
        "best-of-n": {"kl": kl, "gold": [1.0, 3.0, 2.0], "learned": [1.0, 3.0, 4.0]},
        "PPO": {"kl": kl[:2], "gold": [1.0, 3.0], "learned": [1.0, 2.0]},
    }


def test_each_method_has_a_panel_with_gold_and_learned_reward():
    figure = plot_overoptimisation(overoptimised(), title="t")
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(overoptimised())
    for axes, columns in zip(figure.axes, overoptimised().values(), strict=True):
        distance, best = np.sqrt(columns["kl"]), int(np.argmax(columns["gold"]))
        assert_lines(axes, **{name: np.c_[distance, columns[name]] for name in ("gold", "learned")})
        assert_lines(axes, peak=[(distance[best], columns["gold"][best])])
        assert [labelled(axes, name).is_dashed() for name in ("gold", "learned")] == [False, True]
        # of the point with the least KL of all
        assert set(labelled(axes, "reference").get_ydata()) == {1.0}
        (shade,) = axes.collections
        top = max(*columns["gold"], *columns["learned"])
        assert shade.get_paths()[0].vertices[:, 1].max() == top
        assert axes.get_xlim() == (0.0, pytest.approx(1.25 * np.sqrt(4.01)))
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    label = "sqrt(KL(policy || reference)), square root of nats per sentence"
    assert figure._supxlabel.get_text().startswith(label)
    (axes,) = plot_overoptimisation({"PPO": PATH | {"kl": [-1e-16, 1.0]}}, title="").axes
    assert labelled(axes, "gold").get_xdata().tolist() == [0.0, 1.0]  # rounding below 0 is 0


def test_the_panels_tell_peak_and_end_and_name_both_lines():
    exact, search, ppo = plot_overoptimisation(overoptimised(), title="").axes
    assert words(exact)[-1] == f"gold peaks at 3.50, ends at {MINUS}2.00;\nlearned ends at 5.00"
    assert words(search)[-1] == "gold peaks at 3.00, ends at 2.00;\nlearned ends at 4.00"
    assert "reference\n1.00" in words(ppo)
    for axes, learned, gold in ((search, "bottom", "top"), (ppo, "top", "bottom")):
        sides = {text.get_text(): text.get_va() for text in axes.texts}
        assert (sides["learned"], sides["gold"]) == (learned, gold)
    names = {text.get_text(): text.xy for text in search.texts if hasattr(text, "xy")}
    assert names["learned"] == (2.0, 4.0)
    assert names["gold"] == (2.0, 2.0)


@pytest.mark.parametrize("methods", [["exact optimum", "best-of-n", "PPO"], ["PPO"]])
def test_nothing_of_the_over_optimisation_overlaps_or_is_cut_off(methods):
    paths = {name: overoptimised()[name] for name in methods}
    figure = plot_overoptimisation(paths, title="W long $title_ " * 12)
    panels = drawn_panels(figure)
    label = figure._supxlabel.get_window_extent()
    assert_inside(figure, [figure._suptitle.get_window_extent(), label])
    assert label.y1 <= min(box.y0 for box in panels.values())
    for axes in figure.axes:
        assert_apart(boxes_of_texts(axes) | {"": axes._left_title.get_window_extent()})


PATH = {"kl": [0.0, 1.0], "gold": [1.0, 2.0], "learned": [1.0, 2.0]}


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ({"PPO": {"kl": [0.0], "gold": [1.0]}}, "got kl (1,), gold (1,), learned missing"),
        ({"PPO": PATH | {"gold": [1.0]}}, "paths['PPO'] must have columns of one length"),
        ({"PPO": PATH | {"kl": [NAN, 1.0]}}, "limits cannot be NaN"),  # Matplotlib's own error
    ],
)
def test_over_optimisation_names_what_is_wrong(paths, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        plot_overoptimisation(paths, title="")


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: draw_frontier(path=path),
        lambda path: draw_learning(path=path),
        lambda path: plot_overoptimisation(overoptimised(), title="", path=path),
    ],
    ids=["frontier", "learning", "overoptimisation"],
)
def test_the_same_numbers_give_the_same_file(draw, tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "DPI", 50)  # only to be quick
    for name in ("a.png", "b.png"):
        figure = draw(tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.format == "PNG"
        np.testing.assert_allclose(image.size, figure.get_size_inches() * 50, atol=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]
