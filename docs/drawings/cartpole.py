"""docs/trpo-ppo.png: TRPO, PPO and the policy gradient on CartPole, for the README.

    python docs/drawings/cartpole.py

Drawn from benchmarks/results/learning_curves/cartpole.csv: ten seeds, 100,000 steps each.
"""

import csv
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from minirl.experiments.figures import GREY, KNOWN_STYLES
from minirl.experiments.statistics import band

DOCS = Path(__file__).parents[1]
CURVES = DOCS.parent / "benchmarks" / "results" / "learning_curves" / "cartpole.csv"
ALGORITHMS = {"ppo": "PPO", "trpo": "TRPO", "policy-gradient": "policy gradient"}
THRESHOLD = 475


def read_curves(column):
    """From algorithm to a list of (column, mean return) pairs of arrays, one per seed."""
    runs = {}
    with CURVES.open(newline="") as file:
        for row in csv.DictReader(file):
            point = float(row[column]), float(row["mean_return"])
            runs.setdefault((row["algorithm"], row["seed"]), []).append(point)
    return {
        name: [np.array(points).T for (run, _), points in runs.items() if run == name]
        for name in ALGORITHMS
    }


def draw(axes, column, scale):
    for name, seeds in read_curves(column).items():
        color, line = KNOWN_STYLES[name]
        start, stop = max(x[0] for x, _ in seeds), min(x[-1] for x, _ in seeds)
        grid = np.clip(scale(start, stop, 200), start, stop)
        middle, low, high = band(seeds, grid, np.random.default_rng(0))
        axes.fill_between(grid, low, high, color=color, alpha=0.2, linewidth=0)
        axes.plot(grid, middle, color=color, linestyle=line, linewidth=3, label=ALGORITHMS[name])
    axes.axhline(THRESHOLD, color=GREY, linewidth=1.2, linestyle=(0, (4, 3)))
    axes.grid(color="#e5e5e5")
    axes.spines[["top", "right"]].set_visible(False)


def main():
    plt.rcParams.update({"font.size": 14})
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 5.2), sharey=True)
    draw(left, "environment_steps", np.linspace)
    draw(right, "gradient_equivalents", np.geomspace)
    left.set(xlabel="environment steps", ylabel="mean return of the last 100 episodes")
    left.set_xticks([0, 50_000, 100_000], ["0", "50,000", "100,000"])
    right.set(xlabel="gradients of one transition, log scale", xscale="log")
    left.text(2_000, THRESHOLD + 6, "475: solved", color=GREY, fontsize=12)
    left.legend(loc="lower right", frameon=False)
    figure.suptitle(
        "CartPole: PPO needs the fewest steps, the policy gradient the fewest gradients",
        x=0.015,
        ha="left",
        fontsize=15,
        fontweight="bold",
    )
    left.set_title("What it takes from the environment", loc="left", fontsize=13)
    right.set_title("What it computes", loc="left", fontsize=13)
    figure.tight_layout()
    figure.savefig(DOCS / "trpo-ppo.png", dpi=150)


if __name__ == "__main__":
    main()
