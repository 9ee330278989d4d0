"""Speed of the alignment chain on one core: seconds, and how much of PPO is Adam alone.

    python -m benchmarks.speed.alignment

Medians (smallest to largest) of repeated runs in this process, one BLAS thread.
"""

import time
from collections.abc import Callable
from statistics import median

import numpy as np

from minirl import Adam, rlhf
from minirl.exact import sequences
from minirl.support.machine import one_core


def seconds(work: Callable[[], object], repeats: int) -> list[float]:
    """CPU seconds of each of `repeats` runs, after one that is not counted."""
    work()
    measured = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        measured.append(time.process_time() - began)
    return measured


def adam_alone(size: int, steps: int) -> None:
    """As many Adam steps on a table of this size as the PPO run takes, and nothing else."""
    theta, gradient = np.zeros(size), np.random.default_rng(0).standard_normal(size)
    optimizer = Adam()
    state = optimizer.init(theta)
    for _ in range(steps):
        state, theta = optimizer.step(state, theta, gradient, 0.01)


def main() -> None:
    """Print the table."""
    task, rng = rlhf.arithmetic(), np.random.default_rng(0)
    reference = rlhf.fine_tune(task, rlhf.sample_demonstrations(task, 2000, rng)).policy
    gold = task.utilities
    soft = rlhf.Annotator().soft(rlhf.sample_pairs(task, reference, 3000, rng), gold)
    objective = rlhf.Objective(task, reference, gold, 0.3)
    log_policy = rlhf.log_table(task, objective.optimal_policy)
    log_reference = objective.log_reference

    def learn(name: str, sentences: int) -> Callable[[], object]:
        return lambda: rlhf.align(task, reference, gold, name, sentences=sentences)

    rows: list[tuple[str, Callable[[], object], int]] = [
        ("PPO, 51,200 sentences", learn("ppo", 51_200), 5),
        (
            "its 1,600 Adam steps alone",
            lambda: adam_alone(reference.parameters.size, 1_600),
            5,
        ),
        ("TRPO, 61,440 sentences", learn("trpo", 61_440), 5),
        ("policy gradient, 51,200 sentences", learn("policy-gradient", 51_200), 5),
        ("DPO, 600 steps of 512 pairs", lambda: rlhf.DPO().fit(task, reference, soft, rng), 5),
        (
            "exact evaluation",
            lambda: sequences.objective(log_policy, log_reference, gold, 0.3),
            50,
        ),
        (
            "exact gradient",
            lambda: sequences.policy_gradient(log_policy, log_reference, gold, 0.3),
            50,
        ),
        (
            "soft optimum",
            lambda: sequences.soft_optimal_policy(log_reference, gold, 0.3),
            50,
        ),
    ]
    print("| work | CPU time, median (range) |\n|---|---|")
    for name, work, repeats in rows:
        times = seconds(work, repeats)
        scale, unit = (1, "s") if times[0] > 0.1 else (1e3, "ms")
        low, middle, high = (f(times) * scale for f in (min, median, max))
        print(f"| {name} | {middle:.2f} {unit} ({low:.2f} to {high:.2f}) |")


if __name__ == "__main__":
    with one_core():
        main()
