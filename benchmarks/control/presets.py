"""Every preset of minirl/presets.py on ten seeds that were not used to choose its numbers.

    pip install -e '.[box2d,mujoco]'
    python -m benchmarks.control.presets            (about two hours on one core)
    python -m benchmarks.control.presets --table    (the table of docs/results/control.md)

One run per environment, algorithm and seed, with the steps of `STEPS`. They are fewer than a
comparison with published results needs: MuJoCo's tasks get a tenth of the usual steps, and only
TRPO and PPO, for which their preset was made. benchmarks/results/presets.csv contains the commit
of each run.

final_training_return    mean return of the last 100 training episodes, which sample their actions
evaluation_return        mean return of fresh episodes of the last policy with its most probable
                         actions; for the token task, the fraction of the optimum that alignment
                         with gold rewards reaches at beta = 0.3, with a separate corpus per seed
"""

from dataclasses import replace
from typing import NamedTuple

import gymnasium
import numpy as np

import minirl
from benchmarks import study
from benchmarks.control import runs
from benchmarks.rlhf.case import Case
from minirl.exact import FiniteMDP, LQRProblem, lqr, tabular
from minirl.presets import TABLE_CRITIC_FIT, VERIFIED
from minirl.support.serialization import versions

TOKENS = "minirl/TokenGeneration-v0"
# Environment steps of a run; for the token task, sentences.
STEPS = {
    "LunarLander-v3": 300_000,
    "FrozenLake8x8-v1": 1_000_000,
    "InvertedPendulum-v5": 100_000,
    "CartPole-v1": 100_000,
    "Acrobot-v1": 200_000,
    "Pendulum-v1": 200_000,
    "MountainCar-v0": 300_000,
    "MountainCarContinuous-v0": 100_000,
    "FrozenLake-v1": 200_000,
    "CliffWalking-v1": 200_000,
    "Taxi-v4": 400_000,
    "minirl/Chain-v0": 20_000,
    "minirl/GridWorld-v0": 60_000,
    "minirl/LQR-v0": 60_000,
    TOKENS: 51_200,
    "HalfCheetah-v5": 100_000,
    "Hopper-v5": 100_000,
    "Swimmer-v5": 100_000,
    "Walker2d-v5": 100_000,
}
MUJOCO_ALGORITHMS = ("trpo", "ppo")
SEEDS = range(100, 110)
BETA = 0.3


class Item(NamedTuple):
    """One run."""

    env: str
    algorithm: str
    steps: int
    seed: int


STUDY = study.Study(study.RESULTS / "presets.csv", Item._fields, ("commit", *runs.SCORES))


def algorithms(env: str) -> list[str]:
    """The names of the presets of an environment that are run.

    The presets for verifiable rewards have measurements of their own (docs/rlhf/group-relative.md).
    """
    mujoco = minirl.PRESETS[env] is minirl.PRESETS["HalfCheetah-v5"]
    names = [name for name in minirl.PRESETS[env] if name not in VERIFIED]
    return [name for name in names if not mujoco or name in MUJOCO_ALGORITHMS]


def wanted() -> list[Item]:
    """All runs, environment by environment."""
    return [
        Item(env, name, steps, seed)
        for env, steps in STEPS.items()
        for seed in SEEDS
        for name in algorithms(env)
    ]


def run(item: Item) -> list[str]:
    """Train and evaluate one seed: the values of its row."""
    if item.env == TOKENS:
        values = align(item)
    else:
        result = minirl.train(item.env, item.algorithm, total_steps=item.steps, seed=item.seed)
        values = runs.scores(result, item.env, item.seed, episodes=100)
    return [versions().get("commit", ""), *map(study.cell, values)]


def align(item: Item) -> tuple[float, ...]:
    """Align a reference of the seed's corpus; the score is the fraction of the optimum."""
    case = Case(np.random.default_rng(item.seed), BETA)
    result = case.align(item.algorithm, sentences=item.steps, seed=item.seed)
    fraction = case.objective.fraction_of_optimum(result.policy)
    seconds = result.history.columns()["cpu_seconds"][-1]
    return float(result.history.final_return()), fraction, float(seconds)


def yardstick(env: str) -> str:
    """The best possible mean return, computed exactly, or Gymnasium's threshold, if it has one."""
    limit = gymnasium.spec(env).max_episode_steps
    if env == TOKENS:
        return "best possible 1"
    if env == "minirl/LQR-v0":
        problem = LQRProblem.from_gymnasium(gymnasium.make(env), 0.95)
        gain, undiscounted = lqr.optimal_gain(problem), replace(problem, discount=1 - 1e-12)
        best = lqr.expected_return_finite(undiscounted, gain, np.full(1, -np.inf), limit)
        return f"optimal gain {best:.1f}"
    if minirl.preset(env, "ppo").settings.critic_fit == TABLE_CRITIC_FIT:
        mdp = FiniteMDP.from_gymnasium(gymnasium.make(env), 1.0)
        values = tabular.optimal_values(mdp)[0]
        if limit is not None:
            values = tabular.finite_horizon_values(mdp, None, limit)
        return f"best possible {mdp.start @ values:.3g}"
    threshold = gymnasium.spec(env).reward_threshold
    return "" if threshold is None else f"threshold {threshold:g}"


def table() -> str:
    """One line per environment and algorithm."""
    lines = []
    stored = study.grouped(STUDY.rows(), "env", "algorithm")
    for env, steps in STEPS.items():
        best = yardstick(env)
        for name in algorithms(env):
            if rows := stored.get((env, name)):
                cells = [runs.iqm_cell(rows, column, small=".3f") for column in runs.SCORES[:2]]
                lines.append([env, name, f"{steps / 1000:g}k", *cells, best])
    head = ["environment", "algorithm", "steps", "last 100 training episodes", "greedy episodes"]
    return study.markdown([*head, "best possible, or threshold"], lines)


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table)
