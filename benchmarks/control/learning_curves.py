"""The long runs of notebook 5: learning curves, and how sensitive TRPO and PPO are.

    python -m benchmarks.control.learning_curves        (about 15 minutes on two cores)

It writes to benchmarks/results/learning_curves: for each environment the curves of four algorithms
and ten seeds, one row per 2,048 steps; scores.csv with the scores of each of these runs; and
sensitivity.csv, the scores of TRPO and PPO with their main hyperparameter at multiples of its
default, five seeds each. Finished runs are stored in --out, so an interrupted call continues there.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import study
from benchmarks.control.runs import short_name
from minirl.experiments.compare import Comparison, Run, compare
from minirl.optimizers import LinearSchedule
from minirl.presets import preset

RESULTS = study.RESULTS / "learning_curves"

ALGORITHMS = ("policy-gradient", "natural-gradient", "trpo", "ppo")
TOTAL_STEPS = {"CartPole-v1": 100_000, "Acrobot-v1": 200_000, "Pendulum-v1": 200_000}
SEEDS = 10

KNOBS = {"trpo": "max_kl", "ppo": "learning_rate"}
FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
SENSITIVITY_STEPS = {"CartPole-v1": 50_000, "Pendulum-v1": 100_000}
SENSITIVITY_SEEDS = 5

STEPS_PER_ROW = 2048  # one rollout, or four of the policy gradient
DIGITS = {
    "environment_steps": ".0f",
    "gradient_equivalents": ".0f",
    "cpu_seconds": ".3f",
    "mean_return": ".5g",
    "kl": ".3g",
}
SCORES = ["average_return", "final_training_return", "evaluation_return", "steps_to_threshold"]


def stored_updates(steps: np.ndarray) -> np.ndarray:
    """Which updates are stored: the last one in each stretch of `STEPS_PER_ROW` steps."""
    stretch = (steps - 1) // STEPS_PER_ROW
    return np.flatnonzero(np.append(np.diff(stretch) > 0, True))


def curve_rows(comparison: Comparison) -> list[list[object]]:
    """The curves of one environment; an empty cell where no episode has ended yet."""
    return [
        [name, seed, *(study.cell(run.columns[key][row], form) for key, form in DIGITS.items())]
        for name, seeds in comparison.runs.items()
        for seed, run in seeds.items()
        for row in stored_updates(run.columns["environment_steps"])
    ]


def average_return(columns: Mapping[str, np.ndarray]) -> float:
    """The mean of `mean_return` over the environment steps of a run: high for early learning."""
    steps, returns = columns["environment_steps"], columns["mean_return"]
    known = np.isfinite(returns)
    return float(np.average(returns[known], weights=np.diff(steps, prepend=0)[known]))


def score_cells(run: Run) -> list[str]:
    """The scores of one run; the last cell is empty if the threshold was never reached."""
    scores = (average_return(run.columns), run.final_training_return, run.evaluation_return)
    return [*map(study.cell, scores), study.cell(run.steps_to_threshold, ".0f")]


def knob_settings(env: str) -> dict[str, tuple[str, str, float, Any]]:
    """Name of the runs -> algorithm, knob, its value, and the algorithm with this value."""
    settings: dict[str, tuple[str, str, float, Any]] = {}
    for name, knob in KNOBS.items():
        standard: Any = preset(env, name).algorithm
        for factor in FACTORS:
            setting = getattr(standard, knob)
            annealed = isinstance(setting, LinearSchedule)
            value = factor * (setting.start if annealed else setting)
            changed = replace(standard, **{knob: LinearSchedule(value) if annealed else value})
            settings[f"{name} {knob} {value:.3g}"] = (name, knob, value, changed)
    return settings


def score_rows(comparison: Comparison, columns: Mapping[str, list[str]]) -> list[list[object]]:
    """One row per run: the environment, the columns of the run's name, its seed and its scores."""
    return [
        [comparison.env, *columns[name], seed, *score_cells(run)]
        for name, seeds in comparison.runs.items()
        for seed, run in seeds.items()
    ]


def main() -> None:
    """Compute the missing runs and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/learning_curves"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    common = {"workers": arguments.workers, "progress": True}

    scores: list[list[object]] = []
    for env, steps in TOTAL_STEPS.items():
        folder = arguments.out / short_name(env)
        comparison = compare(env, ALGORITHMS, total_steps=steps, seeds=SEEDS, out=folder, **common)
        path = RESULTS / f"{short_name(env)}.csv"
        study.write(path, ["algorithm", "seed", *DIGITS], curve_rows(comparison))
        scores += score_rows(comparison, {name: [name] for name in ALGORITHMS})
        print(f"{env}\n{comparison.table()}\n")
    study.write(RESULTS / "scores.csv", ["env", "algorithm", "seed", *SCORES], scores)

    sensitivity: list[list[object]] = []
    for env, steps in SENSITIVITY_STEPS.items():
        settings = knob_settings(env)
        algorithms = {run: changed for run, (*_, changed) in settings.items()}
        options = {"total_steps": steps, "seeds": SENSITIVITY_SEEDS, **common}
        folder = arguments.out / f"{short_name(env)}-sensitivity"
        columns = {run: [*names, f"{value:.3g}"] for run, (*names, value, _) in settings.items()}
        sensitivity += score_rows(compare(env, algorithms, out=folder, **options), columns)
    head = ["env", "algorithm", "knob", "value", "seed", *SCORES]
    study.write(RESULTS / "sensitivity.csv", head, sensitivity)


if __name__ == "__main__":
    main()
