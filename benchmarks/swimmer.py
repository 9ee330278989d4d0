"""TRPO on Swimmer-v5 in minirl and in sb3-contrib, the same numbers, twenty seeds of each.

    make VENV=.venv-peers .venv-peers/.bench
    .venv-peers/bin/python benchmarks/swimmer.py            (two hours on one core)
    .venv-peers/bin/python benchmarks/swimmer.py --table    (the table of docs/results.md)

Numbers are the RL Zoo's, as in `mujoco_tasks.py`, for 300,000 steps. A run either finds the stroke
that scores about 350 or swims on at about 130, so three seeds say little: this script asks in how
many of twenty. It also runs minirl with damping that shortens the step, as sb3-contrib has it, and
with a discount of 0.99. Runs go to benchmarks/results/mujoco/swimmer.csv as they finish, and a
second call goes on from there.
"""

import argparse
import contextlib
from collections.abc import Sequence
from typing import NamedTuple

import mujoco_tasks  # four files beside this one
import numpy as np
import peer_run
import stored
from choices import with_damping_in_the_step
from scipy import stats

import minirl
from minirl.experiments.statistics import bootstrap_interval

RESULTS = mujoco_tasks.RESULTS / "swimmer.csv"
ENVIRONMENT = "Swimmer-v5"
STEPS = 300_000
BLOCK = 20  # episodes in a mean return; an episode has 1,000 steps
BETTER = 250  # a run whose last block is above has found the better stroke
DAMPED = "minirl, damping shortens the step"
NEARSIGHTED = "minirl, discount 0.99"
LIBRARIES = ("minirl", DAMPED, NEARSIGHTED, "sb3-contrib")
COLUMNS = ["library", "seed", *(f"return_{n}k" for n in range(BLOCK, STEPS // 1000 + 1, BLOCK))]


class Item(NamedTuple):
    """One run."""

    library: str
    seed: int


def choices(item: Item) -> tuple[minirl.TRPO, minirl.Settings]:
    """The numbers of a run, whichever library it is of."""
    nearsighted = item.library == NEARSIGHTED
    method = mujoco_tasks.ZOO_NEARSIGHTED if nearsighted else mujoco_tasks.ZOO
    return mujoco_tasks.choices(mujoco_tasks.Item(ENVIRONMENT, method, item.seed))


def minirl_returns(item: Item) -> np.ndarray:
    """Returns of the training episodes, in the order of their ends."""
    algorithm, settings = choices(item)
    damping = with_damping_in_the_step() if item.library == DAMPED else contextlib.nullcontext()
    with damping:
        history = minirl.train(
            ENVIRONMENT, algorithm, total_steps=STEPS, seed=item.seed, settings=settings
        ).history
    return history.episode_returns


def sb3_returns(item: Item) -> np.ndarray:
    """The same of sb3-contrib."""
    algorithm, settings = choices(item)
    fit = settings.critic_fit
    numbers = peer_run.TRPOSettings(
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
    task = peer_run.Task("", "steps", ENVIRONMENT, STEPS, (item.library,), numbers)
    found = peer_run.run_stable_baselines(task, item.library, item.seed)
    return np.array(found.episode_returns)


def run(item: Item) -> list[str]:
    """A line of the file."""
    returns = sb3_returns(item) if item.library == "sb3-contrib" else minirl_returns(item)
    blocks = [returns[end - BLOCK : end].mean() for end in range(BLOCK, len(returns) + 1, BLOCK)]
    return [item.library, str(item.seed), *(f"{block:.5g}" for block in blocks)]


def last_blocks() -> dict[str, list[float]]:
    """Mean returns of the last 20 episodes of each run, by library."""
    found: dict[str, list[float]] = {}
    for row in stored.read(RESULTS):
        found.setdefault(row["library"], []).append(float(row[COLUMNS[-1]]))
    return found


def found_it(returns: Sequence[float]) -> int:
    return sum(score > BETTER for score in returns)


def table() -> str:
    """How many runs found the better stroke, and how likely such a difference is by chance."""
    scores = last_blocks()
    ours = scores.get("minirl", [])
    reference = found_it(ours), len(ours)
    lines = []
    for library in (name for name in LIBRARIES if name in scores):
        own = scores[library]
        counts = found_it(own), len(own)
        low, high = bootstrap_interval(own, np.random.default_rng(0), np.mean)
        p_value = ""
        if library != "minirl":
            test = stats.fisher_exact([[n, of - n] for n, of in (counts, reference)])
            p_value = f"p = {test.pvalue:.2g}"
        mean = f"{np.mean(own):.0f} [{low:.0f}, {high:.0f}]"
        runs = ", ".join(f"{score:.0f}" for score in sorted(own, reverse=True))
        lines.append([library, "{} of {}".format(*counts), p_value, mean, runs])
    head = ["", f"runs above {BETTER}", "Fisher's test against minirl", "mean", "all runs"]
    return stored.markdown(head, lines)


def main() -> None:
    """Run what is missing, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="how many")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--table", action="store_true", help="print the table, train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        done = {Item(row["library"], int(row["seed"])) for row in stored.read(RESULTS)}
        items = [Item(library, seed) for seed in range(arguments.seeds) for library in LIBRARIES]
        missing = [item for item in items if item not in done]
        for line in stored.finished(run, missing, arguments.workers):
            stored.append(RESULTS, COLUMNS, [line])
    print(table())


if __name__ == "__main__":
    main()
