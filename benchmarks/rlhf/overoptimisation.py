"""How often a reward model is hacked, and what helps: the tables that notebook 09 reads.

    python -m benchmarks.rlhf.overoptimisation        (about five minutes on two cores)

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
from benchmarks.rlhf.case import labelled_pairs, reference_model
from minirl import rlhf
from minirl.exact import sequences
from minirl.experiments.alignment.run import SENTENCES
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
    """The bag of words, with a weight for each number of courtesies instead of one for each."""
    bag = rlhf.bag_of_words(task)
    courtesies = bag.shared[:, [1, 3]].sum(axis=1)  # `Great_question!` and `:)`
    numbers = (courtesies[:, None] == np.arange(1, 6)).astype(float)
    return Features(task, bag.by_prompt, np.column_stack([bag.shared[:, [0, 2, 4]], numbers]))


def reward_models(
    task: rlhf.TokenTask, log_reference: np.ndarray, hard: Preferences, soft: Preferences, seed: int
) -> Iterator[tuple[int, str, np.ndarray]]:
    """Labels and kind, and rewards (X, N); an ensemble's members are centred to be comparable."""
    bag, courtesy = rlhf.bag_of_words(task), courtesy_features(task)
    for count in (300, 3_000, 30_000):
        few = hard.rows(slice(0, count))
        yield count, "hard", rlhf.fit_reward_model(bag, few).rewards()
        yield count, "courtesy", rlhf.fit_reward_model(courtesy, few).rewards()
    few = soft.rows(slice(0, 3_000))
    yield 3_000, "soft", rlhf.fit_reward_model(bag, few).rewards()
    for count in (300, 3_000):
        rng = np.random.default_rng(seed)
        drawn = [hard.rows(rng.integers(count, size=count)) for _ in range(MEMBERS)]
        members = np.array(
            [rlhf.fit_reward_model(bag, rows).centred(log_reference).rewards() for rows in drawn]
        )
        yield count, "mean - spread", members.mean(axis=0) - members.std(axis=0)
        if count == 3_000:
            yield count, f"worst of {MEMBERS}", members.min(axis=0)


def follow_the_optimum(
    log_reference: np.ndarray, learned: np.ndarray, gold: np.ndarray
) -> list[float]:
    """The columns of optimum.csv from `peak` on."""

    def point(log_probs: np.ndarray) -> tuple[float, float]:
        kl = sequences.kl(log_probs, log_reference)
        return sequences.expected_reward(log_probs, gold), kl

    def optimum(beta: float) -> tuple[float, float]:
        return point(log_softmax(log_reference + learned / beta, axis=1))

    path = [point(log_reference), *map(optimum, BETAS)]
    best_of = (sequences.best_of_n(log_reference, learned, n) for n in REPORTED_BEST_OF)
    return [
        *max(path),
        *(optimum(beta)[0] for beta in REPORTED_BETAS),
        *path[-1],
        *(point(log_probs)[0] for log_probs in best_of),
    ]


def follow_ppo(
    objective: rlhf.Objective, learned: np.ndarray, seed: int
) -> tuple[float, float, float, float, float]:
    """The columns of ppo.csv from `peak` on; `objective` knows the gold rewards."""

    result = rlhf.align(
        objective.task,
        objective.reference,
        learned,
        "ppo",
        sentences=SENTENCES["ppo"],
        beta=None,
        seed=seed,
        measure=objective.measure,
    )
    rows = [*result.history.rows, objective.measure(result.policy)]
    path = [(row["exact_reward"], row["exact_reference_kl"]) for row in rows]
    stopped = next((gold for gold, kl in path if kl > STOP_AT), path[-1][0])
    return *max(path), stopped, *path[-1]


def run(corpus: int) -> tuple[Rows, Rows]:
    """The rows of one corpus in both files."""
    with one_core():
        return _run(corpus)


def _run(corpus: int) -> tuple[Rows, Rows]:
    task, rng = rlhf.arithmetic(), np.random.default_rng(corpus)
    gold = task.utilities
    reference = reference_model(rng)
    _, preferences = labelled_pairs(reference, 30_000, rng)
    objective = rlhf.Objective(task, reference, gold, 1.0)
    log_reference, start = objective.reference_log_probs, objective.reference_value
    optimum: Rows = []
    ppo: Rows = []
    for labels, model, learned in reward_models(task, log_reference, **preferences, seed=corpus):
        key = [corpus, labels, model]
        numbers = follow_the_optimum(log_reference, learned, gold)
        optimum.append([*key, *(f"{number:.4f}" for number in [start, *numbers])])
        if corpus < PPO_CORPORA and model == "hard" and labels < 30_000:
            path = follow_ppo(objective, learned, corpus)
            ppo.append([*key, *(f"{number:.4f}" for number in [start, *path])])
    return optimum, ppo


def main() -> None:
    """Compute the corpora that the files do not contain."""
    finished = {int(row["corpus"]) for row in OPTIMUM.rows()}
    corpora = [corpus for corpus in range(CORPORA) if corpus not in finished]
    for _, (optimum, ppo) in study.computed(run, corpora, workers=2):
        PPO.append(ppo)
        OPTIMUM.append(optimum)


if __name__ == "__main__":
    main()
