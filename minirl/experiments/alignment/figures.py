"""The three figures of the alignment chain: frontier, learning curves, over-optimisation.

Their style is that of `minirl.experiments.figures`. Rewards, objectives and KL are means over
prompts, and the KL is in nats per sentence. The objective is
``J = E[reward] - beta KL(policy || reference)``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory, offset_copy
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from minirl.exact.sequences import Frontier
from minirl.experiments import figures
from minirl.experiments.figures import BLUE, GREY, INK, ORANGE, Array
from minirl.support.validation import require_columns, require_positive, require_rows

__all__ = ["plot_frontier", "plot_learning", "plot_overoptimisation"]

Point = tuple[float, float]
Curve = tuple[ArrayLike, ArrayLike]

# the marker's shape, and the size in points at which all markers look equally large
MARKERS = {
    "policy-gradient": ("o", 8.0),
    "natural-gradient": ("s", 7.0),
    "trpo": ("^", 8.0),
    "ppo": ("D", 6.5),
    "rloo": ("v", 8.0),
    "grpo": ("p", 8.5),
    "dpo": ("P", 8.0),
    "ipo": ("X", 8.0),
    "best-of-n": (".", 8.0),
}
OTHER_MARKERS = (("h", 8.5), ("<", 8.0), (">", 8.0), ("8", 8.0), ("d", 7.5))

FORBIDDEN, HATCH = "#f1f1f1", "#d4d4d4"
MINUS = "\N{MINUS SIGN}"
J_REF = r"$\mathregular{J_{ref}}$"
OUTLINED = [withStroke(linewidth=3, foreground="white")]
NOTE: dict[str, Any] = {"fontsize": 10, "color": INK, "path_effects": OUTLINED}
BESIDE: dict[str, Any] = {"textcoords": "offset points", **NOTE}
AXIS_LABEL: dict[str, Any] = {"fontsize": 11, "color": INK}

NEAR_FRACTION, NEAR_KL = 0.05, 0.25


# The frontier of reward and KL


def plot_frontier(
    frontier: Frontier,
    points: Mapping[str, Sequence[Point]],
    *,
    reference: Point,
    optimum: Point,
    beta: float,
    labels: Mapping[str, Sequence[str]] | None = None,
    title: str,
    path: str | Path | None = None,
) -> Figure:
    """Draw the exact frontier of expected gold reward against KL, and each method as a point.

    The line of equal objective touches the frontier at the optimum. The vertical distance of a
    point from this line is J* - J of its policy. The right side shows the neighbourhood of the
    optimum, enlarged, if any method reached it. Below it is each method's fraction of the optimum,
    ``(J - J_ref) / (J* - J_ref)``, as the mean over its points.

    Parameters
    ----------
    frontier : Frontier
        In any order. With fewer than 200 betas, the straight pieces between them are visible.
    points : dict
        From a method's name to its (KL, reward) for each seed.
    reference, optimum : (KL, reward)
        Of the reference, at KL 0, and of the best policy at this `beta`.
    beta : float
        In units of reward per nat.
    labels : dict, optional
        From a name to one text for each of its points, which is written beside the point. Such
        points are settings, such as the n of best-of-n, and not seeds: the table shows the best of
        them instead of their mean, and they do not affect which part is enlarged.
    title : str
    path : path, optional
        Where to save the figure, in the format that its suffix names.

    Raises
    ------
    ValueError
        If the points of a method are not pairs, or the optimum is no better than the reference.
    """
    methods = {name: np.asarray(pairs, dtype=np.float64) for name, pairs in points.items()}
    for name, pairs in methods.items():
        require_rows(f"points[{name!r}]", pairs, (2,))
    labels = labels or {}
    gain = _objective(optimum, beta) - _objective(reference, beta)
    require_positive("J* - J_ref", gain)

    figure = figures._agg_figure(10.5, 6.2)
    _headed(figure, title)
    grid = figure.add_gridspec(2, 2, width_ratios=[1.85, 1], height_ratios=[1.1, 1])
    main = figure.add_subplot(grid[:, 0])
    _draw_policies(main, frontier, methods, reference, optimum, beta)
    _frame_everything(main, frontier, np.vstack([reference, optimum, *methods.values()]))
    _name_places(main, reference, optimum, beta)
    for name, texts in labels.items():
        for point, text in zip(methods[name], texts, strict=True):
            main.annotate(text, point, xytext=(5, -4), va="top", **BESIDE)
    seeds = [pairs for name, pairs in methods.items() if name not in labels]
    window = _neighbourhood(np.vstack([np.empty((0, 2)), *seeds]), optimum, beta, gain)
    if window is not None:
        zoom = figure.add_subplot(grid[0, 1])
        _draw_policies(zoom, frontier, methods, reference, optimum, beta)
        _enlarge(figure, main, zoom, *window)
    gains = {n: _objective(p.T, beta) - _objective(reference, beta) for n, p in methods.items()}
    key = figure.add_subplot(grid[0 if window is None else 1, 1])
    _draw_key(key, {name: gains[name] / gain for name in gains}, labels, beta)
    return figures._finished(figure, path)


def _percent(fraction: float) -> str:
    """A fraction in per cent, with a power of ten if it is huge (beta is far too large)."""
    return f"{fraction:.1%}" if abs(fraction) < 100 else f"{100 * fraction:.1e} %"


def _objective(point: Any, beta: float) -> Any:
    kl, reward = point
    return reward - beta * kl


def _draw_policies(
    axes: Axes,
    frontier: Frontier,
    methods: Mapping[str, Array],
    reference: Point,
    optimum: Point,
    beta: float,
) -> None:
    """Draw the frontier, the area beyond it, the line of equal objective, and every point."""
    figures._clean(axes)
    order = np.argsort(frontier.kls)
    kls = np.append(reference[0], frontier.kls[order])
    rewards = np.append(reference[1], frontier.rewards[order])
    # Beyond the end of the frontier, its last tangent is the bound.
    beyond = 10 * (kls[-1] + optimum[0])
    bound = frontier.objectives[order[-1]] + frontier.betas[order[-1]] * beyond
    axes.fill_between(
        np.append(kls, beyond),
        np.append(rewards, bound),
        1e3 * abs(bound),
        facecolor=FORBIDDEN,
        edgecolor=HATCH,
        hatch="///",
        linewidth=0,
        zorder=0.6,
    )
    axes.plot(kls, rewards, color=INK, linewidth=2.2, zorder=3, label="frontier")
    axes.axline(
        optimum, slope=beta, color=GREY, linewidth=1, linestyle=(0, (6, 3)), label="equal objective"
    )
    for name, look in _marker_looks(list(methods)).items():
        label = figures.LABELS.get(name, name)
        axes.plot(*methods[name].T, label=label, zorder=5, **look)
    axes.plot(*reference, "o", color=INK, markersize=8, zorder=4, label="reference")
    star: dict[str, Any] = {"markersize": 14, "markeredgecolor": "white", "zorder": 6}
    axes.plot(*optimum, "*", color=INK, label="optimum", **star)


def _marker_looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each method's marker: hollow, so that markers below stay visible; best-of-n's is full."""
    styles = figures.algorithm_styles(names)
    others = [name for name in names if name not in MARKERS]
    markers = MARKERS | {n: OTHER_MARKERS[i % len(OTHER_MARKERS)] for i, n in enumerate(others)}
    return {
        name: {
            "linestyle": "none",
            "marker": markers[name][0],
            "markersize": markers[name][1],
            "markerfacecolor": styles[name][0] if name == "best-of-n" else "none",
            "markeredgecolor": styles[name][0],
            "markeredgewidth": 1.5,
        }
        for name in names
    }


def _frame_everything(axes: Axes, frontier: Frontier, places: Array) -> None:
    """Set limits that include all places (n, 2), with room above the frontier; label the axes."""
    right, bottom = 1.12 * places[:, 0].max(), places[:, 1].min()
    height = np.append(frontier.rewards[frontier.kls <= right], places[:, 1]).max() - bottom
    axes.set(xlim=(-0.025 * right, right), ylim=(bottom - 0.1 * height, bottom + 1.22 * height))
    axes.set_xlabel("KL(policy || reference), nats per sentence", **AXIS_LABEL)
    axes.set_ylabel("expected gold reward", **AXIS_LABEL)


def _name_places(axes: Axes, reference: Point, optimum: Point, beta: float) -> None:
    """Write the names of the area, the line and the two points where there is room for them."""
    best, right = _objective(optimum, beta), axes.get_xlim()[1]
    bottom, top = axes.get_ylim()
    line_is_low = best + 0.36 * beta * right < bottom + 0.86 * (top - bottom)
    axes.text(
        0.03 if line_is_low else 0.97,
        0.965,
        "no policy can be here",
        transform=axes.transAxes,
        ha="left" if line_is_low else "right",
        va="top",
        style="italic",
        **NOTE,
    )
    start = 0.03 * right if optimum[0] > right / 2 else optimum[0] + 0.06 * right
    axes.text(
        start,
        best + beta * start + 0.008 * (top - bottom),
        f"equal objective J = {best:.2f}",
        rotation=np.degrees(np.arctan(beta)),
        rotation_mode="anchor",
        transform_rotates_text=True,
        va="bottom",
        **NOTE | {"color": GREY},
    )
    climb = 50 if optimum[1] - reference[1] < 0.25 * (top - bottom) else -50
    axes.annotate(f"reference: J = {reference[1]:.2f}", reference, xytext=(11, -4), **BESIDE)
    axes.annotate(
        f"optimum: J* = {best:.2f}",
        optimum,
        xytext=(-22, 36) if optimum[0] > 0.3 * right else (84, climb),
        ha="center",
        arrowprops={"arrowstyle": "-", "color": GREY, "shrinkA": 1, "shrinkB": 8},
        **BESIDE,
    )


def _neighbourhood(
    places: Array, optimum: Point, beta: float, gain: float
) -> tuple[Point, Point] | None:
    """Limits in KL and reward around the places (n, 2) near the optimum, None if there are none."""
    missing = _objective(optimum, beta) - _objective(places.T, beta)
    apart = abs(places[:, 0] - optimum[0])
    near = places[(missing < NEAR_FRACTION * gain) & (apart < NEAR_KL * optimum[0])]
    if not near.size:
        return None
    shown = np.vstack([near, optimum])
    low, high = shown.min(axis=0), shown.max(axis=0)
    margin = 0.12 * np.maximum(high - low, 0.02 * np.abs(optimum))
    (left, bottom), (right, top) = low - margin, high + margin
    return (left, right), (bottom, top + margin[1])


def _enlarge(figure: Figure, main: Axes, zoom: Axes, xlim: Point, ylim: Point) -> None:
    """Make `zoom` show this part of `main`, and connect the two with lines."""
    zoom.set(xlim=xlim, ylim=ylim)
    zoom.set_title("around the optimum, enlarged", loc="left", fontsize=10.5, color=INK)
    zoom.xaxis.set_major_locator(MaxNLocator(4, steps=figures.NEAT_STEPS))
    zoom.yaxis.set_major_locator(MaxNLocator(5, steps=figures.NEAT_STEPS))
    zoom.yaxis.tick_right()
    zoom.spines[:].set(visible=True, color=GREY)
    for y in ylim:
        ends = (xlim[1], y), (xlim[0], y)
        line = ConnectionPatch(*ends, "data", "data", axesA=main, axesB=zoom, color=GREY)
        line.set(linewidth=0.8, alpha=0.7, in_layout=False)
        figure.add_artist(line)


def _draw_key(
    axes: Axes, fractions: Mapping[str, Array], labelled: Collection[str], beta: float
) -> None:
    """Draw the legend as a table: marker, name, fraction of the optimum."""
    axes.set(xlim=(0, 1), ylim=(max(len(fractions) + 3.3, 12.3), -0.2))
    axes.axis("off")
    small: dict[str, Any] = {"va": "center", "fontsize": 9.5, "color": GREY}
    axes.plot([0.0, 0.1], [0, 0], color=INK, linewidth=2.2)
    axes.text(0.14, 0, "frontier: the largest reward for each KL", **small)
    axes.text(0.14, 1, f"J = reward {MINUS} {beta:g} KL", **small)
    axes.text(1.0, 2.1, f"(J {MINUS} {J_REF}) / (J* {MINUS} {J_REF})", ha="right", **small)
    row: dict[str, Any] = {"va": "center", "fontsize": 10.5, "color": INK}
    for y, (name, look) in enumerate(_marker_looks(list(fractions)).items()):
        of_optimum = fractions[name]
        text = _percent(of_optimum.max() if name in labelled else of_optimum.mean())
        if name in labelled:
            text = f"up to {text}"
        axes.plot(0.05, y + 3.3, **look)
        axes.text(0.14, y + 3.3, figures.LABELS.get(name, name), parse_math=False, **row)
        axes.text(1.0, y + 3.3, text.replace("%", " %").replace("-", MINUS), ha="right", **row)


# Learning curves


def plot_learning(
    curves: Mapping[str, Sequence[Curve]],
    *,
    offline: Mapping[str, Sequence[Curve]],
    reference_objective: float,
    optimal_objective: float,
    title: str,
    path: str | Path | None = None,
) -> Figure:
    """Draw the exact objective, and below it the distance to the optimum, against sentences.

    The mean over seeds is a thick line, and each seed a thin one. A method that learns offline has
    sampled all its sentences beforehand. It is a vertical line from the start of its first seed to
    a marker at the mean end of its seeds. Offline methods are drawn a little beside each other.

    The lower panel shows ``(J* - J) / (J* - J_ref)`` on a logarithmic axis, which separates methods
    that all come close to the optimum. Points that have reached it are not drawn there.

    Parameters
    ----------
    curves, offline : dict
        From a method's name to, for each seed, the sentences sampled (U,) and the objective (U,).
        The seeds of one method have the same number U of points.
    reference_objective, optimal_objective : float
        J_ref and J*.
    title : str
    path : path, optional
        Where to save the figure, in the format that its suffix names.

    Raises
    ------
    ValueError
        If the lengths within a method differ, or J* is not above J_ref.
    """
    online_seeds = {name: _seeds(f"curves[{name!r}]", seeds) for name, seeds in curves.items()}
    offline_seeds = {name: _seeds(f"offline[{name!r}]", seeds) for name, seeds in offline.items()}
    gain = optimal_objective - reference_objective
    require_positive("J* - J_ref", gain)

    figure = figures._agg_figure(9.0, 8.6)
    _headed(figure, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.1, 1])
    _draw_learning(figure, above, online_seeds, offline_seeds)
    _label_objectives(above, reference_objective, optimal_objective)

    def missing(seeds: Array) -> Array:
        return np.stack([seeds[:, 0], (optimal_objective - seeds[:, 1]) / gain], axis=1)

    online_missing = {name: missing(seeds) for name, seeds in online_seeds.items()}
    offline_missing = {name: missing(seeds) for name, seeds in offline_seeds.items()}
    _draw_learning(figure, below, online_missing, offline_missing)
    _label_missing(below)
    counts = [len(seeds) for seeds in (*curves.values(), *offline.values())]
    below.set_xlim(left=0)
    below.set_xlabel(f"sentences sampled\n({_seeds_note(counts)})", **AXIS_LABEL)
    below.xaxis.set_major_formatter(FuncFormatter(figures._abbreviate))
    figure.draw_without_rendering()  # the layout determines the height of a line of text
    ends = {name: seeds[:, 1, -1].mean() for name, seeds in online_missing.items()}
    _name_ends(figure, below, ends)
    return figures._finished(figure, path)


def _seeds(name: str, curves: Sequence[Curve]) -> Array:
    """The sentences and the objectives of one method, as an array (seeds, 2, U)."""
    columns = {
        f"{part} of seed {i}": numbers
        for i, curve in enumerate(curves)
        for part, numbers in zip(("sentences", "objective"), curve, strict=True)
    }
    require_columns(name, columns, columns)
    return np.array(curves, dtype=np.float64)


def _draw_learning(
    figure: Figure, axes: Axes, online: Mapping[str, Array], offline: Mapping[str, Array]
) -> None:
    """Draw the curves (seeds, 2, U) of each method and their means."""
    figures._clean(axes)
    styles = figures.algorithm_styles([*online, *offline])
    looks = _marker_looks([*online, *offline])
    thick: dict[str, Any] = {"linewidth": 2.2, "zorder": 4}
    thin: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.45, "zorder": 2}
    for name, seeds in online.items():
        color, line = styles[name]
        for curve in seeds if len(seeds) > 1 else ():
            axes.plot(*curve, color=color, **thin)
        label = figures.LABELS.get(name, name)
        axes.plot(*seeds.mean(axis=0), color=color, linestyle=line, label=label, **thick)
    for i, (name, seeds) in enumerate(offline.items()):
        color, line = styles[name]
        start, (sentences, end) = seeds[0, 1, 0], seeds[:, :, -1].mean(axis=0)
        look = looks[name] | {"linestyle": line, "markerfacecolor": "white", "markevery": [1]}
        drawn = axes.plot(
            [sentences, sentences],
            [start, end],
            color=color,
            label=f"{figures.LABELS.get(name, name)} (offline)",
            **look | thick,
        )
        if len(seeds) > 1:
            drawn += [axes.plot(*curve, color=color, **thin)[0] for curve in seeds]
        for artist in drawn:  # moved after plotting, so that the limits of the axes include it
            artist.set_transform(offset_copy(axes.transData, figure, x=5.0 * i, units="points"))


def _label_objectives(axes: Axes, reference_objective: float, optimal_objective: float) -> None:
    """Draw the legend, the two dashed lines, and the axis label."""
    axes.set_ylabel(f"exact objective J = reward {MINUS} beta KL", **AXIS_LABEL)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=4,
        frameon=False,
        fontsize=10.5,
        labelcolor=INK,
        handlelength=3.4,
        borderaxespad=0.2,
    )
    names = {"optimum\nJ*": optimal_objective, f"reference\n{J_REF}": reference_objective}
    for name, value in names.items():
        axes.axhline(value, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, zorder=3)
        _write_beside(axes, value, f"{name} = {value:.2f}")


def _write_beside(axes: Axes, height: float, text: str) -> None:
    """Write at the right of the panel, at a height in units of its axis."""
    place = blended_transform_factory(axes.transAxes, axes.transData)
    text = text.replace("-", MINUS)
    axes.text(1.015, height, text, transform=place, va="center", fontsize=10, color=GREY)


def _label_missing(axes: Axes) -> None:
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    label = f"missing fraction (J* {MINUS} J) / (J* {MINUS} {J_REF})"
    axes.set_ylabel(label, **AXIS_LABEL)


def _seeds_note(counts: Collection[int]) -> str:
    if max(counts) == 1:
        return "one seed per method"
    seeds = f"{min(counts)} to {max(counts)}" if len(set(counts)) > 1 else f"{max(counts)}"
    return f"thick: mean over {seeds} seeds, thin: each seed"


def _name_ends(figure: Figure, axes: Axes, ends: Mapping[str, float]) -> None:
    """Write the names at the right, each as near to the end of its line as possible."""
    names = sorted((name for name in ends if ends[name] > 0), key=lambda name: ends[name])
    if not names:
        return
    styles = figures.algorithm_styles(names)
    heights = axes.transLimits.transform(axes.transScale.transform([(1, ends[n]) for n in names]))
    panel = axes.get_window_extent().height / figure.dpi * 72
    for name, height in zip(names, _spread(heights[:, 1], 12.5 / panel), strict=True):
        style: dict[str, Any] = {"color": styles[name][0], "fontsize": 10, "parse_math": False}
        label = figures.LABELS.get(name, name)
        axes.text(1.015, height, label, transform=axes.transAxes, va="center", **style)


def _spread(wanted: Array, apart: float) -> Array:
    """The heights in [0, 1] nearest to the wanted ones, sorted, that stay `apart`: least squares.

    >>> _spread(np.array([0.5, 0.5, 0.99]), apart=0.2)
    array([0.4 , 0.6 , 0.99])
    """
    steps = apart * np.arange(len(wanted))
    never_falling = isotonic_regression(wanted - steps).x
    return np.asarray(np.clip(never_falling, 0.0, max(1.0 - steps[-1], 0.0)) + steps)


# Over-optimisation


def plot_overoptimisation(
    paths: Mapping[str, Mapping[str, ArrayLike]],
    *,
    title: str,
    path: str | Path | None = None,
) -> Figure:
    """Gold and learned reward against d = sqrt(KL), one panel per method.

    The learned reward is optimised and keeps rising. The gold reward, which is what people want,
    rises and then falls. The area between the two is shaded. Preferences determine the learned
    reward only up to a constant, so it should be shifted to agree with gold at the reference.

    Parameters
    ----------
    paths : dict
        From a method's name to columns (K,), in the order of the distance from the reference:
        "kl" in nats per sentence, and the expected rewards "gold" and "learned". The point with
        the smallest KL of all paths is drawn as the reference.
    title : str
    path : path, optional
        Where to save the figure, in the format that its suffix names.

    Raises
    ------
    ValueError
        If a column is missing, or columns differ in length.

    References
    ----------
    Gao, Schulman and Hilton, "Scaling laws for reward model overoptimization" (2022).
    """
    methods = {}
    for name, columns in paths.items():
        arrays = figures._arrays(f"paths[{name!r}]", columns, ["kl", "gold", "learned"])
        kl = np.maximum(arrays["kl"], 0.0)  # rounding can make a KL of 0 negative
        methods[name] = np.sqrt(kl), arrays["gold"], arrays["learned"]
    _, reference = min(
        (distance.min(), gold[distance.argmin()]) for distance, gold, _ in methods.values()
    )
    figure = figures._agg_figure(max(3.5 * len(methods), 7.0), 4.6)
    _headed(figure, title)
    panels = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, path_of_method) in zip(panels, methods.items(), strict=True):
        heading: dict[str, Any] = {
            "fontsize": 12,
            "fontweight": "bold",
            "color": INK,
            "parse_math": False,
        }
        axes.set_title(name, loc="left", pad=34, **heading)
        _draw_rewards(axes, *path_of_method)
        axes.axhline(
            reference, color=GREY, linestyle=figures.DOTTED, linewidth=1.2, label="reference"
        )
    panels[0].set_xlim(0.0, 1.25 * max(distance.max() for distance, _, _ in methods.values()))
    panels[0].margins(y=0.12)
    panels[0].set_ylabel("expected reward", **AXIS_LABEL)
    _write_beside(panels[-1], reference, f"reference\n{reference:.2f}")
    figure.supxlabel(
        "sqrt(KL(policy || reference)), square root of nats per sentence\n"
        "(gold: what people want; learned: the reward model's, shifted to equal gold at the start)",
        **AXIS_LABEL,
    )
    return figures._finished(figure, path)


def _draw_rewards(axes: Axes, distance: Array, gold: Array, learned: Array) -> None:
    figures._clean(axes)
    thick: dict[str, Any] = {"linewidth": 2.5, "zorder": 4}
    axes.fill_between(distance, gold, learned, color=BLUE, alpha=0.1, linewidth=0, zorder=1)
    axes.plot(distance, learned, color=BLUE, linestyle=figures.DASHED, label="learned", **thick)
    axes.plot(distance, gold, color=ORANGE, label="gold", **thick)
    peak, end = gold.argmax(), distance[-1]
    dot: dict[str, Any] = {"color": ORANGE, "markeredgecolor": INK, "markersize": 8, "zorder": 5}
    axes.plot(distance[peak], gold[peak], "o", label="peak", **dot)
    arrow = {"arrowstyle": "<->", "color": GREY, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (end, learned[-1]), (end, gold[-1]), arrowprops=arrow)

    sides = {"bottom": ("learned", learned[-1]), "top": ("gold", gold[-1])}
    if learned[-1] < gold[-1]:
        sides = dict(zip(sides, reversed(sides.values()), strict=True))
    for side, (name, value) in sides.items():
        axes.annotate(name, (end, value), xytext=(6, 0), va=side, **BESIDE)
    summary = f"gold peaks at {gold[peak]:.2f}, ends at {gold[-1]:.2f};\nlearned ends at "
    summary = f"{summary}{learned[-1]:.2f}".replace("-", MINUS)
    axes.text(0.0, 1.02, summary, transform=axes.transAxes, va="bottom", fontsize=10, color=GREY)


def _headed(figure: Figure, title: str) -> None:
    """Constrained layout under a title that is wrapped to the figure's width."""
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.08)
    heading = figure.suptitle("", x=0.012, ha="left", fontsize=14, fontweight="bold", color=INK)
    figures._wrap(figure, heading, title, figure.get_size_inches()[0] - 0.3)
