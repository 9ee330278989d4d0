"""How far a policy moves in an update, with and without the update of its observation statistics.

    pip install -e '.[mujoco]'
    python -m benchmarks.control.observation_statistics    (a minute on one core)

With normalised observations, the statistics are updated after the policy, so that the policy
changes a second time. The script prints the mean KL of updates on InvertedPendulum: from the policy
that acted to the one with the new parameters and the old statistics, which is the KL that `train`
reports, and to the one with both new. Seeds 0 to 4, five updates each; nothing is stored.
"""

from unittest import mock

import numpy as np

import minirl
from minirl import training

ENV = "InvertedPendulum-v5"
SEEDS, UPDATES, ROWS = 5, 5, 2048


def kls_of_updates(algorithm: str, seed: int) -> np.ndarray:
    """Shape (updates, 2): the KL with the old statistics, and the KL with the new ones."""
    kls = []
    stage = training.optimisation_stage

    def watched(batch, learner, *others):
        updated, metrics = stage(batch, learner, *others)
        old, new = learner.policy, updated.policy
        statistics = old.observation_statistics
        both = (new.with_observation_statistics(statistics), new)
        before = old(batch.observations)
        kls.append([float(batch.mean_weight @ before.kl(p(batch.observations))) for p in both])
        assert np.isclose(kls[-1][0], metrics["kl"])
        return updated, metrics

    with mock.patch.object(training, "optimisation_stage", watched):
        minirl.train(ENV, algorithm, total_steps=ROWS * (UPDATES - 1) + 1, seed=seed)
    return np.array(kls)


def main() -> None:
    for algorithm in ("trpo", "ppo"):
        kls = np.array([kls_of_updates(algorithm, seed)[:UPDATES] for seed in range(SEEDS)])
        for name, part in (("first", kls[:, :1]), ("later", kls[:, 1:])):
            reported, moved = part.reshape(-1, 2).T
            print(
                f"{algorithm}, {name} updates: reported KL {np.median(reported):.4f}, with the new "
                f"statistics {np.median(moved):.4f} ({moved.min():.4f} to {moved.max():.4f})"
            )


if __name__ == "__main__":
    main()
