"""Every preset of minirl/settings.py on ten seeds that chose none of its numbers.

    pip install -e '.[box2d,mujoco]'
    python -m benchmarks.control.presets            (about two hours on one core)
    python -m benchmarks.control.presets --table    (the table of docs/results/control.md)

One run per environment, algorithm and seed, with the steps of `STEPS`, which are fewer than a
comparison with published results needs: MuJoCo's tasks get a tenth of theirs, and only TRPO and
PPO, for which their preset was made. benchmarks/results/presets.csv names the commit of each run.

final_training_return    mean return of the last 100 training episodes, which sample their actions
evaluation_return        mean return of fresh episodes of the last policy with its most probable
                         actions; of the token task, the fraction of the optimum that an alignment
                         by gold rewards reaches at beta = 0.3, each seed with a corpus of its own
"""

from dataclasses import replace
from typing import NamedTuple

import gymnasium
import numpy as np

import minirl
from benchmarks import study
from benchmarks.rlhf.case import reference_model
from minirl import rlhf
from minirl.exact import FiniteMDP, LQRProblem, lqr, tabular
from minirl.settings import TABLE_CRITIC_FIT
from minirl.support.serialization import versions

TOKENS = "minirl/TokenGeneration-v0"
# Environment steps of a run; of the token task, sentences.
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


STUDY = study.Study(
    study.RESULTS / "presets.csv",
    Item._fields,
    ("commit", "final_training_return", "evaluation_return", "cpu_seconds"),
)


def algorithms(env: str) -> list[str]:
    """The algorithms of an environment's preset that are run."""
    known = minirl.PRESETS[env].algorithms
    mujoco = minirl.PRESETS[env] is minirl.PRESETS["HalfCheetah-v5"]
    return [name for name in known if not mujoco or name in MUJOCO_ALGORITHMS]


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
        result, score = align(item)
    else:
        result = minirl.train(item.env, item.algorithm, total_steps=item.steps, seed=item.seed)
        score = minirl.evaluate(result.policy, item.env, episodes=100, seed=item.seed).mean
    measured = (
        result.history.final_return(),
        score,
        result.history.columns()["cpu_seconds"][-1],
    )
    return [versions().get("commit", ""), *(study.cell(float(number)) for number in measured)]


def align(item: Item) -> tuple[minirl.Result, float]:
    """Align a reference of the seed's own corpus; the fraction of the optimum that it reaches."""
    task = rlhf.arithmetic()
    reference = reference_model(np.random.default_rng(item.seed))
    result = rlhf.align(
        task,
        reference,
        task.utilities,
        item.algorithm,
        sentences=item.steps,
        beta=BETA,
        seed=item.seed,
    )
    objective = rlhf.Objective(task, reference, task.utilities, BETA)
    return result, objective.fraction_of_optimum(result.policy)


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
    if minirl.PRESETS[env].settings.critic_fit == TABLE_CRITIC_FIT:
        mdp = FiniteMDP.from_gymnasium(gymnasium.make(env), 1.0)
        values = tabular.optimal_values(mdp)[0]
        if limit is not None:
            values = tabular.finite_horizon_values(mdp, None, limit)
        return f"best possible {mdp.start @ values:.3g}"
    threshold = gymnasium.spec(env).reward_threshold
    return "" if threshold is None else f"threshold {threshold:g}"


def score(rows: list[study.Row], column: str) -> str:
    """Interquartile mean over seeds with its 95 % interval."""
    scores = study.numbers(rows, column)
    if not scores:
        return ""
    largest = max(map(abs, scores))
    return study.iqm_with_interval(scores, f".{0 if largest >= 300 else 1 if largest > 5 else 3}f")


def table() -> str:
    """A line per environment and algorithm."""
    lines = []
    runs = study.grouped(STUDY.rows(), "env", "algorithm")
    for env, steps in STEPS.items():
        beside = yardstick(env)
        for name in algorithms(env):
            own = runs.get((env, name), [])
            if not own:
                continue
            scores = score(own, "final_training_return"), score(own, "evaluation_return")
            size = f"{steps / 1000:g}k"
            lines.append([env, name, size, *scores, beside])
    head = ["environment", "algorithm", "steps", "last 100 training episodes", "greedy episodes"]
    return study.markdown([*head, "best possible, or threshold"], lines)


def main() -> None:
    """Compute the missing runs, print the table."""
    study.command_line(
        __doc__,
        complete=lambda given: STUDY.complete(run, wanted(), given.workers),
        table=table,
    )


if __name__ == "__main__":
    main()
