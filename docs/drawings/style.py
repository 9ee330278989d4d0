"""What the drawings of the docs share: paths, reading of stored results, one look."""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minirl.experiments.alignment.figures import MARKERS as ALIGNMENT_MARKERS
from minirl.experiments.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    INK,
    KNOWN_STYLES,
    LABELS,
    VERMILLION,
)
from minirl.experiments.statistics import bootstrap_interval, interquartile_mean

__all__ = ["BLACK", "BLUE", "GREEN", "GREY", "INK", "KNOWN_STYLES", "LABELS", "VERMILLION"]

DOCS = Path(__file__).parents[1]
RESULTS = DOCS.parent / "benchmarks" / "results"
MARKERS = {name: marker for name, (marker, _) in ALIGNMENT_MARKERS.items()}

plt.rcParams.update(
    {
        "font.size": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#e5e5e5",
        "axes.axisbelow": True,
        "axes.titlelocation": "left",
        "axes.titlesize": 12,
        "savefig.dpi": 150,
        "legend.frameon": False,
    }
)


def rows_of(name):
    """The rows of a stored table, each a dict of strings."""
    with (RESULTS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def middle_and_interval(scores):
    """Interquartile mean and the lengths of its 95 % interval below and above it."""
    middle = interquartile_mean(scores)
    low, high = bootstrap_interval(scores, np.random.default_rng(0))
    return middle, middle - low, high - middle


def line_with_intervals(axes, groups, **style):
    """A line through the interquartile means of `groups`, from x to scores, with intervals."""
    xs = sorted(groups)
    middles, below, above = np.array([middle_and_interval(groups[x]) for x in xs]).T
    axes.errorbar(xs, middles, yerr=[below, above], capsize=3, linewidth=2, **style)


def save(figure, name, title):
    """Save a figure under docs/ with the sentence that states its finding."""
    width = figure.get_size_inches()[0]
    figure.suptitle(
        title, x=0.1 / width, ha="left", fontsize=13, fontweight="bold", color=INK, wrap=True
    )
    figure.tight_layout()
    figure.savefig(DOCS / name)
    plt.close(figure)
