"""The long runs behind notebook 05: learning curves, and how forgiving TRPO and PPO are.

    python benchmarks/learning_curves.py        (about a quarter of an hour on two cores)

Writes into benchmarks/results/learning_curves: for each environment the curves of four algorithms
and ten seeds, at 2,048 steps a row; scores.csv with the scores of each of these runs; and
sensitivity.csv, the scores of TRPO and PPO with their main knob at multiples of its default, five
seeds each. Finished runs are kept in --out: a call that was interrupted goes on where it stopped.
Everything but `cpu_seconds` comes out the same on the same machine.
"""

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from minirl.experiments.compare import Comparison, Run, compare
from minirl.optimizers import LinearSchedule
from minirl.serialization import write_text
from minirl.settings import default_algorithm

RESULTS = Path(__file__).parent / "results" / "learning_curves"

ALGORITHMS = ("policy-gradient", "natural-gradient", "trpo", "ppo")
TOTAL_STEPS = {"CartPole-v1": 100_000, "Acrobot-v1": 200_000, "Pendulum-v1": 200_000}
SEEDS = 10

KNOBS = {"trpo": "max_kl", "ppo": "learning_rate"}
FACTORS = (1 / 30, 1 / 10, 1 / 3, 1.0, 3.0, 10.0, 30.0)
SENSITIVITY_STEPS = {"CartPole-v1": 50_000, "Pendulum-v1": 100_000}
SENSITIVITY_SEEDS = 5

STEPS_A_ROW = 2048  # the rollout of all but the policy gradient, whose batches are a quarter of it
DIGITS = {
    "environment_steps": ".0f",
    "gradient_equivalents": ".0f",
    "cpu_seconds": ".3f",
    "mean_return": ".5g",
    "kl": ".3g",
}
SCORES = ["average_return", "final_training_return", "evaluation_return", "steps_to_threshold"]


def short_name(env: str) -> str:
    """The name of an environment's files: cartpole for CartPole-v1."""
    return env.split("-")[0].lower()


def kept_rows(steps: np.ndarray) -> np.ndarray:
    """Which updates are stored: the last one in each stretch of `STEPS_A_ROW` steps."""
    stretch = (steps - 1) // STEPS_A_ROW
    return np.flatnonzero(np.append(np.diff(stretch) > 0, True))


def curve_lines(comparison: Comparison) -> list[str]:
    """The curves of one environment; an empty cell where no episode has ended yet."""
    lines = [",".join(["algorithm", "seed", *DIGITS])]
    for name, seeds in comparison.runs.items():
        for seed, run in seeds.items():
            for row in kept_rows(run.columns["environment_steps"]):
                numbers = [
                    _cell(run.columns[column][row], digits) for column, digits in DIGITS.items()
                ]
                lines.append(",".join([name, str(seed), *numbers]))
    return lines


def average_return(columns: Mapping[str, np.ndarray]) -> float:
    """`mean_return` averaged over the environment steps of a run: high for early learning."""
    steps, returns = columns["environment_steps"], columns["mean_return"]
    known = np.isfinite(returns)
    return float(np.average(returns[known], weights=np.diff(steps, prepend=0)[known]))


def score_cells(run: Run) -> list[str]:
    """The scores of one run; the last cell is empty if the threshold was never reached."""
    scores = (average_return(run.columns), run.final_training_return, run.evaluation_return)
    return [*(_cell(score, ".6g") for score in scores), _cell(run.steps_to_threshold, ".0f")]


def knob_settings(env: str) -> dict[str, tuple[str, str, float, Any]]:
    """Name of the runs -> algorithm, knob, its value, and the algorithm with this value."""
    found: dict[str, tuple[str, str, float, Any]] = {}
    for name, knob in KNOBS.items():
        standard: Any = default_algorithm(name, env)
        for factor in FACTORS:
            setting = getattr(standard, knob)
            annealed = isinstance(setting, LinearSchedule)
            value = factor * (setting.start if annealed else setting)
            changed = replace(standard, **{knob: LinearSchedule(value) if annealed else value})
            found[f"{name} {knob} {value:.3g}"] = (name, knob, value, changed)
    return found


def sensitivity_lines(comparison: Comparison) -> list[str]:
    """One line a run of the comparison of all `knob_settings` of an environment."""
    lines = []
    for run_name, (name, knob, value, _) in knob_settings(comparison.env).items():
        for seed, run in comparison.runs[run_name].items():
            head = [comparison.env, name, knob, f"{value:.3g}", str(seed)]
            lines.append(",".join([*head, *score_cells(run)]))
    return lines


def _cell(value: float, digits: str) -> str:
    return "" if np.isnan(value) else f"{value:{digits}}"


def _write(name: str, lines: list[str]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_text(RESULTS / name, "\n".join(lines) + "\n")


def main() -> None:
    """Run what is missing and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("results/learning_curves"))
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    common = {"workers": arguments.workers, "progress": True}

    scores = [",".join(["env", "algorithm", "seed", *SCORES])]
    for env, steps in TOTAL_STEPS.items():
        folder = arguments.out / short_name(env)
        comparison = compare(ALGORITHMS, env, total_steps=steps, seeds=SEEDS, out=folder, **common)
        _write(f"{short_name(env)}.csv", curve_lines(comparison))
        for name, seeds in comparison.runs.items():
            for seed, run in seeds.items():
                scores.append(",".join([env, name, str(seed), *score_cells(run)]))
        print(f"{env}\n{comparison.table()}\n")
    _write("scores.csv", scores)

    sensitivity = [",".join(["env", "algorithm", "knob", "value", "seed", *SCORES])]
    for env, steps in SENSITIVITY_STEPS.items():
        algorithms = {name: changed for name, (*_, changed) in knob_settings(env).items()}
        folder = arguments.out / f"{short_name(env)}-sensitivity"
        comparison = compare(
            algorithms, env, total_steps=steps, seeds=SENSITIVITY_SEEDS, out=folder, **common
        )
        sensitivity += sensitivity_lines(comparison)
    _write("sensitivity.csv", sensitivity)


if __name__ == "__main__":
    main()
