"""Short commands for the tests of the command line, and what they print and save."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
QUICK = ["--num-envs", "2", "--set", "rollout_steps=32", "--set", "hidden_sizes=(4,)"]
SAVED = ["curve.png", "experiment.json", "history.csv", "policy.npz"]


def lines_of(err):
    """The lines on stderr, except for the progress bar, which shows a time such as [00:03."""
    lines = re.split(r"[\r\n]+", err)
    return [line for line in lines if line.strip() and not re.search(r"\[\d\d:\d\d", line)]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())
