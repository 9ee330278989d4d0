"""Learning curves: one training run, or several algorithms with several seeds each.

Everything is drawn on `matplotlib.figure.Figure` objects with the Agg canvas, without pyplot and
its global state. It therefore works without a screen and in worker processes. A file appears only
when it is complete: it is written beside its destination and then moved there.

Colours are those of Okabe and Ito (2008), which colour-blind readers can tell apart; line styles
differ as well.
"""

from __future__ import annotations

import textwrap
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.transforms import blended_transform_factory
from numpy.typing import ArrayLike, NDArray

from minirl.experiments.statistics import band
from minirl.support.serialization import write_atomically
from minirl.support.validation import require_columns

__all__ = [
    "algorithm_styles",
    "plot_comparison",
    "plot_training",
]

Array = NDArray[np.float64]
Columns = Mapping[str, ArrayLike]

BLUE, VERMILLION, ORANGE, GREEN = "#0072B2", "#D55E00", "#E69F00", "#009E73"
SKY_BLUE, PURPLE, BLACK = "#56B4E9", "#CC79A7", "#000000"
INK, GREY = "#222222", "#666666"

SOLID, DASHED, DOTTED = "solid", (0, (5, 1.2)), (0, (1.2, 1.0))
DASH_DOT = (0, (5, 1.2, 1.2, 1.2))
DASH_DOT_DOT, LONG_DASHED = (0, (5, 1.2, 1.2, 1.2, 1.2, 1.2)), (0, (9, 1.6))

KNOWN_STYLES = {
    "policy-gradient": (ORANGE, DOTTED),
    "natural-gradient": (GREEN, DASH_DOT),
    "trpo": (BLUE, DASHED),
    "ppo": (VERMILLION, SOLID),
    "rloo": (PURPLE, DASH_DOT_DOT),
    "grpo": (SKY_BLUE, LONG_DASHED),
    "dpo": (BLACK, LONG_DASHED),
    "ipo": (GREY, DASH_DOT_DOT),
    "best-of-n": (BLACK, DOTTED),
    "grpo-paper": (SKY_BLUE, SOLID),
    "dr-grpo": (BLUE, DASHED),
    "dapo": (VERMILLION, DASH_DOT),
    "gspo": (ORANGE, DASHED),
    "cispo": (GREEN, SOLID),
    "sapo": (PURPLE, DASHED),
    "maxrl": (GREEN, DASH_DOT_DOT),
    "reinforce++": (BLACK, SOLID),
    "reinforce++-baseline": (GREY, DASHED),
}
# How figures write the names of algorithms; other names stay as they are.
LABELS = {name: name.upper() for name in ("trpo", "ppo", "rloo", "grpo", "dpo", "ipo")} | {
    "policy-gradient": "policy gradient",
    "natural-gradient": "natural gradient",
    "grpo-paper": "GRPO (paper)",
    "dr-grpo": "Dr. GRPO",
    "dapo": "DAPO",
    "gspo": "GSPO",
    "cispo": "CISPO",
    "sapo": "SAPO",
    "maxrl": "MaxRL",
    "reinforce++": "REINFORCE++",
    "reinforce++-baseline": "REINFORCE++ baseline",
}
OTHER_STYLES = [
    (color, line) for line in (SOLID, DASHED, DASH_DOT) for color in (PURPLE, SKY_BLUE, BLACK)
]

# column of a run, its axis label, and whether the axis may be logarithmic
PANELS = (
    ("environment_steps", "environment steps", False),
    ("gradient_equivalents", "gradient-equivalents", True),
    ("cpu_seconds", "CPU seconds", True),
)
EXPLANATIONS = {
    "gradient_equivalents": "forward + backward of one transition",
    "cpu_seconds": "one core",
}
DIAGNOSTICS = (
    ("kl", "KL(old || new) (nats)"),
    ("entropy", "entropy (nats)"),
    ("explained_variance", "explained variance"),
)
NEAT_STEPS = [1, 2, 2.5, 5, 10]
GRID_POINTS = 256
LOG_IF_RANGES_DIFFER_BY = 5.0
DPI = 150


# Learning curves of several algorithms


def plot_comparison(
    curves: Mapping[str, Sequence[Columns]],
    *,
    title: str,
    threshold: float | None = None,
    footnote: str = "",
    path: str | Path | None = None,
) -> Figure:
    """Return against environment steps, gradient-equivalents and CPU seconds, side by side.

    Each algorithm has a thick line for the interquartile mean over seeds, a band for its 95 %
    bootstrap interval and a thin line for each seed. A single seed has one thick line. The bands
    are resampled from a fixed seed, so the same curves give the same picture.

    Parameters
    ----------
    curves : dict
        From the algorithm's name to one dict of columns per seed. Each column is an array with one
        entry per update: "environment_steps", "gradient_equivalents", "cpu_seconds" and
        "mean_return", which is the mean over the last 100 finished episodes, nan before the first.
        An algorithm without "gradient_equivalents" is absent from that panel.
    title : str
    threshold : float, optional
        The environment's reward threshold, drawn as a dashed line.
    footnote : str
        Text under the figure. Long lines are wrapped; its line breaks are kept.
    path : path, optional
        Where to save the figure, in the format that its suffix names.

    Raises
    ------
    ValueError
        If a column is missing, or columns differ in length.
    """
    runs = {
        name: [_run(f"curves[{name!r}][{i}]", columns) for i, columns in enumerate(seeds)]
        for name, seeds in curves.items()
    }
    styles = algorithm_styles(list(runs))
    figure = _agg_figure(12.5, 6.0)
    panels: list[Axes] = list(figure.subplots(1, len(PANELS), sharey=True))
    for axes, (column, label, may_be_log) in zip(panels, PANELS, strict=True):
        _clean(axes)
        logarithmic = may_be_log and _ranges_differ(runs, column)
        if logarithmic:
            axes.set_xscale("log")
        for name, seeds in runs.items():
            _draw_algorithm(axes, name, seeds, column, *styles[name], logarithmic=logarithmic)
        _label_effort(axes, label + ", log scale" * logarithmic, EXPLANATIONS.get(column))
        _mark_threshold(axes, threshold, labelled=axes is panels[-1])
    panels[0].set_ylabel("mean return of the last 100 episodes", fontsize=11, color=INK)
    panels[0].yaxis.set_major_formatter(FuncFormatter(_abbreviate))
    _arrange(figure, title, _reading_aid(runs), _legend_lines(styles), footnote)
    return _finished(figure, path)


def algorithm_styles(names: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """The colour and the line style of each algorithm.

    The algorithms of the package always have the same styles. The style of another name follows
    from its checksum; if this style is taken, the name gets the next free one.

    Examples
    --------
    >>> algorithm_styles(["ppo"])
    {'ppo': ('#D55E00', 'solid')}
    """
    styles: dict[str, tuple[str, Any]] = {}
    taken: set[int] = set()
    for name in names:
        if name in KNOWN_STYLES:
            styles[name] = KNOWN_STYLES[name]
            continue
        wanted = zlib.crc32(name.encode())
        order = [(wanted + shift) % len(OTHER_STYLES) for shift in range(len(OTHER_STYLES))]
        chosen = next((index for index in order if index not in taken), order[0])
        taken.add(chosen)
        styles[name] = OTHER_STYLES[chosen]
    return styles


def _run(name: str, columns: Columns) -> dict[str, Array]:
    """The columns of one seed that are drawn; an algorithm need not count its gradients."""
    uncounted = np.full(np.shape(columns.get("mean_return", ())), np.nan)
    needed = [column for column, _, _ in PANELS] + ["mean_return"]
    return _arrays(name, {"gradient_equivalents": uncounted, **columns}, needed)


def _arrays(name: str, columns: Columns, needed: Sequence[str]) -> dict[str, Array]:
    require_columns(name, columns, needed)
    return {column: np.asarray(columns[column], dtype=np.float64) for column in needed}


def _ranges_differ(runs: Mapping[str, Sequence[Mapping[str, Array]]], column: str) -> bool:
    """Whether the ranges of two algorithms on this axis differ by more than a factor of five."""
    ends = np.array([max(seed[column].max() for seed in seeds) for seeds in runs.values()])
    known = ends[np.isfinite(ends)]
    return bool(known.size and 0 < LOG_IF_RANGES_DIFFER_BY * known.min() < known.max())


def _draw_algorithm(
    axes: Axes,
    name: str,
    seeds: Sequence[Mapping[str, Array]],
    column: str,
    color: str,
    line_style: Any,
    *,
    logarithmic: bool,
) -> None:
    """Draw thin lines per seed, the interquartile mean and its band."""
    curves = [_finite_points(seed[column], seed["mean_return"], logarithmic) for seed in seeds]
    thick = {"color": color, "linestyle": line_style, "linewidth": 2.4, "zorder": 4}
    if len(curves) == 1:
        axes.plot(*curves[0], label=LABELS.get(name, name), **thick)
        return
    for x, y in curves:
        axes.plot(x, y, color=color, linewidth=0.7, alpha=0.4, zorder=2)
    if any(x.size == 0 for x, _ in curves):
        return
    start, stop = max(x[0] for x, _ in curves), min(x[-1] for x, _ in curves)
    space = np.geomspace if logarithmic else np.linspace
    grid = np.clip(space(start, stop, GRID_POINTS), start, stop)
    iqm, low, high = band(curves, grid, np.random.default_rng(0))
    axes.fill_between(grid, low, high, color=color, alpha=0.18, linewidth=0, zorder=1)
    axes.plot(grid, iqm, label=LABELS.get(name, name), **thick)


def _finite_points(x: Array, y: Array, logarithmic: bool) -> tuple[Array, Array]:
    drawable = np.isfinite(x) & np.isfinite(y)
    if logarithmic:
        drawable &= x > 0
    return x[drawable], y[drawable]


def _label_effort(axes: Axes, label: str, explanation: str | None) -> None:
    """Label the x axis; abbreviate its ticks and keep them few."""
    axes.set_xlabel(f"{label}\n({explanation})" if explanation else label, fontsize=11, color=INK)
    if axes.get_xscale() == "log":
        low, high = axes.get_xlim()
        decades = np.log10(high / low)
        digits = (1, 2, 5) if decades < 2 else (1, 3) if decades < 3.5 else (1,)
        axes.xaxis.set_major_locator(LogLocator(subs=digits, numticks=12))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=NEAT_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(_abbreviate))


def _mark_threshold(axes: Axes, threshold: float | None, *, labelled: bool) -> None:
    if threshold is None:
        return
    axes.axhline(
        threshold, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, zorder=3, label="threshold"
    )
    if labelled:
        axes.text(
            1.02,
            threshold,
            f"reward\nthreshold\n{_abbreviate(threshold)}",
            transform=blended_transform_factory(axes.transAxes, axes.transData),
            va="center",
            fontsize=9.5,
            color=GREY,
        )


def _reading_aid(runs: Mapping[str, Sequence[Any]]) -> str:
    counts = [len(seeds) for seeds in runs.values()]
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "One seed per algorithm, which is too few for a comparison."
    seeds = f"{most} seeds" if fewest == most else f"{fewest} to {most} seeds"
    return (
        f"Thick: interquartile mean over {seeds}, where all of them have a value.  "
        "Shaded: its 95 % bootstrap interval.  Thin: each seed."
    )


def _legend_lines(styles: Mapping[str, tuple[str, Any]]) -> list[Line2D]:
    return [
        Line2D(
            [], [], color=color, linestyle=line_style, linewidth=2.4, label=LABELS.get(name, name)
        )
        for name, (color, line_style) in styles.items()
    ]


def _arrange(
    figure: Figure, title: str, aid: str, legend_lines: list[Line2D], footnote: str
) -> None:
    """Stack title, reading aid, legend, panels and footnote, each with the height it needs."""
    margin, gap, left, right, panel_height, label_height = 0.15, 0.1, 0.85, 0.95, 3.5, 0.8
    width = figure.get_size_inches()[0]
    style: dict[str, Any] = {"va": "top", "linespacing": 1.35, "color": GREY}
    heading = figure.text(0, 0, "", **style | {"color": INK}, fontsize=15, fontweight="bold")
    reading, note = (figure.text(0, 0, "", **style, fontsize=size) for size in (10, 9.5))
    legend = _legend_in_rows(figure, legend_lines, width - left - margin)
    heading_height = _wrap(figure, heading, title, width - 2 * margin)
    reading_height = _wrap(figure, reading, aid, width - 2 * margin)
    note_height = _wrap(figure, note, footnote, width - 2 * margin)
    legend_height = legend.get_window_extent().height / figure.dpi

    header = margin + heading_height + reading_height + legend_height + 3 * gap
    footer = label_height + note_height + margin
    total = header + panel_height + footer
    figure.set_size_inches(width, total)
    heading.set_position((margin / width, 1 - margin / total))
    reading.set_position((margin / width, 1 - (margin + heading_height + gap) / total))
    legend.set_bbox_to_anchor((left / width, 1 - (header - legend_height - gap) / total))
    note.set_position((margin / width, (margin + note_height) / total))
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        top=1 - header / total,
        bottom=footer / total,
        wspace=0.08,
    )


def _legend_in_rows(figure: Figure, lines: list[Line2D], width: float) -> Any:
    """Legend with as many entries per row as fit into `width` inches."""
    for columns in range(len(lines), 0, -1):
        legend = figure.legend(
            handles=lines,
            loc="upper left",
            ncols=columns,
            frameon=False,
            fontsize=11.5,
            labelcolor=INK,
            handlelength=3.0,
            columnspacing=2.2,
            borderpad=0.0,
            borderaxespad=0.0,
        )
        if columns == 1 or legend.get_window_extent().width <= width * figure.dpi:
            break
        legend.remove()
    return legend


# One training run


def plot_training(
    columns: Columns,
    episodes: tuple[ArrayLike, ArrayLike],
    *,
    title: str,
    threshold: float | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Draw the learning curve of a single run, with a few diagnostics beneath it.

    Parameters
    ----------
    columns : dict
        Arrays with one entry per update: "environment_steps" and "mean_return" (mean over the
        last 100 finished episodes). The diagnostics "kl" (nats), "entropy" (nats) and
        "explained_variance" are drawn if they are present and finite anywhere.
    episodes : (end_steps, returns)
        The environment step at which each episode ended, and its return.
    title : str
    threshold : float, optional
        The environment's reward threshold, drawn as a dashed line.
    path : path, optional
        Where to save the figure, in the format that its suffix names.

    Raises
    ------
    ValueError
        If a column is missing, or lengths differ.
    """
    present = [(column, label) for column, label in DIAGNOSTICS if column in columns]
    needed = ["environment_steps", "mean_return", *(column for column, _ in present)]
    run = _arrays("columns", columns, needed)
    shown = [(column, label) for column, label in present if np.isfinite(run[column]).any()]
    figure = _agg_figure(9.0, 6.4 if shown else 4.6)
    figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.06)
    heading = figure.suptitle("", x=0.015, ha="left", fontsize=14, fontweight="bold", color=INK)
    _wrap(figure, heading, title, 8.7)
    grid = figure.add_gridspec(
        2 if shown else 1, max(len(shown), 1), height_ratios=[2.3, 1][: 1 + bool(shown)]
    )
    main = figure.add_subplot(grid[0, :])
    _draw_returns(main, run, *episodes)
    _mark_threshold(main, threshold, labelled=True)
    for i, (column, label) in enumerate(shown):
        axes = figure.add_subplot(grid[1, i])
        _draw_diagnostic(axes, run["environment_steps"], run[column], column, label)
        axes.set_xlim(main.get_xlim())
    return _finished(figure, path)


def _draw_returns(
    axes: Axes, run: Mapping[str, Array], ends: ArrayLike, returns: ArrayLike
) -> None:
    _clean(axes)
    axes.plot(
        ends,
        returns,
        ".",
        color=SKY_BLUE,
        markersize=4,
        alpha=0.45,
        markeredgewidth=0,
        label="one episode",
        rasterized=True,
    )
    axes.plot(
        *_finite_points(run["environment_steps"], run["mean_return"], False),
        color=BLUE,
        linewidth=2.4,
        label="mean of the last 100 episodes",
    )
    _label_effort(axes, "environment steps", None)
    axes.set_ylabel("episode return", fontsize=11, color=INK)
    axes.yaxis.set_major_formatter(FuncFormatter(_abbreviate))
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(
        handles,
        labels,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=2,
        frameon=False,
        fontsize=10,
        markerscale=2.0,
        borderaxespad=0.2,
    )


def _draw_diagnostic(axes: Axes, steps: Array, values: Array, column: str, label: str) -> None:
    _clean(axes)
    axes.plot(*_finite_points(steps, values, False), color=INK, linewidth=1.1)
    if column == "explained_variance" and np.nanmin(values) < -1:
        axes.set_ylim(-1.0, 1.05)  # an untrained critic can have a value of minus several hundred
        label += ", cut at -1"
    axes.set_title(label, fontsize=10, color=INK, loc="left")
    axes.xaxis.set_major_locator(MaxNLocator(3, steps=NEAT_STEPS))
    axes.yaxis.set_major_locator(MaxNLocator(4, steps=NEAT_STEPS))
    axes.xaxis.set_major_formatter(FuncFormatter(_abbreviate))


# Shared by all pictures


def _agg_figure(width: float, height: float, dpi: float = DPI) -> Figure:
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    figure.set_layout_engine("none")  # otherwise a user's Matplotlib settings could choose one
    FigureCanvasAgg(figure)  # registers itself as the figure's canvas
    return figure


def _clean(axes: Axes) -> None:
    """Remove the box; draw a faint grid and unobtrusive ticks."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.grid(True, color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=10, color=GREY, labelcolor=INK)
    axes.tick_params(which="minor", color=GREY, length=2)


def _abbreviate(value: float, position: object = None) -> str:
    """The label of a tick: "20k" for 20000, "1.5M" for 1500000."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.6g}{suffix}".replace("-", "\N{MINUS SIGN}")
    return f"{value:.6g}".replace("-", "\N{MINUS SIGN}")


def _wrap(figure: Figure, text: Text, string: str, width: float) -> float:
    """Break a string into lines of at most `width` inches, set the text, return its height."""
    text.set_parse_math(False)
    for characters in range(260, 20, -4):
        lines = [textwrap.wrap(line, characters) or [""] for line in string.splitlines()]
        text.set_text("\n".join(piece for line in lines for piece in line))
        if text.get_window_extent().width <= width * figure.dpi:
            break
    return text.get_window_extent().height / figure.dpi if string else 0.0


def _finished(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        kind = Path(path).suffix.lstrip(".") or "png"
        write_atomically(path, lambda beside: figure.savefig(beside, format=kind, dpi=DPI))
    return figure
