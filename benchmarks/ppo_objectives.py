"""The PPO paper's Table 1 on four toy tasks: every objective, nothing else changed.

    python benchmarks/ppo_objectives.py --workers 2

trains no clipping or penalty, clipping, adaptive and fixed KL penalty at the paper's settings for
continuous control (batches of 2,048 steps, 10 epochs of minibatches of 64, Adam at 3e-4 without
annealing, GAE 0.95) with advantages whitened, so that a beta means the same on every task. Nothing
else holds the policy back: no gradient clipping, no target_kl, no entropy bonus.

The score of a run is the mean return of its last 100 training episodes, scaled per task so that 0
is a fresh policy (mean of 400 sampled episodes) and 1 the best mean over seeds of any objective;
then averaged over tasks. Intervals are over seeds and take both ends of the scale as given. Runs go
to benchmarks/results/ppo_objectives.csv as they finish; a second call goes on from those it finds
there (delete the file to begin anew). About 20 CPU minutes.
"""

import argparse
import csv
import io
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import stored  # the file beside this one

import minirl
from minirl.experiments.statistics import bootstrap_interval, compare_scores
from minirl.rollout import NonFiniteError
from minirl.serialization import write_text

STEPS = {
    "CartPole-v1": 60_000,
    "Acrobot-v1": 40_000,
    "Pendulum-v1": 60_000,
    "minirl/LQR-v0": 40_000,
}
OBJECTIVES = {
    "no clipping or penalty": minirl.Unclipped(),
    **{f"clipping, epsilon {e}": minirl.Clipped(e) for e in (0.1, 0.2, 0.3)},
    **{f"adaptive KL, target {t}": minirl.AdaptiveKL(t) for t in (0.003, 0.01, 0.03)},
    **{f"fixed KL, beta {b}": minirl.FixedKL(b) for b in (0.3, 1.0, 3.0, 10.0)},
}
RANDOM = "fresh policy"
PAPERS_CHOICE = "clipping, epsilon 0.2"
FIELDS = ("seed", "task", "objective", "return", "mean_kl", "clip_fraction", "normalised")
RESULTS = Path(__file__).parent / "results" / "ppo_objectives.csv"

Row = dict[str, str | int | float]


class Item(NamedTuple):
    """One run."""

    task: str
    objective: str
    seed: int


def algorithm(objective: str) -> minirl.PPO:
    """PPO with this objective; all else is the same for all."""
    return minirl.PPO(
        objective=OBJECTIVES[objective],
        learning_rate=3e-4,
        epochs=10,
        minibatch_size=64,
        normalize_advantages=True,
    )


def run(item: Item) -> Row:
    """Train one seed; its score and what its updates did on average."""
    task, objective, seed = item
    settings = minirl.default_settings(task, "ppo")
    try:
        result = minirl.train(
            task, algorithm(objective), total_steps=STEPS[task], seed=seed, settings=settings
        )
    except minirl.TrainingStopped as stopped:
        if not isinstance(stopped.__cause__, NonFiniteError):
            raise
        result = stopped.result  # a policy that its objective let become non-finite counts
    columns = result.history.columns()
    return {
        "seed": seed,
        "task": task,
        "objective": objective,
        "return": round(result.history.final_return(), 3),
        "mean_kl": float(f"{columns['kl'].mean():.4g}"),
        "clip_fraction": round(float(columns["clip_fraction"].mean()), 4),
    }


def fresh_policy(task: str) -> Row:
    """What a policy earns before training, sampling its actions."""
    envs = minirl.make_vector_env(task, 1)
    spaces = envs.single_observation_space, envs.single_action_space
    envs.close()
    log_std = minirl.default_settings(task, "ppo").initial_log_std
    policy = minirl.make_policy(*spaces, np.random.default_rng(0), initial_log_std=log_std)
    found = minirl.evaluate(policy, task, episodes=400, greedy=False)
    return {"seed": 0, "task": task, "objective": RANDOM, "return": round(found.mean, 3)}


def read(path: Path) -> list[Row]:
    """The rows of an earlier call, numbers as numbers."""
    return [
        {
            key: value if key in Item._fields[:2] else int(value) if key == "seed" else float(value)
            for key, value in row.items()
            if value
        }
        for row in stored.read(path)
    ]


def write(path: Path, rows: Iterable[Row]) -> None:
    """All rows, in the order of seeds, tasks and objectives."""
    tasks, objectives = list(STEPS), [RANDOM, *OBJECTIVES]
    path.parent.mkdir(exist_ok=True)
    table = io.StringIO()
    writer = csv.DictWriter(table, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        sorted(
            rows,
            key=lambda row: (
                row["seed"],
                tasks.index(str(row["task"])),
                objectives.index(str(row["objective"])),
            ),
        )
    )
    write_text(path, table.getvalue())


def normalise(rows: list[Row]) -> None:
    """Put the scaled score into every row."""
    for task in STEPS:
        scores: dict[str, list[float]] = {}
        for row in rows:
            if row["task"] == task:
                scores.setdefault(str(row["objective"]), []).append(float(row["return"]))
        zero, one = scores[RANDOM][0], max(map(np.mean, scores.values()))
        for row in rows:
            if row["task"] == task:
                row["normalised"] = round(float((row["return"] - zero) / (one - zero)), 4)


def table(rows: list[Row]) -> str:
    """One line an objective: its mean, beside the paper's clipping of 0.2, and its updates' KL."""

    def over_tasks(objective: str) -> list[float]:
        own = [row for row in rows if row["objective"] == objective]
        seeds = sorted({row["seed"] for row in own})
        return [np.mean([row["normalised"] for row in own if row["seed"] == s]) for s in seeds]

    lines = []
    for objective in OBJECTIVES:
        scores = over_tasks(objective)
        low, high = bootstrap_interval(scores, np.random.default_rng(0), statistic=np.mean)
        difference = ""
        if objective != PAPERS_CHOICE:
            pair = compare_scores(scores, over_tasks(PAPERS_CHOICE), np.random.default_rng(0))
            bounds = ", ".join(f"{bound:+.2f}" for bound in pair.difference_interval)
            difference = f"{pair.iqm_difference:+.2f} [{bounds}]"
            if not pair.distinguishable:
                difference += ", cannot tell"
        kl = np.mean([row["mean_kl"] for row in rows if row["objective"] == objective])
        score, interval = f"{np.mean(scores):.2f}", f"{low:.2f} to {high:.2f}"
        lines.append([objective, score, interval, difference, f"{kl:.2g}"])
    head = ["objective", "score", "95 % interval", "difference to clipping 0.2"]
    return stored.markdown([*head, "mean KL of an update"], lines)


def main() -> None:
    """Train what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="of each objective and task")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--csv", type=Path, default=RESULTS, help="where the runs are kept")
    arguments = parser.parse_args()
    rows = read(arguments.csv)
    done = {(row["task"], row["objective"], row["seed"]) for row in rows}
    rows += [fresh_policy(task) for task in STEPS if (task, RANDOM, 0) not in done]
    wanted = [
        Item(task, objective, seed)
        for seed in range(arguments.seeds)
        for task in STEPS
        for objective in OBJECTIVES
    ]
    missing = [item for item in wanted if item not in done]
    for row in stored.finished(run, missing, arguments.workers):
        rows.append(row)
        write(arguments.csv, rows)
    normalise(rows)
    write(arguments.csv, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
