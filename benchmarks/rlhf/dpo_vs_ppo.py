"""DPO, PPO and TRPO with equal numbers of sentences, equal numbers of labels and equal compute.

    python -m benchmarks.rlhf.dpo_vs_ppo              (about 5 minutes of CPU time)
    python -m benchmarks.rlhf.dpo_vs_ppo --compute    (about 3 minutes of CPU time)
    python -m benchmarks.rlhf.dpo_vs_ppo --table      (tables of docs/results/rlhf.md)

Everything runs in one process on one core. `--compute` runs the methods in turn at equal compute
and stores its rows in dpo_vs_ppo_compute.csv. `--table` makes the tables of both files. Each seed
has its own demonstrations, reference, pairs and judgements. beta is 0.3, and every policy is
evaluated by its exact J under the gold reward. One row per run:

pairs, answers  number of preference pairs; of labels: one per pair, or per sentence scored by gold
sentences       number of sentences sampled, for the pairs and while learning
steps, learning_rate  of DPO, whose rate is annealed to 0; 0 for others
cpu_seconds     of pairs, reward model and learning, without evaluating the result
fraction        (J - J_ref) / (J* - J_ref); then gold reward and KL of the policy, per sentence
repeat          0: everything depends on `seed`; 1, 2, ...: learning is repeated with other seeds
                for minibatches and rollouts, from the same reference, pairs and judgements
gradient_equivalents  of the policy's updates, as `minirl.support.metrics` counts them: 1 per
                forward and backward pass over one token, without sampling and the critic's table
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from itertools import count
from typing import Any, NamedTuple

import numpy as np

from benchmarks import study
from benchmarks.rlhf.case import Case
from benchmarks.study import Row
from minirl import rlhf
from minirl.experiments.statistics import with_interval
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.presets import Preset, preset
from minirl.rlhf.align import ENVIRONMENT
from minirl.rlhf.dpo import path_log_probs
from minirl.rlhf.preference_losses import dpo_loss
from minirl.support.machine import one_core

BETA = 0.3
SEEDS = range(200, 208)  # none of them chose a setting
REPEATS = range(1, 6)
SENTENCES = 2_048, 4_096, 8_192, 16_384, 51_200
TRPO_UPDATES = 64  # the preset has 60, and no budget is a multiple of that
# Chosen on seeds 20 to 22, for rollouts of the presets' sizes or a sixteenth of the budget: the
# best of three learning rates for PPO, of five bounds for TRPO, of four rates for DPO's steps.
RATE_OF_PPO = dict(zip(SENTENCES, (0.1, 0.1, 0.2, 0.1, 0.05), strict=True))
MAX_KL_OF_TRPO = dict(zip(SENTENCES, (0.1, 0.05, 0.05, 0.02, 0.01), strict=True))
RATE_OF_STEPS = {25: 0.5, 50: 0.3, 100: 0.2, 200: 0.2, 600: 0.1}
SENTENCES_PER_PAIR = 2.302  # 2, and those of identical pairs, which are dropped
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
PPO, TRPO = ("PPO, preset", "PPO, set"), ("TRPO, preset", "TRPO, set")
OF_SENTENCES = [*PPO, *TRPO, "DPO, probabilities", "DPO, judgements"]
FAMILIES = [PPO, TRPO, ("DPO, probabilities", "DPO, set")]
COMPUTES = {
    "gradient_equivalents": (100_000, 200_000, 500_000, 1_000_000, 3_000_000),
    "cpu_seconds": (0.15, 0.4, 0.8, 1.6, 3.0),
}
NAMES = {"gradient_equivalents": "gradient-equivalents", "cpu_seconds": "CPU seconds"}


class Learned(NamedTuple):
    """The policy that a run reached, and what the run used."""

    policy: Policy
    pairs: int = 0
    sentences: int = 0
    answers: int = 0
    steps: int = 0
    learning_rate: float = 0.0
    gradient_equivalents: float = 0.0


class Setup(Case):
    """The reference of a seed, and every method that starts from it.

    Parameters
    ----------
    seed : int
        Of demonstrations, pairs and judgements.
    repeat : int
        Of minibatches and rollouts.
    """

    def __init__(self, seed: int, repeat: int = 0) -> None:
        super().__init__(np.random.default_rng([seed, 0]), BETA)
        self.seed, self.repeat = seed, repeat

    def labelled(self, pairs: int, kind: str) -> tuple[rlhf.Preferences, int]:
        """This number of labelled pairs, and the number of sentences sampled for them."""
        rng = np.random.default_rng([self.seed, pairs])
        preferences, sentences = self.sample_labelled(pairs, rng)
        return preferences[kind], sentences

    def fit_dpo(self, method: rlhf.DPO, preferences: rlhf.Preferences, **options: Any) -> Policy:
        """DPO with the minibatches of this seed and repeat."""
        rng = np.random.default_rng([self.seed, self.repeat, 1])
        return self.fit(method, preferences, rng, **options)

    def dpo(self, pairs: int, kind: str, steps: int = 600, rate: float = 0.1) -> Learned:
        """DPO for a fixed number of steps."""
        preferences, sentences = self.labelled(pairs, kind)
        method = rlhf.DPO(beta=BETA, steps=steps, learning_rate=LinearSchedule(rate))
        policy = self.fit_dpo(method, preferences)
        passes = steps * min(method.minibatch_size, pairs) / pairs + 1 / 3
        work = self.tokens(preferences) * passes
        return Learned(policy, pairs, sentences, pairs, steps, rate, work)

    def tokens(self, preferences: rlhf.Preferences) -> int:
        """The number of tokens in both responses of all pairs."""
        responses = preferences.first, preferences.second
        return sum(self.task.paths(preferences.prompts, one).valid.sum() for one in responses)

    def dpo_stopped(self, pairs: int) -> Learned:
        """DPO on nine tenths of hard labels; of all its policies, the best for the other tenth."""
        preferences, sentences = self.labelled(pairs, "hard")
        held_out = preferences.rows(slice(0, pairs // HELD_OUT))
        first = self.task.paths(held_out.prompts, held_out.first)
        second = self.task.paths(held_out.prompts, held_out.second)

        def log_ratio(policy: Policy) -> np.ndarray:
            return path_log_probs(policy, first)[0] - path_log_probs(policy, second)[0]

        reference_log_ratio = log_ratio(self.reference)
        steps, candidates = count(), []

        def remember_every_tenth(policy: Policy) -> dict[str, float]:
            if next(steps) % 10 == 0:
                candidates.append(policy)
            return {}

        def held_out_loss(policy: Policy) -> float:
            margins = BETA * (log_ratio(policy) - reference_log_ratio)
            return dpo_loss(margins, held_out.labels)[0]

        learned_from = preferences.rows(slice(pairs // HELD_OUT, None))
        last = self.fit_dpo(rlhf.DPO(beta=BETA), learned_from, measure=remember_every_tenth)
        best = min([*candidates, last], key=held_out_loss)
        return Learned(best, pairs, sentences, pairs, 600, 0.1)

    def reward_model(self, pairs: int) -> tuple[np.ndarray, int]:
        """Rewards of a model of hard labels, and the number of sentences sampled for them."""
        preferences, sentences = self.labelled(pairs, "hard")
        model = rlhf.fit_reward_model(rlhf.bag_of_words(self.task), preferences)
        return model.rewards(), sentences

    def model_optimum(self, pairs: int) -> Learned:
        """The exact optimum of a reward model, which PPO on it can only approach."""
        rewards, sentences = self.reward_model(pairs)
        learned = rlhf.Objective(self.task, self.reference, rewards, BETA)
        return Learned(learned.optimal_policy, pairs, sentences, pairs)

    def ppo(self, sentences: int, pairs: int = 0, rate: float = 0.05) -> Learned:
        """PPO on the gold reward, or on a reward model of hard labels of some pairs.

        A rollout has 512 sentences, or fewer where that would give fewer than 16 updates.
        """
        rewards, sampled = self.reward_model(pairs) if pairs else (self.gold, 0)
        size = min(512, sentences // 16)
        changes = {"minibatch_size": size // 4, "learning_rate": LinearSchedule(rate)}
        result = self.sample_and_learn("ppo", sentences, size, rewards, **changes)
        return result._replace(
            pairs=pairs, sentences=sampled + sentences, answers=pairs or sentences
        )

    def trpo(self, sentences: int, updates: int = TRPO_UPDATES, **changes: Any) -> Learned:
        """TRPO on the gold reward, with at least this number of updates."""
        size = min(1_024, sentences // updates)
        return self.sample_and_learn("trpo", sentences, size, self.gold, **changes)

    def policy_gradient(self, sentences: int) -> Learned:
        """The policy gradient on the gold reward, with its preset."""
        return self.sample_and_learn("policy-gradient", sentences, 256, self.gold)

    def sample_and_learn(
        self, name: str, sentences: int, size: int, rewards: np.ndarray, **changes: Any
    ) -> Learned:
        """A preset that samples while it learns, with rollouts of `size` sentences."""
        chosen = preset(ENVIRONMENT, name)
        result = self.align(
            Preset(replace(chosen.algorithm, **changes), replace(chosen.settings, num_envs=size)),
            rewards=rewards,
            sentences=sentences,
            seed=self.seed + 1000 * self.repeat,
        )
        columns = result.history.columns()
        sampled, work = int(columns["episodes"][-1]), float(columns["gradient_equivalents"][-1])
        return Learned(result.policy, 0, sampled, sampled, gradient_equivalents=work)


soft, hard = (partial(Setup.dpo, kind=kind) for kind in ("soft", "hard"))


class Job(NamedTuple):
    """One run; jobs with the same method, seed and repeat are stored in their order."""

    method: str
    seed: int
    repeat: int
    learn: Callable[[Setup], Learned]


def jobs() -> list[Job]:
    """All runs of each seed, in the order of the table; then those that learn again."""
    methods = [
        *(("PPO, gold", partial(Setup.ppo, sentences=number)) for number in SENTENCES),
        *(("TRPO, gold", partial(Setup.trpo, sentences=number)) for number in SENTENCES),
        ("policy gradient, gold", partial(Setup.policy_gradient, sentences=51_200)),
    ]
    for pairs in PAIRS:
        methods += [
            ("DPO, soft", partial(soft, pairs=pairs)),
            ("DPO, hard, 150 steps", partial(hard, pairs=pairs, steps=150)),
            ("DPO, hard, 600 steps", partial(hard, pairs=pairs)),
            ("DPO, hard, stopped", partial(Setup.dpo_stopped, pairs=pairs)),
            ("PPO, reward model", partial(Setup.ppo, sentences=16_384, pairs=pairs)),
            ("optimum, reward model", partial(Setup.model_optimum, pairs=pairs)),
        ]
    methods += [
        ("DPO, soft, few steps", partial(soft, pairs=3_000, steps=steps)) for steps in STEPS
    ]
    methods += [
        ("DPO, hard, rates", partial(hard, pairs=3_000, steps=steps, rate=rate))
        for rate in RATES
        for steps in RATE_STEPS
    ]
    again = [
        ("PPO, gold", partial(Setup.ppo, sentences=51_200)),
        ("DPO, soft", partial(soft, pairs=3_000)),
        ("DPO, hard, 150 steps", partial(hard, pairs=3_000, steps=150)),
        ("PPO, reward model", partial(Setup.ppo, sentences=16_384, pairs=3_000)),
    ]
    return [
        *(Job(name, seed, 0, learn) for seed in SEEDS for name, learn in methods),
        *(Job(name, SEEDS[0], repeat, learn) for repeat in REPEATS for name, learn in again),
    ]


def compute_jobs() -> list[Job]:
    """The runs that compare compute, and DPO with as many sentences as the others sample."""
    methods = [("policy gradient, gold", partial(Setup.policy_gradient, sentences=51_200))]
    for number in SENTENCES:
        pairs = round(number / SENTENCES_PER_PAIR)
        rate, max_kl = RATE_OF_PPO[number], MAX_KL_OF_TRPO[number]
        methods += [
            ("PPO, preset", partial(Setup.ppo, sentences=number)),
            ("TRPO, preset", partial(Setup.trpo, sentences=number)),
            ("DPO, probabilities", partial(soft, pairs=pairs)),
            ("PPO, set", partial(Setup.ppo, sentences=number, rate=rate)),
            ("TRPO, set", partial(Setup.trpo, sentences=number, updates=16, max_kl=max_kl)),
            ("DPO, judgements", partial(hard, pairs=pairs, steps=150)),
        ]
    methods += [
        ("DPO, set", partial(soft, pairs=3_000, steps=steps, rate=rate))
        for steps, rate in RATE_OF_STEPS.items()
    ]
    return [Job(name, seed, 0, learn) for seed in SEEDS for name, learn in methods]


setup_of = lru_cache(maxsize=1)(Setup)


def run(job: Job) -> list[object]:
    """Learn, timed, and evaluate: the values of a row of `COMPUTE`."""
    setup = setup_of(job.seed, job.repeat)
    began = time.process_time()
    learned = job.learn(setup)
    seconds = time.process_time() - began
    value = setup.objective.value(learned.policy)
    scores = setup.objective.fraction_of_optimum(learned.policy), value.reward, value.kl
    return [
        *(getattr(learned, name) for name in VALUES[:5]),
        f"{seconds:.3f}",
        *(f"{score:.4f}" for score in scores),
        round(learned.gradient_equivalents),
    ]


def of_budgets(rows: Sequence[Row], method: str) -> list[list[Row]]:
    """The rows of a method in groups of one budget each, in the order of the file."""
    rows = [row for row in rows if row["method"] == method]
    # A budget of DPO is given by its pairs; its sentences differ from seed to seed.
    of_dpo = any(row["steps"] != "0" for row in rows)
    return list(study.grouped(rows, "pairs", "steps" if of_dpo else "sentences").values())


def fraction(rows: Sequence[Row]) -> tuple[float, float, float]:
    """Interquartile mean of the fractions over seeds, and its 95 % bootstrap interval."""
    return study.iqm(study.numbers(rows, "fraction"))


def median(rows: Sequence[Row], column: str) -> float:
    """The median of a column of numbers."""
    return float(np.median(study.numbers(rows, column)))


def fraction_cell(rows: Sequence[Row]) -> str:
    """The text of `fraction`."""
    return with_interval(*fraction(rows), ".3f")


def best_within(rows: Sequence[Row], methods: Sequence[str], column: str, budget: float) -> str:
    """The largest interquartile mean among settings whose median use is within the budget."""
    groups = [group for name in methods for group in of_budgets(rows, name)]
    fitting = [group for group in groups if median(group, column) <= budget]
    return fraction_cell(max(fitting, key=fraction)) if fitting else ""


def tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables of docs/results/rlhf.md that the runs of `--compute` make, by title."""
    groups = [of_budgets(rows, name) for name in OF_SENTENCES]
    lines = [
        [f"{sentences:,}", *map(fraction_cell, budget)]
        for sentences, *budget in zip(SENTENCES, *groups, strict=True)
    ]
    by_title = {"Equal sentences": study.markdown(["sentences", *OF_SENTENCES], lines)}
    for column, budgets in COMPUTES.items():
        lines = [
            [f"{budget:,}", *(best_within(rows, names, column, budget) for names in FAMILIES)]
            for budget in budgets
        ]
        header = [f"{NAMES[column]}, at most", "PPO", "TRPO", "DPO, probabilities"]
        by_title[f"Equal {NAMES[column]}"] = study.markdown(header, lines)
    header = ["method", "pairs", "steps", "sentences", "gradient-equivalents", "CPU s", "fraction"]
    lines = [
        [
            name,
            f"{int(group[0]['pairs']):,}",
            group[0]["steps"],
            f"{median(group, 'sentences'):,.0f}",
            f"{median(group, 'gradient_equivalents'):,.0f}",
            f"{median(group, 'cpu_seconds'):.2f}",
            fraction_cell(group),
        ]
        for name in dict.fromkeys(row["method"] for row in rows)
        for group in of_budgets(rows, name)
    ]
    return {**by_title, "All runs (medians)": study.markdown(header, lines)}


def label_tables(rows: Sequence[Row]) -> dict[str, str]:
    """The tables of docs/results/rlhf.md that the runs without `--compute` make, by title."""
    first = [row for row in rows if row["repeat"] == "0"]
    names = ["DPO, hard, 150 steps", "DPO, hard, 600 steps", "DPO, hard, stopped"]
    names += ["PPO, reward model", "optimum, reward model"]
    by_pairs = study.grouped(first, "method", "pairs")
    lines = [
        [f"{pairs:,}", *(fraction_cell(by_pairs[name, str(pairs)]) for name in names)]
        for pairs in PAIRS
    ]
    equal = study.markdown(["pairs", *names], lines)
    rates = [row for row in first if row["method"] == "DPO, hard, rates"]
    by_rate = study.grouped(rates, "learning_rate", "steps")
    lines = [
        [str(rate), *(fraction_cell(by_rate[str(rate), str(steps)]) for steps in RATE_STEPS)]
        for rate in RATES
    ]
    by_rate_table = study.markdown(["rate", *(f"{steps} steps" for steps in RATE_STEPS)], lines)
    lines = []
    for name, column, budget in (
        ("PPO, gold", "sentences", 51_200),
        ("DPO, soft", "pairs", 3_000),
        ("PPO, reward model", "pairs", 3_000),
        ("DPO, hard, 150 steps", "pairs", 3_000),
    ):
        runs = [row for row in rows if row["method"] == name and row[column] == str(budget)]
        anew = [row for row in runs if row["repeat"] == "0"]
        again = [row for row in runs if row["seed"] == str(SEEDS[0])]
        spreads = (np.std(study.numbers(part, "fraction"), ddof=1) for part in (anew, again))
        lines.append(
            [name, *(f"{spread:.4f}" for spread in spreads), f"{median(anew, 'cpu_seconds'):.2f}"]
        )
    header = ["method", "8 seeds, everything new", "6 learning seeds, same data", "median CPU s"]
    return {
        "Equal labels": equal,
        "Rate and steps of DPO": by_rate_table,
        "Standard deviation of the fraction": study.markdown(header, lines),
    }


def main() -> None:
    """Compute the missing runs, or print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--compute", action="store_true", help="the runs that compare compute")
    parser.add_argument("--table", action="store_true", help="print the stored runs' tables")
    arguments = parser.parse_args()
    if arguments.table:
        print(study.titled({**label_tables(STUDY.rows()), **tables(COMPUTE.rows())}))
        return
    stored, items = (COMPUTE, compute_jobs()) if arguments.compute else (STUDY, jobs())

    def store(job: Job, values: list[object]) -> None:
        stored.store(job, values[: len(stored.values)])

    run(Job("warm-up", 0, 0, partial(soft, pairs=300, steps=10)))
    with one_core():
        stored.complete(run, items, store=store)
    print(f"{time.process_time():.0f} s of CPU")


if __name__ == "__main__":
    main()
