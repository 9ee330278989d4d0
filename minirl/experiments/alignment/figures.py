"""The three figures of the alignment chain: frontier, learning curves, over-optimisation.

In the style of `minirl.experiments.figures`. Rewards, objectives and KL are means over
prompts, KL in nats per sentence; the objective is ``J = E[reward] - beta KL(policy || reference)``.
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

__all__ = ["plot_frontier", "plot_learning", "plot_overoptimisation"]

Point = tuple[float, float]

# shape, and the size in points at which all look equally large
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
PATH_COLUMNS = ("kl", "gold", "learned")


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

    The line of equal objective touches the frontier at the optimum, and how far a point lies below
    the line is what its policy falls short of J*. At the right stand the neighbourhood of the
    optimum, enlarged, if any method came there, and each method's fraction of the optimum,
    ``(J - J_ref) / (J* - J_ref)``, mean over its points.

    Parameters
    ----------
    frontier : Frontier
        Of 200 betas or more, or its chords show; in any order.
    points : dict
        From a method's name to its (KL, reward) for each seed.
    reference, optimum : (KL, reward)
        Of the reference, at KL 0, and of the best policy at this `beta`.
    beta : float
        In units of reward per nat.
    labels : dict, optional
        From a name to one text for each of its points, written beside it. Such points are settings,
        as the n of best-of-n, not seeds: the best of them counts, and they are not enlarged.
    title : str
    path : path, optional
        Where to save the figure, as the format its suffix names.

    Raises
    ------
    ValueError
        If there are no points, a method has none, a point is no pair of finite numbers, labels do
        not match the points, the frontier is empty or its columns differ in length, or the optimum
        is no better than the reference.
    """
    figures._checked_columns("frontier", frontier._asdict(), Frontier._fields)
    methods = {name: _checked_points(name, pairs) for name, pairs in points.items()}
    if not methods:
        raise ValueError("points is empty: there is no method to draw")
    labels = labels or {}
    for name, texts in labels.items():
        if len(texts) != len(methods.get(name, ())):
            raise ValueError(
                f"labels[{name!r}] has {len(texts)} texts for {len(methods.get(name, ()))} points"
            )
    gain = _objective(optimum, beta) - _objective(reference, beta)
    if not gain > 0:
        raise ValueError(
            f"optimum must have a larger reward - {beta} KL than reference, got {optimum} and "
            f"{reference}"
        )

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


def _checked_points(name: str, pairs: Sequence[Point]) -> Array:
    array = np.asarray(pairs, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise ValueError(
            f"points[{name!r}] must be at least one pair of finite numbers (KL, reward), got "
            f"{array.tolist()}"
        )
    return array


def _percent(fraction: float) -> str:
    """A fraction in per cent; a huge one, as of a far too large beta, by its power of ten."""
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
    """The frontier and what lies beyond it, the line of equal objective, and every point."""
    figures._clean(axes)
    order = np.argsort(frontier.kls)
    kls = np.append(reference[0], frontier.kls[order])
    rewards = np.append(reference[1], frontier.rewards[order])
    # Where the frontier ends, its last tangent bounds what can be.
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
        axes.plot(*methods[name].T, label=name, zorder=5, **look)
    axes.plot(*reference, "o", color=INK, markersize=8, zorder=4, label="reference")
    star: dict[str, Any] = {"markersize": 14, "markeredgecolor": "white", "zorder": 6}
    axes.plot(*optimum, "*", color=INK, label="optimum", **star)


def _marker_looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each method's marker: hollow, so that those below show; best-of-n, which lies apart, full."""
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
    """Limits that hold all places (n, 2), with room above the frontier, and names of the axes."""
    right, bottom = 1.12 * places[:, 0].max(), places[:, 1].min()
    reached = frontier.rewards[frontier.kls <= right]
    height = max(places[:, 1].max(), *reached) - bottom
    axes.set(xlim=(-0.025 * right, right), ylim=(bottom - 0.1 * height, bottom + 1.22 * height))
    axes.set_xlabel("KL(policy || reference), nats per sentence", **AXIS_LABEL)
    axes.set_ylabel("expected gold reward", **AXIS_LABEL)


def _name_places(axes: Axes, reference: Point, optimum: Point, beta: float) -> None:
    """Words for the area, the line and the two points, where there is room for them."""
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
    """Make `zoom` show this part of `main`, and draw lines from the one to the other."""
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
    """The legend as a table: marker, name, fraction of the optimum."""
    axes.set(xlim=(0, 1), ylim=(max(len(fractions) + 3.3, 12.3), -0.2))
    axes.axis("off")
    small: dict[str, Any] = {"va": "center", "fontsize": 9.5, "color": GREY}
    axes.plot([0.0, 0.1], [0, 0], color=INK, linewidth=2.2)
    axes.text(0.14, 0, "frontier: the most reward for each KL", **small)
    axes.text(0.14, 1, f"J = reward {MINUS} {beta:g} KL", **small)
    axes.text(1.0, 2.1, f"(J {MINUS} {J_REF}) / (J* {MINUS} {J_REF})", ha="right", **small)
    row: dict[str, Any] = {"va": "center", "fontsize": 10.5, "color": INK}
    for y, (name, look) in enumerate(_marker_looks(list(fractions)).items()):
        of_optimum = fractions[name]
        text = _percent(of_optimum.max() if name in labelled else of_optimum.mean())
        if name in labelled:
            text = f"up to {text}"
        axes.plot(0.05, y + 3.3, **look)
        axes.text(0.14, y + 3.3, name, parse_math=False, **row)
        axes.text(1.0, y + 3.3, text.replace("%", " %").replace("-", MINUS), ha="right", **row)


# Learning curves


def plot_learning(
    curves: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    *,
    offline: Mapping[str, Sequence[tuple[ArrayLike, ArrayLike]]],
    reference_objective: float,
    optimal_objective: float,
    title: str,
    path: str | Path | None = None,
) -> Figure:
    """Draw the exact objective, and below it the distance to the optimum, against sentences.

    A thick line for the mean over seeds, a thin one for each. A method that learns offline, from
    sentences sampled beforehand, stays at one place of the axis: a vertical line from where its
    first seed began to the mean of where the seeds ended, there a marker. Offline methods are drawn
    a little aside of each other.

    The lower panel shows ``(J* - J) / (J* - J_ref)`` on a logarithmic axis, where methods that all
    come close to the optimum stay apart; what has reached it is not drawn there.

    Parameters
    ----------
    curves : dict
        From a method's name to, for each seed, the sentences sampled (U,) and the objective (U,).
        The seeds of one method were measured after the same numbers of sentences.
    offline : dict
        From a method's name to, for each seed, the sentences used, one number or (K,), and the
        objective (K,) on the way.
    reference_objective, optimal_objective : float
        J_ref and J*.
    title : str
    path : path, optional
        Where to save the figure, as the format its suffix names.

    Raises
    ------
    ValueError
        If there is no method, a method has no seeds, shapes do not match, a number is not finite,
        or J* is not above J_ref.
    """
    runs = {name: _checked_curves(f"curves[{name!r}]", seeds) for name, seeds in curves.items()}
    ways = {name: _checked_ways(f"offline[{name!r}]", seeds) for name, seeds in offline.items()}
    if not runs and not ways:
        raise ValueError("curves and offline are empty: there is no method to draw")
    gain = optimal_objective - reference_objective
    if not gain > 0:
        raise ValueError(
            f"optimal_objective must be above reference_objective, got {optimal_objective} and "
            f"{reference_objective}"
        )

    figure = figures._agg_figure(9.0, 8.6)
    _headed(figure, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1.1, 1])
    _draw_learning(figure, above, runs, ways)
    _label_objectives(above, reference_objective, optimal_objective)

    def missing(objectives: Array) -> Array:
        return (optimal_objective - objectives) / gain

    runs = {name: (sentences, missing(seeds)) for name, (sentences, seeds) in runs.items()}
    ways = {name: [np.array([x, missing(y)]) for x, y in seeds] for name, seeds in ways.items()}
    _draw_learning(figure, below, runs, ways)
    _label_missing(below)
    counts = [len(ys) for _, ys in runs.values()] + [len(seeds) for seeds in ways.values()]
    below.set_xlim(left=0)
    below.set_xlabel(f"sentences sampled\n({_seeds_note(counts)})", **AXIS_LABEL)
    below.xaxis.set_major_formatter(FuncFormatter(figures._abbreviate))
    figure.draw_without_rendering()  # the layout is needed, to know how high a line of text is
    _name_ends(figure, below, {name: ys[:, -1].mean() for name, (_, ys) in runs.items()})
    return figures._finished(figure, path)


def _checked_curves(
    where: str, seeds: Sequence[tuple[ArrayLike, ArrayLike]]
) -> tuple[Array, Array]:
    """The sentences (U,) and the objectives (seeds, U) of one method."""
    if not seeds:
        raise ValueError(f"{where} is empty: at least one seed is needed")
    sentences = np.asarray(seeds[0][0], dtype=np.float64)
    objectives = [np.asarray(y, dtype=np.float64) for _, y in seeds]
    for i, y in enumerate(objectives):
        if y.shape != sentences.shape or not np.array_equal(seeds[i][0], sentences):
            raise ValueError(
                f"{where}[{i}] must have the sentences of the first seed, shape {sentences.shape}, "
                f"and as many objectives; got {np.shape(seeds[i][0])} and {y.shape}"
            )
        _require_finite_row(f"{where}[{i}]", y)
    return sentences, np.array(objectives)


def _checked_ways(where: str, seeds: Sequence[tuple[ArrayLike, ArrayLike]]) -> list[Array]:
    """Sentences and objectives (2, K) for each seed of one method."""
    if not seeds:
        raise ValueError(f"{where} is empty: at least one seed is needed")
    ways = []
    for i, (used, objectives) in enumerate(seeds):
        objectives = np.asarray(objectives, dtype=np.float64)
        _require_finite_row(f"{where}[{i}]", objectives)
        if np.shape(used) not in ((), objectives.shape):
            raise ValueError(
                f"{where}[{i}] must have one number of sentences or as many as objectives, "
                f"{objectives.shape}, got {np.shape(used)}"
            )
        ways.append(np.array([np.broadcast_to(used, objectives.shape), objectives]))
    return ways


def _require_finite_row(where: str, numbers: Array) -> None:
    if numbers.ndim != 1 or not numbers.size or not np.isfinite(numbers).all():
        raise ValueError(f"{where} must hold a row of finite numbers, got {numbers.tolist()}")


def _draw_learning(
    figure: Figure,
    axes: Axes,
    runs: Mapping[str, tuple[Array, Array]],
    offline: Mapping[str, Sequence[Array]],
) -> None:
    figures._clean(axes)
    styles = figures.algorithm_styles([*runs, *offline])
    looks = _marker_looks([*runs, *offline])
    thick: dict[str, Any] = {"linewidth": 2.2, "zorder": 4}
    thin: dict[str, Any] = {"linewidth": 0.7, "alpha": 0.45, "zorder": 2}
    for name, (sentences, seeds) in runs.items():
        color, line = styles[name]
        if len(seeds) > 1:
            axes.plot(sentences, seeds.T, color=color, **thin)
        axes.plot(sentences, seeds.mean(axis=0), color=color, linestyle=line, label=name, **thick)
    for i, (name, ways) in enumerate(offline.items()):
        color, line = styles[name]
        start, (mean_used, mean_end) = ways[0][1][0], np.mean([w[:, -1] for w in ways], axis=0)
        look = looks[name] | {"linestyle": line, "markerfacecolor": "white", "markevery": [1]}
        drawn = axes.plot(
            [mean_used, mean_used],
            [start, mean_end],
            color=color,
            label=f"{name} (sampled beforehand)",
            **look | thick,
        )
        if len(ways) > 1:
            drawn += [axes.plot(*way, color=color, **thin)[0] for way in ways]
        for artist in drawn:  # afterwards, or the limits would not take notice of the line
            artist.set_transform(offset_copy(axes.transData, figure, x=5.0 * i, units="points"))


def _label_objectives(axes: Axes, reference_objective: float, optimal_objective: float) -> None:
    """The legend, the two dashed lines, and what the axis means."""
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
    """At the right of the panel, at a height in its own units."""
    place = blended_transform_factory(axes.transAxes, axes.transData)
    text = text.replace("-", MINUS)
    axes.text(1.015, height, text, transform=place, va="center", fontsize=10, color=GREY)


def _label_missing(axes: Axes) -> None:
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    label = f"still missing: (J* {MINUS} J) / (J* {MINUS} {J_REF})"
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
        axes.text(1.015, height, name, transform=axes.transAxes, va="center", **style)


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

    The learned reward, which is optimised, keeps rising; the gold reward, what people want, rises
    and then falls. The area between the two is shaded: the learned reward, which preferences
    determine up to a constant, should agree with gold at the reference.

    Parameters
    ----------
    paths : dict
        From a method's name to columns (K,), in the order of its distance from the reference:
        "kl" in nats per sentence, "gold" and "learned", expected rewards. The least KL of all is
        taken for the reference's.
    title : str
    path : path, optional
        Where to save the figure, as the format its suffix names.

    Raises
    ------
    ValueError
        If there are no paths, a column is missing, columns differ in length or hold numbers that
        are not finite, or a KL is below 0 by more than rounding.

    References
    ----------
    Gao, Schulman and Hilton, "Scaling laws for reward model overoptimization" (2022).
    """
    methods = {name: _checked_path(name, columns) for name, columns in paths.items()}
    if not methods:
        raise ValueError("paths is empty: there is no method to draw")
    _, reference = min(
        (distance.min(), gold[distance.argmin()]) for distance, gold, _ in methods.values()
    )
    figure = figures._agg_figure(max(3.5 * len(methods), 7.0), 4.6)
    _headed(figure, title)
    panels = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (name, columns) in zip(panels, methods.items(), strict=True):
        heading: dict[str, Any] = {
            "fontsize": 12,
            "fontweight": "bold",
            "color": INK,
            "parse_math": False,
        }
        axes.set_title(name, loc="left", pad=34, **heading)
        _draw_rewards(axes, *columns)
        axes.axhline(
            reference, color=GREY, linestyle=figures.DOTTED, linewidth=1.2, label="reference"
        )
    panels[0].set_xlim(0.0, 1.25 * max(distance.max() for distance, _, _ in methods.values()))
    panels[0].margins(y=0.12)
    panels[0].set_ylabel("expected reward", **AXIS_LABEL)
    _write_beside(panels[-1], reference, f"reference\n{reference:.2f}")
    figure.supxlabel(
        "sqrt(KL(policy || reference)), square root of nats per sentence\n"
        "(gold: what people want; learned: the reward model's, shifted to begin at gold)",
        **AXIS_LABEL,
    )
    return figures._finished(figure, path)


def _checked_path(name: str, columns: Mapping[str, ArrayLike]) -> tuple[Array, Array, Array]:
    """Distance, gold and learned reward, each (K,)."""
    where = f"paths[{name!r}]"
    checked = figures._checked_columns(where, columns, PATH_COLUMNS)
    for column, numbers in checked.items():
        _require_finite_row(f"{where}[{column!r}]", numbers)
    kl, gold, learned = (checked[column] for column in PATH_COLUMNS)
    if kl.min() < -1e-9:
        raise ValueError(f"{where}['kl'] must be at least 0, got {kl.min()}")
    return np.sqrt(np.maximum(kl, 0.0)), gold, learned


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
