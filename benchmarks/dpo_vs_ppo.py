"""DPO and PPO with the same sentences, the same answers of the annotator, the same CPU time.

    python benchmarks/dpo_vs_ppo.py --out benchmarks/results/dpo_vs_ppo.csv   (5 CPU minutes)

One process, one core. Each seed has its own demonstrations, reference, pairs and judgements; beta
is 0.3, and every policy is judged by its exact J under the gold reward. One row a run:

method         what learned, and from what
pairs          preference pairs, 0 for none
sentences      sampled in all, for the pairs and while learning
answers        the annotator's: one a pair, or one a sentence that the gold reward scored
steps          gradient steps of DPO, 0 for others
learning_rate  of DPO, annealed to 0; 0 for others
cpu_seconds    of the process: pairs, reward model and learning, without judging the result
fraction       (J - J_ref) / (J* - J_ref); then gold reward and KL of the policy, per sentence
repeat         0 with everything of `seed` its own; 1, 2, ... learn again, with another seed for
               minibatches and rollouts, from the reference, pairs and judgements of `seed`
"""

import argparse
import csv
import io
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from minirl import rlhf
from minirl.machine import one_core
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.dpo import dpo_loss, path_log_probs
from minirl.serialization import write_text
from minirl.settings import default_algorithm, default_settings

BETA = 0.3
SEEDS = range(200, 208)  # none of them chose a setting
REPEATS = range(1, 6)
PPO_SENTENCES = 2_048, 4_096, 8_192, 16_384, 51_200
PAIRS = 300, 1_000, 3_000, 10_000, 30_000
STEPS = 25, 50, 100, 200
RATES = 0.03, 0.1, 0.3
RATE_STEPS = 75, 150, 600
HELD_OUT = 10  # one pair in ten decides when to stop
COLUMNS = ["method", "seed", "repeat", "pairs", "sentences", "answers", "steps", "learning_rate"]
COLUMNS += ["cpu_seconds", "fraction", "gold", "kl"]


class Learned(NamedTuple):
    """What a run leaves, and what it used."""

    policy: Policy
    pairs: int = 0
    sentences: int = 0
    answers: int = 0
    steps: int = 0
    learning_rate: float = 0.0


class Setup:
    """The reference of a seed, and every method that starts from it.

    Parameters
    ----------
    seed : int
        Of demonstrations, pairs and judgements.
    repeat : int
        Of minibatches and rollouts.
    """

    def __init__(self, seed: int, repeat: int = 0) -> None:
        self.seed, self.repeat, self.task = seed, repeat, rlhf.arithmetic()
        rng = np.random.default_rng([seed, 0])
        demonstrations = rlhf.sample_demonstrations(self.task, 2_000, rng)
        self.reference = rlhf.fine_tune(self.task, demonstrations).policy
        self.gold = self.task.utilities
        self.objective = rlhf.Objective(self.task, self.reference, self.gold, BETA)

    def labelled(self, pairs: int, kind: str) -> tuple[rlhf.Preferences, int]:
        """That many labelled pairs, and the sentences sampled for them."""
        rng = np.random.default_rng([self.seed, pairs])
        drawn = rlhf.sample_pairs(self.reference, self.task, pairs, rng)
        sentences = 2 * (pairs + drawn.identical)
        if kind == "soft":
            return rlhf.Annotator().soft(drawn, self.gold), sentences
        return rlhf.Annotator().hard(drawn, self.gold, rng), sentences

    def dpo(self, pairs: int, kind: str, steps: int = 600, rate: float = 0.1) -> Learned:
        """DPO for a fixed number of steps."""
        preferences, sentences = self.labelled(pairs, kind)
        method = rlhf.DPO(beta=BETA, steps=steps, learning_rate=LinearSchedule(rate))
        rng = np.random.default_rng([self.seed, self.repeat, 1])
        policy = method.fit(self.reference, self.task, preferences, rng).policy
        return Learned(policy, pairs, sentences, pairs, steps, rate)

    def dpo_stopped(self, pairs: int) -> Learned:
        """DPO on nine tenths of hard labels; of all its policies, the best for the other tenth."""
        preferences, sentences = self.labelled(pairs, "hard")
        held_out = preferences.rows(slice(0, pairs // HELD_OUT))
        first = self.task.paths(held_out.prompts, held_out.first)
        second = self.task.paths(held_out.prompts, held_out.second)

        def log_ratio(policy: Policy) -> np.ndarray:
            return path_log_probs(policy, first)[0] - path_log_probs(policy, second)[0]

        of_reference, calls = log_ratio(self.reference), 0
        best = np.inf, self.reference

        def keep_best(policy: Policy) -> dict[str, float]:
            nonlocal best, calls
            if calls % 10 == 0:
                margins = BETA * (log_ratio(policy) - of_reference)
                loss, _ = dpo_loss(margins, held_out.labels)
                best = min(best, (loss, policy), key=itemgetter(0))
            calls += 1
            return {}

        learned_from = preferences.rows(slice(pairs // HELD_OUT, None))
        rng = np.random.default_rng([self.seed, self.repeat, 1])
        last = rlhf.DPO(beta=BETA).fit(
            self.reference, self.task, learned_from, rng, measure=keep_best
        )
        calls = 0
        keep_best(last.policy)
        return Learned(best[1], pairs, sentences, pairs, 600, 0.1)

    def ppo(self, sentences: int, pairs: int = 0) -> Learned:
        """PPO on the gold reward, or on a reward model of hard labels of some pairs.

        Rollouts of 512 sentences; smaller ones where the budget would leave fewer than 16 updates.
        """
        rewards, sampled = self.gold, 0
        if pairs:
            preferences, sampled = self.labelled(pairs, "hard")
            rewards = rlhf.fit_reward_model(rlhf.bag_of_words(self.task), preferences).rewards()
        size = min(512, sentences // 16)
        policy = rlhf.align(
            self.task,
            self.reference,
            rewards,
            replace(default_algorithm("ppo", ENVIRONMENT), minibatch_size=size // 4),
            sentences=sentences,
            beta=BETA,
            seed=self.seed + 1000 * self.repeat,
            settings=replace(default_settings(ENVIRONMENT, "ppo"), num_envs=size),
        ).policy
        return Learned(policy, pairs, sampled + sentences, pairs or sentences)

    def policy_gradient(self, sentences: int) -> Learned:
        """The policy gradient on the gold reward, with its defaults."""
        policy = rlhf.align(
            self.task,
            self.reference,
            self.gold,
            "policy-gradient",
            sentences=sentences,
            beta=BETA,
            seed=self.seed + 1000 * self.repeat,
        ).policy
        return Learned(policy, 0, sentences, sentences)

    def model_optimum(self, pairs: int) -> Learned:
        """The exact optimum of a reward model: what PPO on it can reach at best."""
        preferences, sentences = self.labelled(pairs, "hard")
        rewards = rlhf.fit_reward_model(rlhf.bag_of_words(self.task), preferences).rewards()
        learned = rlhf.Objective(self.task, self.reference, rewards, BETA)
        return Learned(learned.optimal_policy, pairs, sentences, pairs)

    def row(self, method: str, learn: Callable[[], Learned]) -> dict[str, object]:
        """One run, timed and judged."""
        began = time.process_time()
        learned = learn()
        seconds = time.process_time() - began
        found = self.objective.evaluate(learned.policy)
        return {
            "method": method,
            "seed": self.seed,
            "repeat": self.repeat,
            **{name: getattr(learned, name) for name in learned._fields if name != "policy"},
            "cpu_seconds": f"{seconds:.3f}",
            "fraction": f"{self.objective.fraction_of_optimum(learned.policy):.4f}",
            "gold": f"{found.reward:.4f}",
            "kl": f"{found.kl:.4f}",
        }


def runs(setup: Setup) -> list[tuple[str, Callable[[], Learned]]]:
    """All runs of a seed, in the order of the table."""
    found: list[tuple[str, Callable[[], Learned]]] = [
        *(("PPO, gold", partial(setup.ppo, sentences)) for sentences in PPO_SENTENCES),
        ("policy gradient, gold", partial(setup.policy_gradient, 51_200)),
    ]
    for pairs in PAIRS:
        found += [
            ("DPO, soft", partial(setup.dpo, pairs, "soft")),
            ("DPO, hard, 150 steps", partial(setup.dpo, pairs, "hard", 150)),
            ("DPO, hard, 600 steps", partial(setup.dpo, pairs, "hard")),
            ("DPO, hard, stopped", partial(setup.dpo_stopped, pairs)),
            ("PPO, reward model", partial(setup.ppo, 16_384, pairs)),
            ("optimum, reward model", partial(setup.model_optimum, pairs)),
        ]
    for steps in STEPS:
        found.append(("DPO, soft, few steps", partial(setup.dpo, 3_000, "soft", steps)))
    for rate in RATES:
        for steps in RATE_STEPS:
            learn = partial(setup.dpo, 3_000, "hard", steps, rate)
            found.append(("DPO, hard, rates", learn))
    return found


def repeated(setup: Setup) -> list[tuple[str, Callable[[], Learned]]]:
    """The runs that learn again from the same data."""
    return [
        ("PPO, gold", partial(setup.ppo, 51_200)),
        ("DPO, soft", partial(setup.dpo, 3_000, "soft")),
        ("DPO, hard, 150 steps", partial(setup.dpo, 3_000, "hard", 150)),
        ("PPO, reward model", partial(setup.ppo, 16_384, 3_000)),
    ]


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the CSV to write")
    arguments = parser.parse_args()
    jobs = [(setup, job) for setup in map(Setup, SEEDS) for job in runs(setup)]
    for repeat in REPEATS:
        setup = Setup(SEEDS[0], repeat)
        jobs += [(setup, job) for job in repeated(setup)]
    Setup(0).dpo(300, "soft", 10)  # loads what is loaded once
    table = io.StringIO()
    writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
    writer.writeheader()
    with one_core():
        for setup, (method, learn) in tqdm(jobs, unit="run", file=sys.stderr):
            writer.writerow(setup.row(method, learn))
    write_text(arguments.out, table.getvalue())
    print(f"{time.process_time():.0f} s of CPU")


if __name__ == "__main__":
    main()
