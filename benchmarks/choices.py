"""What each silent choice of an implementation is worth: one changed at a time, many seeds.

    python benchmarks/choices.py                # about twenty minutes on one core; goes on where
                                                # it stopped; keeps benchmarks/results/choices.csv
    python benchmarks/choices.py --table        # the table of docs/choices.md, from that file

The score of a run is the mean over its environment steps of the 100-episode mean return: it sees
how fast a run learns as well as where it ends. Finished runs are not told apart by version: delete
the file after a change of the package.
"""

import argparse
import contextlib
import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from learning_curves import average_return  # the script beside this one
from tqdm import tqdm

import minirl
from minirl.advantages import AdvantageEstimator
from minirl.algorithms import trpo
from minirl.batch import Rollout
from minirl.experiments.statistics import compare_scores, interquartile_mean

RESULTS = Path(__file__).parent / "results" / "choices.csv"
STEPS = {"CartPole-v1": 60_000, "Pendulum-v1": 60_000}
COLUMNS = ["environment", "algorithm", "choice", "seed", "score", "final_return", "mean_kl"]


@dataclass(frozen=True)
class TimeLimitIsDeath:
    """Another estimator that takes every end of an episode for a termination."""

    estimator: AdvantageEstimator

    @property
    def discount(self) -> float:
        return self.estimator.discount

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        return self.estimator(
            replace(rollout, terminated=rollout.done, truncated=np.zeros_like(rollout.done))
        )


@contextlib.contextmanager
def without_kl_check() -> Iterator[None]:
    search = trpo.trust_region_search

    def unchecked(*arguments: Any, max_kl: float, **others: Any) -> Any:
        return search(*arguments, max_kl=np.inf, **others)

    with mock.patch.object(trpo, "trust_region_search", unchecked):
        yield


@contextlib.contextmanager
def with_kl_reversed() -> Iterator[None]:
    kl = minirl.Categorical.kl

    def reverse(self: Any, other: Any) -> np.ndarray:
        return kl(other, self)

    search = trpo.trust_region_search

    def reversed_search(*arguments: Any, **others: Any) -> Any:
        with mock.patch.object(minirl.Categorical, "kl", reverse):
            return search(*arguments, **others)

    with mock.patch.object(trpo, "trust_region_search", reversed_search):
        yield


@dataclass(frozen=True)
class Choice:
    """One departure from an environment's preset."""

    environment: str
    algorithm: str
    name: str
    fields: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    during: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext

    def train(self, seed: int) -> minirl.Result:
        algorithm = replace(
            minirl.default_algorithm(self.algorithm, self.environment), **self.fields
        )
        settings = replace(
            minirl.default_settings(self.environment, self.algorithm), **self.settings
        )
        with self.during():
            return minirl.train(
                self.environment,
                algorithm,
                total_steps=STEPS[self.environment],
                seed=seed,
                settings=settings,
            )


def choices() -> list[Choice]:
    gae = minirl.GAE(discount=0.99, lam=0.95)
    pendulum_gae = minirl.GAE(discount=0.9, lam=0.95)
    fit = minirl.CriticFit()
    found = []

    def add(environment: str, algorithm: str, name: str, **others: Any) -> None:
        found.append(Choice(environment, algorithm, name, **others))

    cartpole, pendulum = "CartPole-v1", "Pendulum-v1"
    add(cartpole, "ppo", "default")
    add(cartpole, "ppo", "advantages not normalised", fields={"normalize_advantages": False})
    add(cartpole, "ppo", "learning rate not annealed", fields={"learning_rate": 1e-3})
    add(cartpole, "ppo", "entropy bonus 0.01", fields={"entropy_coefficient": 0.01})
    add(cartpole, "ppo", "gradient norm at most 0.5", fields={"max_gradient_norm": 0.5})
    add(cartpole, "ppo", "stops at a KL of 0.02", fields={"target_kl": 0.02})
    add(cartpole, "ppo", "minibatches of 64", fields={"minibatch_size": 64})
    add(cartpole, "ppo", "4 epochs", fields={"epochs": 4})
    add(cartpole, "ppo", "no clipping", fields={"objective": minirl.Unclipped()})
    clipped = {"critic_fit": replace(fit, value_clip=0.2)}
    add(cartpole, "ppo", "value clipping 0.2", settings=clipped)
    add(cartpole, "ppo", "lambda 1", settings={"advantages": replace(gae, lam=1.0)})
    add(cartpole, "ppo", "lambda 0", settings={"advantages": replace(gae, lam=0.0)})
    add(cartpole, "ppo", "time limit as death", settings={"advantages": TimeLimitIsDeath(gae)})
    add(cartpole, "ppo", "observations normalised", settings={"normalize_observations": True})
    add(cartpole, "ppo", "states discounted", settings={"discount_states": True})
    add(cartpole, "ppo", "float64", settings={"dtype": "float64"})

    add(cartpole, "trpo", "default")
    add(cartpole, "trpo", "advantages not normalised", fields={"normalize_advantages": False})
    add(cartpole, "trpo", "damping 0.001", fields={"damping": 1e-3})
    add(cartpole, "trpo", "damping 1", fields={"damping": 1.0})
    add(cartpole, "trpo", "3 CG iterations", fields={"cg_iterations": 3})
    add(cartpole, "trpo", "max_kl 0.003", fields={"max_kl": 0.003})
    add(cartpole, "trpo", "max_kl 0.03", fields={"max_kl": 0.03})
    add(cartpole, "trpo", "line search without KL check", during=without_kl_check)
    add(cartpole, "trpo", "KL(new || old) in the line search", during=with_kl_reversed)
    add(cartpole, "trpo", "time limit as death", settings={"advantages": TimeLimitIsDeath(gae)})

    add(cartpole, "policy-gradient", "default")
    unnormalised = {"normalize_advantages": False}
    add(cartpole, "policy-gradient", "advantages not normalised", fields=unnormalised)
    for baseline in (None, "batch", "critic"):
        estimator = minirl.RewardToGo(discount=0.99, baseline=baseline)
        label = f"reward-to-go, baseline {baseline}"
        add(cartpole, "policy-gradient", label, settings={"advantages": estimator})
    add(cartpole, "policy-gradient", "states discounted", settings={"discount_states": True})

    add(pendulum, "ppo", "default")
    add(pendulum, "ppo", "rewards not scaled", settings={"reward_transform": None})
    add(pendulum, "ppo", "observations normalised", settings={"normalize_observations": True})
    death = {"advantages": TimeLimitIsDeath(pendulum_gae)}
    add(pendulum, "ppo", "time limit as death", settings=death)
    far = {"advantages": gae, "reward_transform": minirl.ReturnScaling(discount=0.99)}
    add(pendulum, "ppo", "discount 0.99", settings=far)
    return found


def score(history: minirl.History) -> tuple[float, float, float]:
    """The mean return over the steps of a run, its last value, and the mean KL of an update."""
    columns = history.columns()
    return average_return(columns), history.final_return(), float(columns["kl"].mean())


def run(seeds: int) -> None:
    done = {(row["environment"], row["algorithm"], row["choice"], row["seed"]) for row in rows()}
    work = [
        (choice, seed)
        for seed in range(seeds)
        for choice in choices()
        if (choice.environment, choice.algorithm, choice.name, str(seed)) not in done
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    fresh = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if fresh:
            writer.writerow(COLUMNS)
        for choice, seed in tqdm(work, unit="run"):
            numbers = score(choice.train(seed).history)
            where = [choice.environment, choice.algorithm, choice.name, seed]
            writer.writerow([*where, *(f"{number:.6g}" for number in numbers)])
            file.flush()


def rows() -> list[dict[str, str]]:
    if not RESULTS.exists():
        return []
    with RESULTS.open(newline="") as file:
        return list(csv.DictReader(file))


def table() -> str:
    scores: dict[tuple[str, str, str], list[float]] = {}
    for row in rows():
        key = (row["environment"], row["algorithm"], row["choice"])
        scores.setdefault(key, []).append(float(row["score"]))
    lines = [
        "| environment | algorithm | choice | score | difference to the default | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for choice in choices():
        key = (choice.environment, choice.algorithm, choice.name)
        found = np.array(scores[key])
        label = choice.name.replace("|", r"\|")
        start = f"| {key[0]} | {key[1]} | {label} | {interquartile_mean(found):.0f} |"
        if choice.name == "default":
            lines.append(f"{start} | |")
            continue
        default = scores[(key[0], key[1], "default")]
        pair = compare_scores(found, default, np.random.default_rng(0))
        low, high = pair.difference_interval
        verdict = "cannot tell"
        if pair.distinguishable:
            verdict = "better" if pair.iqm_difference > 0 else "worse"
        difference = f"{pair.iqm_difference:+.0f} [{low:+.0f}, {high:+.0f}]"
        lines.append(f"{start} {difference} | {verdict} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--table", action="store_true", help="print the table, train nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        run(arguments.seeds)
    print(table())


if __name__ == "__main__":
    main()
