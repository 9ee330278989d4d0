"""Compare short runs of all algorithms bit for bit, before and after a change of the code.

    python -m benchmarks.same_results --save before.npz       (before the change; 10 seconds)
    python -m benchmarks.same_results --compare before.npz    (after it; exit status 1 if different)

The results of a run are all columns of its history except CPU seconds, and its final parameters.
The last bits depend on the machine and on its BLAS. A file is therefore only meaningful on the
machine that wrote it, and none is stored in the repository.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np

import minirl
from minirl import rlhf

STEPS = 6_000
SENTENCES = 2_048

Run = Callable[[], dict[str, np.ndarray]]


def arrays_of(result: minirl.Result) -> dict[str, np.ndarray]:
    """The results of a run, by name."""
    columns = {
        name: column for name, column in result.history.columns().items() if name != "cpu_seconds"
    }
    return {
        **columns,
        "episode_returns": result.history.episode_returns,
        "policy": result.policy.parameters,
        "critic": result.critic.parameters,
    }


def control(env: str, name: str, **changes: object) -> Run:
    """A run with the preset of an environment and changes of its settings."""

    def run() -> dict[str, np.ndarray]:
        settings = replace(minirl.preset(env, name).settings, **changes)
        return arrays_of(minirl.train(env, name, total_steps=STEPS, seed=3, settings=settings))

    return run


def tokens(name: str) -> Run:
    """RLHF on the arithmetic task, from a uniform reference."""

    def run() -> dict[str, np.ndarray]:
        task = rlhf.arithmetic()
        reference = uniform(task)
        return arrays_of(
            rlhf.align(task, reference, task.utilities, name, sentences=SENTENCES, seed=3)
        )

    return run


def preferences(loss: str) -> Run:
    """DPO or IPO on 500 soft labels."""

    def run() -> dict[str, np.ndarray]:
        task, rng = rlhf.arithmetic(), np.random.default_rng(3)
        reference = uniform(task)
        pairs = rlhf.sample_pairs(task, reference, 500, rng)
        labelled = rlhf.Annotator().soft(pairs, task.utilities)
        result = rlhf.DPO(loss=loss, steps=40).fit(task, reference, labelled, rng)
        rows = np.array([[row["loss"], row["agreement"]] for row in result.rows])
        return {"rows": rows, "policy": result.policy.parameters}

    return run


def uniform(task: rlhf.TokenTask) -> minirl.Policy:
    """The reference of these runs, under which all tokens are equally probable."""
    shape = len(task.prompts), task.num_contexts, len(task.vocabulary)
    return rlhf.full_prefix_policy(task, np.full(shape, -np.log(shape[-1])))


ALGORITHMS = ("policy-gradient", "natural-gradient", "trpo", "ppo")
RUNS: dict[str, Run] = {
    **{
        f"{env} {name}": control(env, name)
        for env in ("CartPole-v1", "Pendulum-v1", "FrozenLake-v1", "minirl/LQR-v0")
        for name in ALGORITHMS
    },
    "CartPole-v1 ppo, normalised observations": control(
        "CartPole-v1", "ppo", normalize_observations=True
    ),
    "CartPole-v1 trpo, discounted states": control("CartPole-v1", "trpo", discount_states=True),
    "MountainCarContinuous-v0 ppo": control("MountainCarContinuous-v0", "ppo"),
    **{f"tokens {name}": tokens(name) for name in (*ALGORITHMS, "rloo", "grpo")},
    **{f"tokens {loss}": preferences(loss) for loss in ("dpo", "ipo")},
}


def main() -> int:
    """Save the results of all runs, or compare them with saved ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--save", metavar="FILE", help="where to write the results")
    action.add_argument("--compare", metavar="FILE", help="results to compare with")
    arguments = parser.parse_args()
    results = {
        f"{name}: {key}": array for name, run in RUNS.items() for key, array in run().items()
    }
    if arguments.save:
        np.savez(arguments.save, **results)
        print(f"{len(RUNS)} runs, {len(results)} arrays")
        return 0
    with np.load(arguments.compare) as before:
        names = dict.fromkeys([*before.files, *results])
        different = [
            name
            for name in names
            if name not in results
            or name not in before.files
            or results[name].tobytes() != before[name].tobytes()
        ]
    for name in different:
        print("different:", name)
    print(f"{len(RUNS)} runs, {len(names)} arrays, {len(different)} different")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
