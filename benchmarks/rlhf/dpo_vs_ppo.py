"""DPO, PPO and TRPO with the same sentences, the same answers of the annotator, the same compute.

    python -m benchmarks.rlhf.dpo_vs_ppo              (about 5 minutes of CPU time)
    python -m benchmarks.rlhf.dpo_vs_ppo --compute    (about 3 minutes of CPU time)
    python -m benchmarks.rlhf.dpo_vs_ppo --table      (tables of docs/results/rlhf.md)

Everything runs in one process on one core. `--compute` runs the methods in turn at equal compute,
adds the column gradient_equivalents and keeps its rows in dpo_vs_ppo_compute.csv, from which
`--table` makes the tables. The seconds of a file may come from several days, because finished runs
are kept.

Each seed has its own demonstrations, reference, pairs and judgements; beta is 0.3, and every policy
is judged by its exact J under the gold reward. One row per run:

method         the method, and what it learned from
pairs          number of preference pairs, 0 for none
sentences      number of sentences sampled, for the pairs and while learning
answers        of the annotator: one per pair, or one per sentence that the gold reward scored
steps          gradient steps of DPO, 0 for others
learning_rate  of DPO, annealed to 0; 0 for others
cpu_seconds    of the process: pairs, reward model and learning, without judging the result
fraction       (J - J_ref) / (J* - J_ref); then gold reward and KL of the policy, per sentence
repeat         0: everything depends on `seed`; 1, 2, ...: learning is repeated with other seeds for
               minibatches and rollouts, from the same reference, pairs and judgements
gradient_equivalents  of the policy's updates, as `minirl.support.metrics` counts them: 1 for a
               forward and backward pass over one token, without sampling and the critic's table
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks import study
from benchmarks.rlhf.case import labelled_pairs, reference_model
from minirl import rlhf
from minirl.algorithms import Algorithm
from minirl.experiments.statistics import bootstrap_interval, interquartile_mean
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.dpo import dpo_loss, path_log_probs
from minirl.settings import default_algorithm, default_settings
from minirl.support.machine import one_core

BETA = 0.3
SEEDS = range(200, 208)  # none of them chose a setting
REPEATS = range(1, 6)
SENTENCES = 2_048, 4_096, 8_192, 16_384, 51_200
TRPO_UPDATES = 64  # the preset has 60, and no budget is a multiple of that
# Found on seeds 20 to 22, for rollouts of the presets' sizes or a sixteenth of the budget: the best
# of three learning rates for PPO, of five bounds for TRPO, of four rates for DPO's steps.
RATE_OF_PPO = dict(zip(SENTENCES, (0.1, 0.1, 0.2, 0.1, 0.05), strict=True))
MAX_KL_OF_TRPO = dict(zip(SENTENCES, (0.1, 0.05, 0.05, 0.02, 0.01), strict=True))
RATE_OF_STEPS = {25: 0.5, 50: 0.3, 100: 0.2, 200: 0.2, 600: 0.1}
SENTENCES_A_PAIR = 2.302  # 2, and the identical ones that are dropped
PAIRS = 300, 1_000, 3_000, 10_000, 30_000
STEPS = 25, 50, 100, 200
RATES = 0.03, 0.1, 0.3
RATE_STEPS = 75, 150, 600
HELD_OUT = 10  # one pair in ten decides when to stop
KEY = ("method", "seed", "repeat")
VALUES = ("pairs", "sentences", "answers", "steps", "learning_rate", "cpu_seconds")
VALUES += ("fraction", "gold", "kl")
STUDY = study.Study(study.RESULTS / "dpo_vs_ppo.csv", KEY, VALUES)
COMPUTE = study.Study(
    study.RESULTS / "dpo_vs_ppo_compute.csv", KEY, (*VALUES, "gradient_equivalents")
)
OF_SENTENCES = [
    "PPO, preset",
    "PPO, set",
    "TRPO, preset",
    "TRPO, set",
    "DPO, probabilities",
    "DPO, judgements",
]
FAMILIES = [
    ("PPO, preset", "PPO, set"),
    ("TRPO, preset", "TRPO, set"),
    ("DPO, probabilities", "DPO, set"),
]
COMPUTES = {
    "gradient_equivalents": (100_000, 200_000, 500_000, 1_000_000, 3_000_000),
    "cpu_seconds": (0.15, 0.4, 0.8, 1.6, 3.0),
}
NAMES = {"gradient_equivalents": "gradient-equivalents", "cpu_seconds": "CPU seconds"}
Job = tuple[str, Callable[[], "Learned"]]


class Learned(NamedTuple):
    """The policy that a run reached, and what the run used."""

    policy: Policy
    pairs: int = 0
    sentences: int = 0
    answers: int = 0
    steps: int = 0
    learning_rate: float = 0.0
    gradient_equivalents: float = 0.0


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
        self.reference = reference_model(np.random.default_rng([seed, 0]))
        self.gold = self.task.utilities
        self.objective = rlhf.Objective(self.task, self.reference, self.gold, BETA)

    def labelled(self, pairs: int, kind: str) -> tuple[rlhf.Preferences, int]:
        """That many labelled pairs, and the sentences sampled for them."""
        rng = np.random.default_rng([self.seed, pairs])
        drawn, preferences = labelled_pairs(self.reference, pairs, rng)
        return preferences[kind], 2 * (pairs + drawn.identical)

    def dpo(self, pairs: int, kind: str, steps: int = 600, rate: float = 0.1) -> Learned:
        """DPO for a fixed number of steps."""
        preferences, sentences = self.labelled(pairs, kind)
        method = rlhf.DPO(beta=BETA, steps=steps, learning_rate=LinearSchedule(rate))
        rng = np.random.default_rng([self.seed, self.repeat, 1])
        policy = method.fit(self.task, self.reference, preferences, rng).policy
        work = self.tokens(preferences) * (
            steps * min(method.minibatch_size, pairs) / pairs + 1 / 3
        )
        return Learned(policy, pairs, sentences, pairs, steps, rate, work)

    def tokens(self, preferences: rlhf.Preferences) -> int:
        """Of both answers of all pairs."""
        answers = preferences.first, preferences.second
        return sum(self.task.paths(preferences.prompts, one).valid.sum() for one in answers)

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
            self.task, self.reference, learned_from, rng, measure=keep_best
        )
        calls = 0
        keep_best(last.policy)
        return Learned(best[1], pairs, sentences, pairs, 600, 0.1)

    def ppo(self, sentences: int, pairs: int = 0, rate: float = 0.05) -> Learned:
        """PPO on the gold reward, or on a reward model of hard labels of some pairs.

        Rollouts of 512 sentences; smaller ones where the budget would leave fewer than 16 updates.
        """
        rewards, sampled = self.gold, 0
        if pairs:
            preferences, sampled = self.labelled(pairs, "hard")
            rewards = rlhf.fit_reward_model(rlhf.bag_of_words(self.task), preferences).rewards()
        size = min(512, sentences // 16)
        algorithm = replace(
            default_algorithm("ppo", ENVIRONMENT),
            minibatch_size=size // 4,
            learning_rate=LinearSchedule(rate),
        )
        result = self.align(algorithm, sentences, rewards, size)
        return result._replace(
            pairs=pairs, sentences=sampled + sentences, answers=pairs or sentences
        )

    def trpo(self, sentences: int) -> Learned:
        """TRPO on the gold reward with the preset's bound, on smaller rollouts."""
        algorithm = default_algorithm("trpo", ENVIRONMENT)
        return self.align(algorithm, sentences, self.gold, min(1_024, sentences // TRPO_UPDATES))

    def trpo_set(self, sentences: int) -> Learned:
        """TRPO on the gold reward: fewer and larger steps, for the budget."""
        algorithm = replace(
            default_algorithm("trpo", ENVIRONMENT), max_kl=MAX_KL_OF_TRPO[sentences]
        )
        return self.align(algorithm, sentences, self.gold, min(1_024, sentences // 16))

    def align(
        self, algorithm: Algorithm, sentences: int, rewards: np.ndarray, size: int
    ) -> Learned:
        """An algorithm that samples while it learns, with rollouts of `size` sentences."""
        result = rlhf.align(
            self.task,
            self.reference,
            rewards,
            algorithm,
            sentences=sentences,
            beta=BETA,
            seed=self.seed + 1000 * self.repeat,
            settings=replace(default_settings(ENVIRONMENT, algorithm), num_envs=size),
        )
        columns = result.history.columns()
        sampled, work = (columns[name][-1] for name in ("episodes", "gradient_equivalents"))
        return Learned(
            result.policy, 0, int(sampled), int(sampled), gradient_equivalents=float(work)
        )

    def policy_gradient(self, sentences: int) -> Learned:
        """The policy gradient on the gold reward, with its defaults."""
        algorithm = default_algorithm("policy-gradient", ENVIRONMENT)
        return self.align(algorithm, sentences, self.gold, 256)

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
        found = self.objective.value(learned.policy)
        return {
            "method": method,
            "seed": self.seed,
            "repeat": self.repeat,
            **{name: getattr(learned, name) for name in learned._fields[1:-1]},
            "cpu_seconds": f"{seconds:.3f}",
            "fraction": f"{self.objective.fraction_of_optimum(learned.policy):.4f}",
            "gold": f"{found.reward:.4f}",
            "kl": f"{found.kl:.4f}",
            "gradient_equivalents": round(learned.gradient_equivalents),
        }


def runs(setup: Setup) -> list[Job]:
    """All runs of a seed, in the order of the table."""
    found: list[Job] = [
        *(("PPO, gold", partial(setup.ppo, sentences)) for sentences in SENTENCES),
        *(("TRPO, gold", partial(setup.trpo, sentences)) for sentences in SENTENCES),
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


def repeated(setup: Setup) -> list[Job]:
    """The runs that learn again from the same data."""
    return [
        ("PPO, gold", partial(setup.ppo, 51_200)),
        ("DPO, soft", partial(setup.dpo, 3_000, "soft")),
        ("DPO, hard, 150 steps", partial(setup.dpo, 3_000, "hard", 150)),
        ("PPO, reward model", partial(setup.ppo, 16_384, 3_000)),
    ]


def runs_of_compute(setup: Setup) -> list[Job]:
    """What compares compute, and DPO with as many sentences as the others sample."""
    found: list[Job] = [("policy gradient, gold", partial(setup.policy_gradient, 51_200))]
    for sentences in SENTENCES:
        pairs = round(sentences / SENTENCES_A_PAIR)
        found += [
            ("PPO, preset", partial(setup.ppo, sentences)),
            ("TRPO, preset", partial(setup.trpo, sentences)),
            ("DPO, probabilities", partial(setup.dpo, pairs, "soft")),
            ("PPO, set", partial(setup.ppo, sentences, rate=RATE_OF_PPO[sentences])),
            ("TRPO, set", partial(setup.trpo_set, sentences)),
            ("DPO, judgements", partial(setup.dpo, pairs, "hard", 150)),
        ]
    for steps, rate in RATE_OF_STEPS.items():
        found.append(("DPO, set", partial(setup.dpo, 3_000, "soft", steps, rate)))
    return found


def lacking(
    jobs: Sequence[tuple[Setup, Job]], rows: Sequence[dict[str, str]]
) -> list[tuple[Setup, Job]]:
    """The jobs whose rows are missing; those of one method, seed and repeat run in their order."""
    held = Counter((row["method"], row["seed"], row["repeat"]) for row in rows)
    found = []
    for setup, (method, learn) in jobs:
        key = method, str(setup.seed), str(setup.repeat)
        if held[key]:
            held[key] -= 1
        else:
            found.append((setup, (method, learn)))
    return found


def of_budgets(rows: Sequence[dict[str, str]], method: str) -> list[list[dict[str, str]]]:
    """The rows of a method in groups of one budget each, as they stand in the file."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        if row["method"] == method:
            # Pairs tell budgets of DPO apart; its sentences differ from seed to seed.
            budget = row["pairs"], row["steps"], "" if row["steps"] != "0" else row["sentences"]
            found.setdefault(budget, []).append(row)
    return list(found.values())


def fraction(rows: Sequence[dict[str, str]]) -> tuple[float, float, float]:
    """Interquartile mean of the fractions over seeds, and its 95 % bootstrap interval."""
    found = [float(row["fraction"]) for row in rows]
    return interquartile_mean(found), *bootstrap_interval(found, np.random.default_rng(0))


def median(rows: Sequence[dict[str, str]], column: str) -> float:
    """Of a column of numbers."""
    return float(np.median([float(row[column]) for row in rows]))


def text(numbers: tuple[float, float, float]) -> str:
    """A mean and its interval."""
    return study.with_interval(*numbers, ".3f")


def best_within(
    rows: Sequence[dict[str, str]], methods: Sequence[str], column: str, budget: float
) -> str:
    """The largest interquartile mean among settings whose median use is within the budget."""
    fitting = [
        fraction(group)
        for name in methods
        for group in of_budgets(rows, name)
        if median(group, column) <= budget
    ]
    return text(max(fitting)) if fitting else ""


def tables(rows: Sequence[dict[str, str]]) -> dict[str, str]:
    """The tables of docs/results/rlhf.md that the runs of `--compute` make, by title."""
    by_sentences = [
        [
            f"{sentences:,}",
            *(text(fraction(of_budgets(rows, name)[place])) for name in OF_SENTENCES),
        ]
        for place, sentences in enumerate(SENTENCES)
    ]
    found = {"Equal sentences": study.markdown(["sentences", *OF_SENTENCES], by_sentences)}
    for column, budgets in COMPUTES.items():
        lines = [
            [f"{budget:,}", *(best_within(rows, names, column, budget) for names in FAMILIES)]
            for budget in budgets
        ]
        header = [f"{NAMES[column]}, at most", "PPO", "TRPO", "DPO, probabilities"]
        found[f"Equal {NAMES[column]}"] = study.markdown(header, lines)
    header = ["method", "pairs", "steps", "sentences", "gradient-equivalents", "CPU s", "fraction"]
    lines = [
        [
            name,
            f"{int(group[0]['pairs']):,}",
            group[0]["steps"],
            f"{median(group, 'sentences'):,.0f}",
            f"{median(group, 'gradient_equivalents'):,.0f}",
            f"{median(group, 'cpu_seconds'):.2f}",
            text(fraction(group)),
        ]
        for name in dict.fromkeys(row["method"] for row in rows)
        for group in of_budgets(rows, name)
    ]
    return {**found, "All runs (medians)": study.markdown(header, lines)}


def main() -> None:
    """Compute the missing runs, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compute", action="store_true", help="the runs that compare compute")
    parser.add_argument("--table", action="store_true", help="print the tables, run nothing")
    arguments = parser.parse_args()
    if arguments.table:
        for title, table in tables(COMPUTE.rows()).items():
            print(f"{title}\n\n{table}\n")
        return
    kept = COMPUTE if arguments.compute else STUDY
    if arguments.compute:
        jobs = [(setup, job) for setup in map(Setup, SEEDS) for job in runs_of_compute(setup)]
    else:
        jobs = [(setup, job) for setup in map(Setup, SEEDS) for job in runs(setup)]
        for repeat in REPEATS:
            setup = Setup(SEEDS[0], repeat)
            jobs += [(setup, job) for job in repeated(setup)]
    jobs = lacking(jobs, kept.rows())
    Setup(0).dpo(300, "soft", 10)  # loads what is loaded once
    with one_core():
        for setup, (method, learn) in tqdm(jobs, unit="run", file=sys.stderr):
            row = setup.row(method, learn)
            kept.append([[row[column] for column in (*KEY, *kept.values)]])
    print(f"{time.process_time():.0f} s of CPU")


if __name__ == "__main__":
    main()
