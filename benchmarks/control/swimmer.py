"""TRPO on Swimmer-v5 in minirl and in sb3-contrib with the same settings, twenty seeds each.

    make VENV=.venv-peers .venv-peers/.bench
    .venv-peers/bin/python -m benchmarks.control.swimmer            (two hours on one core)
    .venv-peers/bin/python -m benchmarks.control.swimmer --table    (for docs/results/control.md)

Settings are the RL Zoo's, as in `mujoco_tasks.py`, for 300,000 steps. A run either learns the
stroke that scores about 350 or stays at about 130, so three seeds show little. This script counts
how many of twenty seeds learn it. It also runs minirl with damping that shortens the step, as in
sb3-contrib, and with a discount of 0.99.
"""

from contextlib import nullcontext
from typing import NamedTuple
from unittest import mock

import numpy as np
from scipy import stats

import minirl
from benchmarks import study
from benchmarks.control import mujoco_tasks
from benchmarks.control.choices import DAMPED_STEP
from benchmarks.speed import peer_run
from minirl.experiments.statistics import bootstrap_interval, with_interval

ENVIRONMENT = "Swimmer-v5"
STEPS = 300_000
BLOCK = 20  # episodes in a mean return; an episode has 1,000 steps
BETTER = 250  # a run whose last block scores more has learned the better stroke
DAMPED = "minirl, damping shortens the step"
NEARSIGHTED = "minirl, discount 0.99"
LIBRARIES = ("minirl", DAMPED, NEARSIGHTED, "sb3-contrib")


class Item(NamedTuple):
    """One run."""

    library: str
    seed: int


STUDY = study.Study(
    mujoco_tasks.RESULTS / "swimmer.csv",
    Item._fields,
    tuple(f"return_{n}k" for n in range(BLOCK, STEPS // 1000 + 1, BLOCK)),
)


def choices(item: Item) -> tuple[minirl.TRPO, minirl.Settings]:
    """The algorithm and settings of a run, whichever library computes it."""
    nearsighted = item.library == NEARSIGHTED
    method = mujoco_tasks.ZOO_NEARSIGHTED if nearsighted else mujoco_tasks.ZOO
    return mujoco_tasks.choices(mujoco_tasks.Item(ENVIRONMENT, method, item.seed))


def minirl_returns(item: Item) -> np.ndarray:
    """Returns of minirl's training episodes, in the order in which they ended."""
    algorithm, settings = choices(item)
    with mock.patch.object(*DAMPED_STEP) if item.library == DAMPED else nullcontext():
        options = {"total_steps": STEPS, "seed": item.seed, "settings": settings}
        return minirl.train(ENVIRONMENT, algorithm, **options).history.episode_returns


def sb3_returns(item: Item) -> np.ndarray:
    """Returns of sb3-contrib's training episodes, in the order in which they ended."""
    algorithm, settings = choices(item)
    fit = settings.critic_fit
    same_settings = peer_run.TRPOSettings(
        num_envs=settings.num_envs,
        rollout_steps=settings.rollout_steps,
        discount=settings.advantages.discount,
        lam=settings.advantages.lam,
        max_kl=algorithm.max_kl,
        damping=algorithm.damping,
        cg_iterations=algorithm.cg_iterations,
        shrink=algorithm.line_search_shrink,
        critic_learning_rate=fit.learning_rate,
        critic_epochs=fit.epochs,
        critic_minibatch_size=fit.minibatch_size,
        normalize=True,
    )
    task = peer_run.Task("", "steps", ENVIRONMENT, STEPS, (item.library,), same_settings)
    return np.array(peer_run.run_stable_baselines(task, item.library, item.seed).episode_returns)


def run(item: Item) -> list[str]:
    """Mean returns of consecutive blocks of episodes."""
    returns = sb3_returns(item) if item.library == "sb3-contrib" else minirl_returns(item)
    blocks = [returns[end - BLOCK : end].mean() for end in range(BLOCK, len(returns) + 1, BLOCK)]
    return [f"{block:.5g}" for block in blocks]


def table() -> str:
    """How many runs learned the better stroke, and how likely such a difference is by chance."""
    by_library = study.grouped(STUDY.rows(), "library")
    lines, reference = [], None
    for library in (name for name in LIBRARIES if name in by_library):
        returns = study.numbers(by_library[library], STUDY.values[-1])  # of the last 20 episodes
        learned = sum(score > BETTER for score in returns)
        counts = learned, len(returns) - learned
        low, high = bootstrap_interval(returns, np.random.default_rng(0), np.mean)
        reference = reference or counts  # minirl is the first
        p_value = ""
        if library != "minirl":
            p_value = f"p = {stats.fisher_exact([counts, reference]).pvalue:.2g}"
        mean = with_interval(float(np.mean(returns)), low, high, ".0f")
        runs = ", ".join(f"{score:.0f}" for score in sorted(returns, reverse=True))
        lines.append([library, f"{learned} of {len(returns)}", p_value, mean, runs])
    head = ["", f"runs above {BETTER}", "Fisher's test against minirl", "mean", "all runs"]
    return study.markdown(head, lines)


def wanted(seeds: int) -> list[Item]:
    """All runs, seed by seed."""
    return [Item(library, seed) for seed in range(seeds) for library in LIBRARIES]


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, wanted, table, seeds=20)
