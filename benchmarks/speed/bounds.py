"""Speed of minirl as ratios to named bounds, and time to learn CartPole, on one core.

    python -m benchmarks.speed.bounds    (`make bench`: docs/results/speed-table.md)

All times are CPU time. Every ratio compares two functions that are timed alternately in this one
run, because a machine's speed changes from minute to minute.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np

import minirl
from benchmarks import study
from benchmarks.speed.timing import Work, cpu_seconds, machine
from minirl.algorithms.natural_gradient import fisher_vector_product
from minirl.algorithms.ppo import Clipped
from minirl.batch import Batch
from minirl.experiments.statistics import interval_text
from minirl.support.machine import one_core

HIDDEN = 64  # units of each of two layers


def medians(measure: Callable[[Any], float], things: Sequence[Any], repeats: int) -> list[float]:
    """The median over repeats of measure(thing), for each thing; the things take turns."""
    turns = [[measure(thing) for thing in things] for _ in range(repeats)]
    return np.median(turns, axis=0).tolist()


def cartpole_networks(width: int) -> tuple[minirl.Policy, minirl.Critic]:
    """A fresh policy and critic with two hidden layers, the same at every call."""
    rng = np.random.default_rng(0)
    env = gymnasium.make("CartPole-v1")
    hidden = (width, width)
    return (
        minirl.make_policy(env.observation_space, env.action_space, rng, hidden_sizes=hidden),
        minirl.make_critic(env.observation_space, rng, hidden_sizes=hidden),
    )


def random_batch(rows: int) -> Batch:
    """CartPole-like transitions, the same at every call."""
    rng = np.random.default_rng(1)
    signals = rng.standard_normal((4, rows)).astype("float32")
    return Batch(
        observations=rng.standard_normal((rows, 4)).astype("float32"),
        actions=rng.integers(2, size=rows),
        log_probs=np.full(rows, np.log(0.5), "float32"),
        values=signals[0],
        advantages=signals[1],
        returns=signals[2],
        weight=np.full(rows, 1 / rows, "float32"),
    )


def random_vector(size: int) -> np.ndarray:
    """A direction (size,), the same at every call."""
    return np.random.default_rng(3).standard_normal(size).astype("float32")


class BareProducts:
    """The matrix products of a network, into ready-made arrays.

    Parameters
    ----------
    rows : int
        Of the batch.
    sizes : tuple of int
        Widths of the layers.
    """

    def __init__(self, rows: int, sizes: tuple[int, ...]) -> None:
        rng = np.random.default_rng(2)

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype("float32")

        self.weights = [normal(n_in, n_out) for n_in, n_out in pairwise(sizes)]
        self.layers, self.tangents, self.other = (
            [normal(rows, width) for width in sizes] for _ in range(3)
        )
        self.gradients = [np.empty_like(weight) for weight in self.weights]

    def forward(self) -> None:
        """One forward pass with tanh."""
        for i, weight in enumerate(self.weights):
            np.matmul(self.layers[i], weight, out=self.layers[i + 1])
            if i < len(self.weights) - 1:
                np.tanh(self.layers[i + 1], out=self.layers[i + 1])

    def forward_and_backward(self) -> None:
        """One forward pass with tanh and one backward pass."""
        self.forward()
        self.backward()

    def fisher_product(self) -> None:
        """One jvp and one vjp on a cached forward pass."""
        for i, weight in enumerate(self.weights):
            np.matmul(self.layers[i], weight, out=self.tangents[i + 1])
            if i > 0:
                np.matmul(self.tangents[i], weight, out=self.other[i + 1])
        self.backward()

    def backward(self) -> None:
        """The gradient with respect to each weight and each layer."""
        for i in reversed(range(len(self.weights))):
            np.matmul(self.layers[i].T, self.tangents[i + 1], out=self.gradients[i])
            if i > 0:
                np.matmul(self.tangents[i + 1], self.weights[i].T, out=self.tangents[i])


def ppo_step(width: int, rows: int) -> tuple[Work, Work]:
    """One Adam step of the policy on the clipped surrogate, one of the critic; bare products."""
    policy, critic = cartpole_networks(width)
    algorithm, fit = minirl.PPO(), minirl.CriticFit()
    state, critic_state = algorithm.init(policy), fit.init(critic)
    batch = random_batch(rows)
    products = [BareProducts(rows, model.network.sizes) for model in (policy, critic)]

    def work() -> tuple[Any, Any]:
        return algorithm.step(state, batch, None), fit.step(critic_state, batch)

    def bound() -> None:
        for one in products:
            one.forward_and_backward()

    return work, bound


def fisher_product(width: int, rows: int) -> tuple[Work, Work]:
    """One exact Fisher-vector product on a cached forward pass; its bare products."""
    policy, _ = cartpole_networks(width)
    batch = random_batch(rows)
    distribution, cache = policy.forward(batch.observations)
    vector = random_vector(policy.network.size)
    return (
        lambda: fisher_vector_product(policy, cache, distribution, batch.weight, vector),
        BareProducts(rows, policy.network.sizes).fisher_product,
    )


# PPO as in the first task of peer_run.py
RUN_STEPS = {
    "learning_rate": minirl.LinearSchedule(2.5e-4),
    "epochs": 4,
    "minibatch_size": 256,
    "max_gradient_norm": 0.5,
    "optimizer": minirl.Adam(epsilon=1e-5),
}
RUN = (
    minirl.PPO(normalize_advantages=True, entropy_coefficient=0.01, **RUN_STEPS),
    minirl.Settings(
        num_envs=8,
        rollout_steps=128,
        advantages=minirl.GAE(0.99, 0.95),
        critic_fit=minirl.CriticFit(**RUN_STEPS),
    ),
)


def whole_run(updates: int) -> tuple[Work, Work]:
    """A run of PPO on CartPole, and the least time that its design can take.

    The bound consists of Gymnasium's step with actions drawn beforehand; for each step, the actor's
    forward pass on one row per environment; and for each minibatch, a forward and a backward pass
    of the actor and of the critic. Of these passes only the products and tanh are computed.
    """
    algorithm, settings = RUN
    environments, steps = settings.num_envs, settings.rollout_steps
    minibatches = algorithm.epochs * environments * steps // algorithm.minibatch_size
    models = cartpole_networks(HIDDEN)
    acting = BareProducts(environments, models[0].network.sizes)
    learning = [BareProducts(algorithm.minibatch_size, model.network.sizes) for model in models]
    envs = minirl.make_vector_env("CartPole-v1", environments)
    actions = np.random.default_rng(4).integers(2, size=(steps, environments))

    def work() -> minirl.Result:
        total_steps = updates * steps * environments
        return minirl.train("CartPole-v1", algorithm, total_steps=total_steps, settings=settings)

    def bound() -> None:
        envs.reset(seed=0)
        for _ in range(updates):
            for action in actions:
                envs.step(action)
                acting.forward()
            for network in learning * minibatches:
                network.forward_and_backward()

    return work, bound


ZOO_RATE = minirl.LinearSchedule(1e-3)
ZOO_STEPS = {"epochs": 20, "minibatch_size": 256, "max_gradient_norm": 0.5}
ZOO_FIT = minirl.CriticFit(learning_rate=ZOO_RATE, **ZOO_STEPS)
RL_ZOO = (
    minirl.PPO(
        objective=Clipped(minirl.LinearSchedule(0.2)),
        learning_rate=ZOO_RATE,
        normalize_advantages=True,
        **ZOO_STEPS,
    ),
    minirl.Settings(
        num_envs=8, rollout_steps=32, advantages=minirl.GAE(0.98, 0.8), critic_fit=ZOO_FIT
    ),
)
FASTEST = (
    replace(RL_ZOO[0], objective=Clipped(0.3), learning_rate=minirl.LinearSchedule(5e-3), epochs=5),
    replace(
        RL_ZOO[1],
        num_envs=32,
        advantages=minirl.GAE(0.98, 0.9),
        critic_fit=replace(ZOO_FIT, learning_rate=minirl.LinearSchedule(1e-2), epochs=5),
    ),
)


def time_to_threshold(
    algorithm: minirl.Algorithm, settings: minirl.Settings, total_steps: int, seeds: int
) -> str:
    """Median and range over seeds of CPU seconds and steps to a 100-episode mean of 475."""
    seconds, steps = [], []
    for seed in range(seeds):
        history = minirl.train(
            "CartPole-v1", algorithm, total_steps=total_steps, seed=seed, settings=settings
        ).history
        reached = history.steps_to(475)
        if reached is not None:
            columns = history.columns()
            seconds.append(np.interp(reached, columns["environment_steps"], columns["cpu_seconds"]))
            steps.append(reached)
    count = f"reached in {len(seconds)} of {seeds} seeds"
    if not seconds:
        return count
    return f"{median_seconds(seconds)}, {np.median(steps) / 1000:.0f}k steps, {count}"


def trpo_seconds(seeds: int) -> str:
    """CPU seconds of 100,000 environment steps of TRPO at the common settings."""
    results = (
        minirl.train("CartPole-v1", "trpo", total_steps=100_000, seed=seed) for seed in range(seeds)
    )
    return median_seconds([result.history.rows[-1]["cpu_seconds"] for result in results])


def median_seconds(seconds: Sequence[float]) -> str:
    """Median and range, in words."""
    return f"median {np.median(seconds):.2f} s{interval_text(min(seconds), max(seconds), '.2f')}"


def import_seconds(modules: str) -> float:
    """CPU seconds of a Python process that starts and imports these modules.

    Their bytecode is stored at the first call, as at a user's first import.
    """
    code = f"import time, {modules}; print(time.process_time())"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return float(subprocess.check_output([sys.executable, "-c", code], env=environment))


def compare_seconds(workers: int) -> float:
    """Wall seconds of a comparison of 8 runs of 50,000 steps on this number of workers."""
    began = time.perf_counter()
    minirl.compare("CartPole-v1", ["ppo", "trpo"], total_steps=50_000, seeds=4, workers=workers)
    return time.perf_counter() - began


def ratio_row(name: str, works: tuple[Work, Work], repeats: int, aim: str) -> list[str]:
    """A work and its bound, timed alternately after 20 calls that are not counted."""
    for work in works * 20:
        work()
    time, bound = (1e6 * seconds for seconds in medians(cpu_seconds, works, repeats))
    return [name, f"{time:.0f} us / {bound:.0f} us = **{time / bound:.2f}x**", aim]


def run_row(works: tuple[Work, Work], repeats: int) -> list[str]:
    """A whole run and its bound, timed alternately: the median and the quartiles of the ratio."""
    for work in works:
        work()
    ratios = [cpu_seconds(works[0]) / cpu_seconds(works[1]) for _ in range(repeats)]
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    measured = f"**{middle:.2f}x**{interval_text(low, high, '.2f')} (quartiles)"
    return ["PPO on CartPole-v1, a whole run of 20 updates / its bound", measured, "1.75x"]


def table(seeds: int, repeats: int) -> str:
    """Measure everything."""
    few = max(3, seeds // 4)
    lines = []
    with one_core():
        for rows, aim in ((256, "1.6x"), (64, "2.5x")):
            name = f"PPO minibatch step, {rows} rows, actor and critic / bare products and tanh"
            lines.append(ratio_row(name, ppo_step(HIDDEN, rows), repeats, aim))
        lines.append(run_row(whole_run(updates=20), 4 * few))
        name = "Fisher-vector product, 2048 rows / bare products"
        lines.append(ratio_row(name, fisher_product(HIDDEN, 2048), repeats // 4, "1.8x"))
    zoo = time_to_threshold(*RL_ZOO, 100_000, few)
    fastest = time_to_threshold(*FASTEST, 300_000, seeds)
    dependencies = "numpy, gymnasium, gymnasium.vector, tqdm.auto, threadpoolctl"
    seconds = medians(import_seconds, ["minirl", dependencies], 21)
    whole, part = (1e3 * median for median in seconds)
    imports = f"{whole:.0f} ms / {part:.0f} ms = **{whole - part:+.0f} ms**"
    one, two = medians(compare_seconds, [1, 2], 3)
    lines += [
        ["CartPole-v1 to 475, PPO, RL-Zoo settings", zoo, "3 s"],
        ["CartPole-v1 to 475, PPO, fast settings", fastest, "0.6 s"],
        ["TRPO, 100k CartPole-v1 steps", trpo_seconds(few), "3 s"],
        ["`import minirl` / its dependencies", imports, "+40 ms"],
        [
            "`compare`, 8 runs of 50,000 steps, wall time with 1 worker / with 2",
            f"{one:.1f} s / {two:.1f} s = **{one / two:.2f}x**",
            "2x",
        ],
    ]
    return study.markdown(["what", "measured", "aim"], lines)


def main() -> None:
    """Measure, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20, help="seeds of the fast learning times")
    parser.add_argument("--repeats", type=int, default=2000, help="calls of the timed functions")
    arguments = parser.parse_args()
    print(table(arguments.seeds, arguments.repeats))
    print(f"\nCPU seconds on one core; medians, [smallest, largest]. {machine()}.")


if __name__ == "__main__":
    main()
