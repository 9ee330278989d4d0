"""Policy gradient, TRPO and PPO on classic control, ten seeds, beside published results.

    python -m benchmarks.control.classic_control            (about 90 minutes on one core)
    python -m benchmarks.control.classic_control --table    (the tables of docs/results/control.md)

Settings are the presets of minirl, some of which were chosen on some of these seeds, and `CLEANRL`
below, CleanRL's settings for PPO on classic control. They are used in three ways: as published,
where MountainCar fails; with a time limit treated as a termination, as CleanRL does; and with
normalised observations, where MountainCar succeeds. The last policy of seed 0 of each task and
algorithm is saved in benchmarks/policies; it is never chosen as the best seed.

first_success    environment steps until an episode of MountainCar first reached the flag in time
velocity_effect  how much the last policy of MountainCar depends on velocity: the standard deviation
                 over velocities of P(push right) - P(push left), averaged over positions
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

import minirl
from benchmarks import study
from benchmarks.control import runs
from benchmarks.control.choices import TimeLimitIsDeath
from minirl.vector_env import reward_threshold

STEPS = {
    "CartPole-v1": 100_000,
    "Acrobot-v1": 200_000,
    "Pendulum-v1": 200_000,
    "MountainCar-v0": 300_000,
    "MountainCarContinuous-v0": 100_000,
}
PRESETS = ("policy-gradient", "trpo", "ppo")
# Of both policy and critic.
CLEANRL_STEPPING = {
    "learning_rate": minirl.LinearSchedule(2.5e-4),
    "epochs": 4,
    "minibatch_size": 128,
    "max_gradient_norm": 0.5,
    "optimizer": minirl.Adam(epsilon=1e-5),
}
CLEANRL = minirl.PPO(normalize_advantages=True, entropy_coefficient=0.01, **CLEANRL_STEPPING)
CLEANRL_SETTINGS = minirl.Settings(
    num_envs=4,
    rollout_steps=128,
    advantages=minirl.GAE(discount=0.99, lam=0.95),
    critic_fit=minirl.CriticFit(value_clip=0.2, **CLEANRL_STEPPING),
)
CLEANRL_STEPS = 500_000
AS_PUBLISHED = "ppo, CleanRL's settings"
NORMALISED = f"{AS_PUBLISHED}, observations normalised"
DEATH = f"{AS_PUBLISHED}, time limit as death"
# Settings of each method that has CleanRL's hyperparameters.
VARIANTS = {
    AS_PUBLISHED: CLEANRL_SETTINGS,
    DEATH: replace(CLEANRL_SETTINGS, advantages=TimeLimitIsDeath(CLEANRL_SETTINGS.advantages)),
    NORMALISED: replace(CLEANRL_SETTINGS, normalize_observations=True),
}
METHODS = [*PRESETS, *VARIANTS]
CLEANRL_RUNS = [("MountainCar-v0", method) for method in VARIANTS]
CLEANRL_RUNS += [(env, AS_PUBLISHED) for env in ("CartPole-v1", "Acrobot-v1")]
# Where the RL Zoo spent fewer steps.
ZOO_RUNS = [
    ("Acrobot-v1", "trpo", 100_000),
    ("Pendulum-v1", "trpo", 100_000),
    ("Pendulum-v1", "ppo", 100_000),
    ("MountainCar-v0", "trpo", 100_000),
    ("MountainCarContinuous-v0", "trpo", 50_000),
    ("MountainCarContinuous-v0", "ppo", 20_000),
]

PUBLISHED = [
    ("CartPole-v1", "PPO", "CleanRL", "500k", "490.0 ± 6.1"),
    ("CartPole-v1", "PPO", "OpenAI Baselines", "500k", "497.5 ± 4.0"),
    ("CartPole-v1", "PPO", "RL Zoo", "100k", "500 ± 0"),
    ("CartPole-v1", "TRPO", "RL Zoo", "100k", "500 ± 0"),
    ("Acrobot-v1", "PPO", "CleanRL", "500k", "-86.4 ± 1.3"),
    ("Acrobot-v1", "PPO", "RL Zoo", "1M", "-73.5 ± 18.2"),
    ("Acrobot-v1", "TRPO", "RL Zoo", "100k", "-83.1 ± 18.6"),
    ("Pendulum-v1", "PPO", "RL Zoo", "100k", "-172 ± 104"),
    ("Pendulum-v1", "TRPO", "RL Zoo", "100k", "-175 ± 128"),
    ("MountainCar-v0", "PPO", "CleanRL", "500k", "-200 ± 0"),
    ("MountainCar-v0", "PPO", "OpenAI Baselines", "500k", "-200 ± 0"),
    ("MountainCar-v0", "PPO", "RL Zoo", "1M", "-110.4 ± 19.5"),
    ("MountainCar-v0", "TRPO", "RL Zoo", "100k", "-107.3 ± 13.2"),
    ("MountainCarContinuous-v0", "PPO", "RL Zoo", "20k", "88.3 ± 2.6"),
    ("MountainCarContinuous-v0", "TRPO", "RL Zoo", "50k", "92.5 ± 0.4"),
]


class Item(NamedTuple):
    """One run."""

    env: str
    method: str
    steps: int
    seed: int


VALUES = ("final_training_return", "evaluation_return", "steps_to_threshold", "cpu_seconds")
VALUES += ("first_success", "velocity_effect")
STUDY = study.Study(study.RESULTS / "classic_control.csv", Item._fields, VALUES)


def wanted(seeds: int) -> list[Item]:
    """All runs, seed by seed: the presets', then at the RL Zoo's budgets, then CleanRL's."""
    presets = [(env, method, steps) for env, steps in STEPS.items() for method in PRESETS]
    published = [(env, method, CLEANRL_STEPS) for env, method in CLEANRL_RUNS]
    return [
        Item(*run, seed)
        for group in (presets, ZOO_RUNS, published)
        for seed in range(seeds)
        for run in group
    ]


def run(item: Item) -> list[str]:
    """Train and evaluate one seed: the values of its row."""
    algorithm = CLEANRL if item.method in VARIANTS else item.method
    options = {"total_steps": item.steps, "seed": item.seed, "settings": VARIANTS.get(item.method)}
    result = minirl.train(item.env, algorithm, **options)
    if item.seed == 0 and item.method in PRESETS and item.steps == STEPS[item.env]:
        runs.save_policy(item.env, item.method, result)
    final, fresh, seconds = runs.scores(result, item.env, item.seed, episodes=100)
    threshold = reward_threshold(item.env)
    reached = None if threshold is None else result.history.steps_to(threshold)
    explored = _exploration(result) if item.env == "MountainCar-v0" else (np.nan, np.nan)
    values = final, fresh, np.nan if reached is None else float(reached), seconds, *explored
    return [study.cell(value) for value in values]


def _exploration(result: minirl.Result) -> tuple[float, float]:
    """The values `first_success` and `velocity_effect`."""
    in_time = np.flatnonzero(result.history.episode_lengths < 200)
    first = result.history.episode_ends[in_time[0]] if len(in_time) else np.nan
    positions, velocities = np.linspace(-1.2, 0.5, 30), np.linspace(-0.07, 0.07, 30)
    states = np.stack(np.meshgrid(positions, velocities, indexing="ij"), axis=-1)
    policy = result.policy(states.reshape(-1, 2).astype(np.float32))
    left, right = (np.exp(policy.log_prob(np.full(900, action))) for action in (0, 2))
    return float(first), float((right - left).reshape(30, 30).std(axis=1).mean())


def table() -> str:
    """For each task the methods of minirl, then published results."""
    lines = []
    by_env = study.grouped(STUDY.rows(), "env")
    for env in STEPS:
        kinds = study.grouped(by_env[env], "method", "steps")
        for method, steps in sorted(kinds, key=lambda kind: (METHODS.index(kind[0]), int(kind[1]))):
            rows = kinds[method, steps]
            reached = study.numbers(rows, "steps_to_threshold")
            when = f", median {np.median(reached) / 1e3:.0f}k" if reached else ""
            arrived = "" if env == "Pendulum-v1" else f"{len(reached)} of {len(rows)}{when}"
            scores = [runs.iqm_cell(rows, column) for column in runs.SCORES[:2]]
            lines.append([env, f"**{method}**", f"{int(steps) // 1000}k", *scores, arrived])
        for env_name, algorithm, source, steps, published in PUBLISHED:
            if env_name == env:
                # The Zoo reports greedy episodes of one run, the others the end of training.
                cells = ("", published) if source == "RL Zoo" else (published, "")
                lines.append([env, f"{algorithm}, {source}", steps, *cells, ""])
    head = ["task", "method", "steps", "last 100 training episodes", "greedy episodes"]
    return study.markdown([*head, "threshold reached"], lines)


def exploration_table() -> str:
    """Whether MountainCar's runs reached the flag, and whether their policies use velocity."""
    lines = []
    stored = study.grouped(STUDY.rows(), "env", "method")
    for method in METHODS:
        rows = stored.get(("MountainCar-v0", method), [])
        # Without the runs at the RL Zoo's budget.
        if rows := [row for row in rows if row["steps"] in ("300000", "500000")]:
            first = study.numbers(rows, "first_success")
            effect = np.median(study.numbers(rows, "velocity_effect"))
            when = f"{np.median(first) / 1e3:.0f}k" if first else ""
            lines.append([method, f"{len(first)} of {len(rows)}", when, f"{effect:.3f}"])
    head = ["method", "seeds that reached the flag", "first time, median", "effect of velocity"]
    return study.markdown(head, lines)


def tables() -> str:
    """Both tables of docs/results/control.md."""
    return f"{table()}\n\n{exploration_table()}"


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, tables, seeds=10)
