"""How often a reward model is over-optimised, and what helps: the files that notebook 09 reads.

    python -m benchmarks.rlhf.overoptimisation --workers 2    (about five minutes)

It writes two files to benchmarks/results/overoptimisation. All numbers are exact expectations.

optimum.csv   100 corpora x ten reward models: the gold reward of the reference, of the learned
              reward's exact optimum at its peak, at three betas and at the end (beta = 0.02), with
              the KL at the peak and at the end, and of best-of-n
ppo.csv       16 corpora x two reward models: PPO without a KL penalty, at its peak, when its KL
              first passed 2 nats, and at the end

Corpus k is `np.random.default_rng(k)`, as in the notebook.
"""

from collections.abc import Iterator

import numpy as np
from scipy.special import log_softmax

from benchmarks import study
from benchmarks.rlhf.case import Case
from minirl import rlhf
from minirl.exact import sequences
from minirl.experiments.alignment.chain import SENTENCES
from minirl.rlhf.preferences import Preferences
from minirl.rlhf.reward_model import Features
from minirl.support.machine import one_core

CORPORA, PPO_CORPORA, MEMBERS = 100, 16, 8
BETAS = np.geomspace(20.0, 0.02, 60)
REPORTED_BETAS, REPORTED_BEST_OF = (1.0, 0.3, 0.1), (4, 16, 64, 4096)
STOP_AT = 2.0  # nats of KL
FOLDER = study.RESULTS / "overoptimisation"
KEY = ("corpus", "labels", "model")
OPTIMUM = study.Study(
    FOLDER / "optimum.csv",
    KEY,
    (
        *("reference", "peak", "kl_at_peak"),
        *(f"beta_{beta:g}" for beta in REPORTED_BETAS),
        *("end", "kl_at_end"),
        *(f"best_of_{n}" for n in REPORTED_BEST_OF),
    ),
)
PPO = study.Study(
    FOLDER / "ppo.csv", KEY, ("reference", "peak", "kl_at_peak", "stopped", "end", "kl_at_end")
)
Rows = list[list[object]]


def courtesy_features(task: rlhf.TokenTask) -> Features:
    """The bag of words, with one weight per number of courtesies instead of one per courtesy."""
    bag = rlhf.bag_of_words(task)
    courtesies = bag.shared[:, [1, 3]].sum(axis=1)  # `Great_question!` and `:)`
    numbers = (courtesies[:, None] == np.arange(1, 6)).astype(float)
    return Features(task, bag.by_prompt, np.column_stack([bag.shared[:, [0, 2, 4]], numbers]))


def reward_models(
    task: rlhf.TokenTask, log_reference: np.ndarray, hard: Preferences, soft: Preferences, seed: int
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Number of labels, kind and rewards (X, N) of each; ensembles consist of centred members."""
    bag, courtesy = rlhf.bag_of_words(task), courtesy_features(task)
    for count in (300, 3_000, 30_000):
        first = hard.rows(slice(0, count))
        yield count, "hard", rlhf.fit_reward_model(bag, first).rewards()
        yield count, "courtesy", rlhf.fit_reward_model(courtesy, first).rewards()
    first = soft.rows(slice(0, 3_000))
    yield 3_000, "soft", rlhf.fit_reward_model(bag, first).rewards()
    for count in (300, 3_000):
        rng = np.random.default_rng(seed)
        resamples = [hard.rows(rng.integers(count, size=count)) for _ in range(MEMBERS)]
        models = [rlhf.fit_reward_model(bag, rows) for rows in resamples]
        members = np.array([model.centred(log_reference).rewards() for model in models])
        yield count, "mean - spread", members.mean(axis=0) - members.std(axis=0)
        if count == 3_000:
            yield count, f"worst of {MEMBERS}", members.min(axis=0)


def follow_the_optimum(
    log_reference: np.ndarray, learned: np.ndarray, gold: np.ndarray
) -> list[str]:
    """The columns of optimum.csv from `peak` on."""

    def point(log_probs: np.ndarray) -> tuple[float, float]:
        kl = sequences.kl(log_probs, log_reference)
        return sequences.expected_reward(log_probs, gold), kl

    def optimum(beta: float) -> tuple[float, float]:
        return point(log_softmax(log_reference + learned / beta, axis=1))

    path = [point(log_reference), *map(optimum, BETAS)]
    best_of = (sequences.best_of_n(log_reference, learned, n) for n in REPORTED_BEST_OF)
    at_betas = (optimum(beta)[0] for beta in REPORTED_BETAS)
    values = *max(path), *at_betas, *path[-1], *(point(log_probs)[0] for log_probs in best_of)
    return [f"{value:.4f}" for value in values]


def follow_ppo(case: Case, learned: np.ndarray, seed: int) -> list[str]:
    """The columns of ppo.csv from `peak` on."""
    measure = case.objective.measure
    options = {"sentences": SENTENCES["ppo"], "beta": None, "seed": seed, "measure": measure}
    result = case.align("ppo", rewards=learned, **options)
    rows = [*result.history.rows, measure(result.policy)]
    path = [(row["exact_reward"], row["exact_reference_kl"]) for row in rows]
    stopped = next((gold for gold, kl in path if kl > STOP_AT), path[-1][0])
    return [f"{value:.4f}" for value in (*max(path), stopped, *path[-1])]


def run(item: tuple[int]) -> tuple[Rows, Rows]:
    """The rows of one corpus in both files."""
    (corpus,) = item
    rng = np.random.default_rng(corpus)
    optimum, ppo = [], []
    with one_core():
        case = Case(rng, beta=1.0)
        log_reference = case.objective.reference_log_probs
        reference = case.objective.reference_value
        preferences = case.sample_labelled(30_000, rng).preferences
        models = reward_models(case.task, log_reference, **preferences, seed=corpus)
        for labels, model, learned in models:
            start = [corpus, labels, model, f"{reference:.4f}"]
            optimum.append(start + follow_the_optimum(log_reference, learned, case.gold))
            if corpus < PPO_CORPORA and model == "hard" and labels < 30_000:
                ppo.append(start + follow_ppo(case, learned, corpus))
    return optimum, ppo


def store(item: tuple[int], rows: tuple[Rows, Rows]) -> None:
    """Append the rows of a corpus; it is finished once optimum.csv contains it."""
    optimum, ppo = rows
    PPO.append(ppo)
    OPTIMUM.append(optimum)


def wanted() -> list[tuple[int]]:
    """All corpora."""
    return [(corpus,) for corpus in range(CORPORA)]


if __name__ == "__main__":
    study.main(__doc__, OPTIMUM, run, wanted, store=store)
