"""Speed of the alignment chain on one core: CPU seconds, also of Adam on a whole table.

    python -m benchmarks.speed.alignment

Medians (smallest to largest) of repeated runs in this process, one BLAS thread.
"""

from statistics import median

import numpy as np

from benchmarks import study
from benchmarks.rlhf.case import Case
from benchmarks.speed.timing import Work, repeated
from minirl import Adam, rlhf
from minirl.envs.verifiable import UNEQUAL, first_answer_correct, verifiable
from minirl.exact import sequences
from minirl.exact.groups import Averaging, expected_update
from minirl.support.machine import one_core


def adam_alone(size: int, steps: int) -> None:
    """Adam steps on a table of this size, and nothing else."""
    theta, gradient = np.zeros(size), np.random.default_rng(0).standard_normal(size)
    optimizer = Adam()
    state = optimizer.init(theta)
    for _ in range(steps):
        state, theta = optimizer.step(state, theta, gradient, 0.01)


def main() -> None:
    """Measure, then print the table."""
    rng = np.random.default_rng(0)
    case = Case(rng, beta=0.3)
    soft = case.sample_labelled(3000, rng).preferences["soft"]
    log_policy = rlhf.log_table(case.task, case.objective.optimal_policy)
    exact = case.objective.log_reference, case.gold, 0.3
    network = rlhf.network_policy(case.task, rng)
    verified = verifiable(first_answer_correct, success_rates=UNEQUAL)
    size = case.reference.parameters.size

    def align(name: str, sentences: int) -> Work:
        return lambda: case.align(name, sentences=sentences)

    def update(averaging: Averaging) -> np.ndarray:
        return expected_update(
            case.objective.log_reference, verified.utilities, 16, averaging=averaging
        )

    works: list[tuple[str, Work, int]] = [
        ("PPO, 51,200 sentences", align("ppo", 51_200), 5),
        ("1,600 Adam steps with a gradient for every logit", lambda: adam_alone(size, 1_600), 5),
        ("TRPO, 61,440 sentences", align("trpo", 61_440), 5),
        ("policy gradient, 51,200 sentences", align("policy-gradient", 51_200), 5),
        ("DPO, 600 steps of 512 pairs", lambda: case.fit(rlhf.DPO(), soft, rng), 5),
        ("exact evaluation", lambda: sequences.objective(log_policy, *exact), 50),
        ("exact gradient", lambda: sequences.policy_gradient(log_policy, *exact), 50),
        ("soft optimum", lambda: sequences.soft_optimal_policy(*exact), 50),
        ("table of a network of 1,641 parameters", lambda: rlhf.log_table(case.task, network), 5),
        ("expected update, sums over tokens", lambda: update("sum"), 5),
        ("expected update, means over groups", lambda: update("group"), 5),
    ]
    lines = []
    for name, work, repeats in works:
        times = repeated(work, repeats)
        scale, unit = (1, "s") if times[0] > 0.1 else (1e3, "ms")
        low, middle, high = (statistic(times) * scale for statistic in (min, median, max))
        lines.append([name, f"{middle:.2f} {unit} ({low:.2f} to {high:.2f})"])
    print(study.markdown(["work", "CPU time, median (range)"], lines))


if __name__ == "__main__":
    with one_core():
        main()
