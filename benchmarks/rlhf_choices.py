"""What the choices of docs/rlhf.md are worth on the token task: a table for that page.

    python benchmarks/rlhf_choices.py        (about two minutes)

Gold reward, beta = 0.3, the presets with one thing changed; three corpora, two seeds each. A number
is the fraction of the optimum.
"""

from dataclasses import replace

import numpy as np

from minirl import rlhf
from minirl.advantages import GAE, RewardToGo
from minirl.algorithms.ppo import Unclipped
from minirl.experiments.alignment import SENTENCES
from minirl.rlhf.align import ENVIRONMENT
from minirl.settings import default_algorithm, default_settings

CORPORA, SEEDS = (200, 201, 202), (0, 1)
# What is changed -> the preset, fields of its algorithm, and fields of its settings.
VARIANTS: dict[str, tuple[str, dict, dict]] = {
    "ppo": ("ppo", {}, {}),
    "ppo, constant learning rate 0.05": ("ppo", {"learning_rate": 0.05}, {}),
    "ppo, advantages not whitened": ("ppo", {"normalize_advantages": False}, {}),
    "ppo, lambda 1": ("ppo", {}, {"advantages": GAE(discount=1.0, lam=1.0)}),
    "ppo, lambda 0": ("ppo", {}, {"advantages": GAE(discount=1.0, lam=0.0)}),
    "ppo, not clipped": ("ppo", {"objective": Unclipped()}, {}),
    "trpo": ("trpo", {}, {}),
    "trpo, damping 0.1": ("trpo", {"damping": 0.1}, {}),
    "trpo, max_kl 0.05": ("trpo", {"max_kl": 0.05}, {}),
    "policy-gradient": ("policy-gradient", {}, {}),
    "policy-gradient, no baseline": (
        "policy-gradient",
        {},
        {"advantages": RewardToGo(discount=1.0)},
    ),
}


def main() -> None:
    """Print the table."""
    task = rlhf.arithmetic()
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for corpus in CORPORA:
        demonstrations = rlhf.sample_demonstrations(task, 2000, np.random.default_rng(corpus))
        reference = rlhf.fine_tune(task, demonstrations).policy
        objective = rlhf.Objective(task, reference, task.utilities, 0.3)
        for name, (preset, own, common) in VARIANTS.items():
            algorithm = default_algorithm(preset, ENVIRONMENT)
            settings = replace(default_settings(ENVIRONMENT, algorithm), **common)
            for seed in SEEDS:
                result = rlhf.align(
                    task,
                    reference,
                    task.utilities,
                    replace(algorithm, **own),
                    sentences=SENTENCES[preset],
                    beta=objective.beta,
                    seed=seed,
                    settings=settings,
                )
                found[name].append(objective.fraction_of_optimum(result.policy))
    print("| variant | smallest | median | largest |\n|---|---|---|---|")
    for name, fractions in found.items():
        low, middle, high = np.quantile(fractions, [0.0, 0.5, 1.0])
        print(f"| {name} | {low:.3f} | {middle:.3f} | {high:.3f} |")


if __name__ == "__main__":
    main()
