"""Speed of minirl as ratios to named bounds, and time to learn CartPole, on one core.

    python -m benchmarks.speed.bounds    (`make bench`: docs/results/speed-table.md)

All times are CPU time; every
ratio compares two things timed alternately in this one run, since a machine's speed changes from
minute to minute.
"""

import argparse
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

import minirl
from minirl.algorithms.natural_gradient import fisher_vector_product
from minirl.algorithms.ppo import Clipped
from minirl.batch import Batch
from minirl.settings import PRESETS
from minirl.support.machine import one_core

HIDDEN = 64  # units of each of two layers

Work = Callable[[], object]


def medians(measure: Callable[[Any], float], things: Sequence[Any], repeats: int) -> list[float]:
    """Median of what is measured of each thing, in turn."""
    turns = [[measure(thing) for thing in things] for _ in range(repeats)]
    return np.median(turns, axis=0).tolist()


def cpu_seconds(work: Work) -> float:
    """CPU seconds of one call."""
    began = time.process_time()
    work()
    return time.process_time() - began


def cartpole_networks(width: int) -> tuple[minirl.Policy, minirl.Critic]:
    """A fresh policy and critic with two hidden layers, the same at every call."""
    rng = np.random.default_rng(0)
    envs = minirl.make_vector_env("CartPole-v1", 1)
    envs.close()
    observations, actions = envs.single_observation_space, envs.single_action_space
    hidden = (width, width)
    return (
        minirl.make_policy(observations, actions, rng, hidden_sizes=hidden),
        minirl.make_critic(observations, rng, hidden_sizes=hidden),
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


def bare_gemms(rows: int, sizes: tuple[int, ...]) -> Work:
    """The matrix products and tanh of one forward and backward pass, into ready-made arrays."""
    rng = np.random.default_rng(2)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype("float32")

    weights = [normal(n_in, n_out) for n_in, n_out in pairwise(sizes)]
    layers = [normal(rows, width) for width in sizes]
    back = [normal(rows, width) for width in sizes]
    gradients = [np.empty_like(weight) for weight in weights]

    def run() -> None:
        for i, weight in enumerate(weights):
            np.matmul(layers[i], weight, out=layers[i + 1])
            if i < len(weights) - 1:
                np.tanh(layers[i + 1], out=layers[i + 1])
        for i in reversed(range(len(weights))):
            np.matmul(layers[i].T, back[i + 1], out=gradients[i])
            if i > 0:
                np.matmul(back[i + 1], weights[i].T, out=back[i])

    return run


def bare_fisher_gemms(rows: int, sizes: tuple[int, ...]) -> Work:
    """The matrix products of one jvp and one vjp on a cached forward pass."""
    rng = np.random.default_rng(2)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype("float32")

    weights = [normal(n_in, n_out) for n_in, n_out in pairwise(sizes)]
    layers = [normal(rows, width) for width in sizes]
    tangents = [normal(rows, width) for width in sizes]
    other = [normal(rows, width) for width in sizes]
    gradients = [np.empty_like(weight) for weight in weights]

    def run() -> None:
        for i, weight in enumerate(weights):
            np.matmul(layers[i], weight, out=tangents[i + 1])
            if i > 0:
                np.matmul(tangents[i], weight, out=other[i + 1])
        for i in reversed(range(len(weights))):
            np.matmul(layers[i].T, tangents[i + 1], out=gradients[i])
            if i > 0:
                np.matmul(tangents[i + 1], weights[i].T, out=tangents[i])

    return run


def ppo_step(width: int, rows: int) -> tuple[Work, Work]:
    """One Adam step of the policy on the clipped surrogate, one of the critic; bare products."""
    policy, critic = cartpole_networks(width)
    algorithm, fit = minirl.PPO(), minirl.CriticFit()
    state, critic_state = algorithm.init(policy), fit.init(critic)
    batch = random_batch(rows)
    policy_products = bare_gemms(rows, policy.network.sizes)
    critic_products = bare_gemms(rows, critic.network.sizes)

    def ours() -> tuple[Any, Any]:
        return (
            algorithm.step(state, batch, batch.advantages, None, 0.0),
            fit.step(critic_state, batch, 1e-3),
        )

    def bound() -> None:
        policy_products()
        critic_products()

    return ours, bound


def fisher_product(width: int, rows: int) -> tuple[Work, Work]:
    """One exact Fisher-vector product on a cached forward pass; its bare products."""
    policy, _ = cartpole_networks(width)
    batch = random_batch(rows)
    distribution, cache = policy.forward(batch.observations)
    vector = random_vector(policy.network.size)
    return (
        lambda: fisher_vector_product(policy, cache, distribution, batch.weight, vector),
        bare_fisher_gemms(rows, policy.network.sizes),
    )


RL_ZOO = (
    minirl.PPO(
        objective=Clipped(minirl.LinearSchedule(0.2)),
        learning_rate=minirl.LinearSchedule(1e-3),
        epochs=20,
        minibatch_size=256,
        normalize_advantages=True,
        max_gradient_norm=0.5,
    ),
    minirl.Settings(
        num_envs=8,
        rollout_steps=32,
        advantages=minirl.GAE(0.98, 0.8),
        critic_fit=minirl.CriticFit(
            learning_rate=minirl.LinearSchedule(1e-3),
            epochs=20,
            minibatch_size=256,
            max_gradient_norm=0.5,
        ),
    ),
)
FASTEST = (
    minirl.PPO(
        objective=Clipped(0.3),
        learning_rate=minirl.LinearSchedule(5e-3),
        epochs=5,
        minibatch_size=256,
        normalize_advantages=True,
        max_gradient_norm=0.5,
    ),
    minirl.Settings(
        num_envs=32,
        rollout_steps=32,
        advantages=minirl.GAE(0.98, 0.9),
        critic_fit=minirl.CriticFit(
            learning_rate=minirl.LinearSchedule(1e-2),
            epochs=5,
            minibatch_size=256,
            max_gradient_norm=0.5,
        ),
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
        if reached is None:
            continue
        columns = history.columns()
        seconds.append(np.interp(reached, columns["environment_steps"], columns["cpu_seconds"]))
        steps.append(reached)
    if not seconds:
        return f"reached in 0 of {seeds} seeds"
    return (
        f"median {np.median(seconds):.2f} s [{min(seconds):.2f}, {max(seconds):.2f}], "
        f"{np.median(steps) / 1000:.0f}k steps, reached in {len(seconds)} of {seeds} seeds"
    )


def trpo_seconds(seeds: int) -> str:
    """CPU seconds of 100,000 environment steps of TRPO at the common settings."""
    preset = PRESETS["CartPole-v1"]
    seconds = [
        minirl.train(
            "CartPole-v1",
            preset.algorithms["trpo"],
            total_steps=100_000,
            seed=seed,
            settings=preset.settings,
        ).history.rows[-1]["cpu_seconds"]
        for seed in range(seeds)
    ]
    return f"median {np.median(seconds):.2f} s [{min(seconds):.2f}, {max(seconds):.2f}]"


def import_seconds(modules: str) -> float:
    """CPU seconds of a Python that starts and imports them."""
    code = f"import time, {modules}; print(time.process_time())"
    return float(subprocess.check_output([sys.executable, "-c", code]))


def ratio_row(name: str, works: tuple[Work, Work], repeats: int, aim: str) -> str:
    """One line of the table."""
    for work in works * 20:
        work()  # not counted
    ours, bound = medians(cpu_seconds, works, repeats)
    return (
        f"| {name} | {ours * 1e6:.0f} us / {bound * 1e6:.0f} us = **{ours / bound:.2f}x** | {aim} |"
    )


def main() -> None:
    """Measure and print everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20, help="of the learning times")
    parser.add_argument("--repeats", type=int, default=2000, help="of the small timings")
    arguments = parser.parse_args()
    few = max(3, arguments.seeds // 4)
    repeats = arguments.repeats
    with one_core():
        print("| what | measured | aim |\n|---|---|---|")
        for rows, aim in ((256, "2.0x"), (64, "2.7x")):
            name = f"PPO minibatch step, {rows} rows, actor and critic / bare products and tanh"
            print(ratio_row(name, ppo_step(HIDDEN, rows), repeats, aim), flush=True)
        name = "Fisher-vector product, 2048 rows / bare products"
        print(ratio_row(name, fisher_product(HIDDEN, 2048), repeats // 4, "1.8x"), flush=True)
    zoo = time_to_threshold(*RL_ZOO, 100_000, few)
    print(f"| CartPole-v1 to 475, PPO, RL-Zoo settings | {zoo} | 3 s |", flush=True)
    fastest = time_to_threshold(*FASTEST, 300_000, arguments.seeds)
    print(f"| CartPole-v1 to 475, PPO, fast settings | {fastest} | 0.6 s |", flush=True)
    print(f"| TRPO, 100k CartPole-v1 steps | {trpo_seconds(few)} | 3 s |", flush=True)
    dependencies = "numpy, gymnasium, gymnasium.vector, tqdm.auto, threadpoolctl"
    ours, others = medians(import_seconds, ["minirl", dependencies], 21)
    print(
        f"| `import minirl` / its dependencies | {ours * 1e3:.0f} ms / {others * 1e3:.0f} ms"
        f" = **{(ours - others) * 1e3:+.0f} ms** | +50 ms |"
    )
    print(
        f"\nCPU seconds on one core; medians, [smallest, largest]. {platform.machine()}, Python "
        f"{platform.python_version()}, NumPy {np.__version__}."
    )


if __name__ == "__main__":
    main()
