"""The PPO paper's Table 1 on four toy tasks: only the objective changes.

    python -m benchmarks.control.ppo_objectives --workers 2    (about 20 minutes of CPU time)
    python -m benchmarks.control.ppo_objectives --table        (a table of docs/results/control.md)

The objectives are no clipping or penalty, clipping, and adaptive and fixed KL penalties. Everything
else is as in the paper's runs on continuous control: batches of 2,048 steps, 10 epochs of
minibatches of 64, Adam at 3e-4 without annealing, GAE 0.95. Advantages are whitened, so that a beta
means the same on every task. Nothing else keeps the policy near the old one: there is no gradient
clipping, no target_kl and no entropy bonus.

The score of a run is the mean return of its last 100 training episodes. It is scaled per task so
that 0 is a fresh policy (mean of 400 sampled episodes) and 1 the best mean over seeds of any
objective, and then averaged over tasks. Intervals are over seeds and treat both ends of the scale
as fixed.
"""

from dataclasses import replace
from typing import NamedTuple

import gymnasium
import numpy as np

import minirl
from benchmarks import study
from minirl.experiments.statistics import bootstrap_interval, compare_scores, with_interval
from minirl.rollout import NonFiniteError

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
COMMON = minirl.PPO(learning_rate=3e-4, epochs=10, minibatch_size=64, normalize_advantages=True)
RANDOM = "fresh policy"
PAPERS_CHOICE = "clipping, epsilon 0.2"


class Item(NamedTuple):
    """One run."""

    seed: int
    task: str
    objective: str


STUDY = study.Study(
    study.RESULTS / "ppo_objectives.csv", Item._fields, ("return", "mean_kl", "clip_fraction")
)


def run(item: Item) -> list[object]:
    """Train one seed: its score and the means over its updates."""
    if item.objective == RANDOM:
        return [round(fresh_policy_return(item.task), 3), "", ""]
    algorithm = replace(COMMON, objective=OBJECTIVES[item.objective])
    settings = minirl.preset(item.task, "ppo").settings
    options = {"total_steps": STEPS[item.task], "seed": item.seed, "settings": settings}
    try:
        result = minirl.train(item.task, algorithm, **options)
    except minirl.TrainingStopped as stopped:
        if not isinstance(stopped.__cause__, NonFiniteError):
            raise
        result = stopped.result  # a policy that became non-finite under its objective counts
    columns = result.history.columns()
    return [
        round(result.history.final_return(), 3),
        float(f"{columns['kl'].mean():.4g}"),
        round(float(columns["clip_fraction"].mean()), 4),
    ]


def fresh_policy_return(task: str) -> float:
    """The mean return of a policy before training, with sampled actions."""
    env, rng = gymnasium.make(task), np.random.default_rng(0)
    log_std = minirl.preset(task, "ppo").settings.initial_log_std
    spaces = env.observation_space, env.action_space
    policy = minirl.make_policy(*spaces, rng, initial_log_std=log_std)
    return minirl.evaluate(task, policy, episodes=400, greedy=False).mean


def wanted(seeds: int) -> list[Item]:
    """All runs, seed by seed, and a fresh policy of each task."""
    fresh = [Item(0, task, RANDOM) for task in STEPS]
    return fresh + [
        Item(seed, task, objective)
        for seed in range(seeds)
        for task in STEPS
        for objective in OBJECTIVES
    ]


def normalised_scores(rows: list[study.Row]) -> dict[str, np.ndarray]:
    """Objective -> scaled returns (tasks, seeds): 0 is a fresh policy, 1 the best objective."""
    by_run = study.grouped(rows, "task", "objective")
    scores = []
    for task in STEPS:
        returns = np.array(
            [study.numbers(by_run[task, objective], "return") for objective in OBJECTIVES]
        )
        (zero,) = study.numbers(by_run[task, RANDOM], "return")
        scores.append((returns - zero) / (returns.mean(axis=1).max() - zero))
    return dict(zip(OBJECTIVES, np.moveaxis(scores, 1, 0), strict=True))


def table() -> str:
    """One line per objective: its mean, compared with the paper's clipping of 0.2, and its KL."""
    rows = STUDY.rows()
    scores = {name: by_task.mean(axis=0) for name, by_task in normalised_scores(rows).items()}
    kl = study.grouped(rows, "objective")
    lines = []
    for objective, values in scores.items():
        low, high = bootstrap_interval(values, np.random.default_rng(0), statistic=np.mean)
        difference = ""
        if objective != PAPERS_CHOICE:
            pair = compare_scores(values, scores[PAPERS_CHOICE], np.random.default_rng(0))
            difference = with_interval(pair.iqm_difference, *pair.difference_interval, "+.2f")
            if not pair.distinguishable:
                difference += ", cannot tell"
        mean_kl = np.mean(study.numbers(kl[objective], "mean_kl"))
        score, interval = f"{values.mean():.2f}", f"{low:.2f} to {high:.2f}"
        lines.append([objective, score, interval, difference, f"{mean_kl:.2g}"])
    head = ["objective", "score", "95 % interval", "difference to clipping 0.2"]
    return study.markdown([*head, "mean KL of an update"], lines)


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table, seeds=8)
