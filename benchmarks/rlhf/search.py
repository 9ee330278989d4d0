"""Imitation against reinforcement learning at equal samples, and potentials as process rewards.

    python -m benchmarks.rlhf.search            (about ten minutes on one core)
    python -m benchmarks.rlhf.search --table    (for docs/rlhf/search.md)

Search: the verifier is `first_answer_correct`, and the demonstrations of the four prompts are right
with the probabilities 0.9, 0.5, 0.1 and 0.02. Each method starts from the fine-tuned model of one
of six corpora, with a table or a network, and samples the same number of sentences. The fraction of
the optimum is that of E[r] - 0.1 KL.

Process rewards: the arithmetic task with its gold reward and beta = 0.3. The policy gradient uses
rewards to go without a baseline, and the shaped rewards of one potential.

The learning rates of the reinforcement learning methods are the best of three, chosen on corpora 0
and 1, which are not among those here.
"""

import sys
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks import study
from benchmarks.rlhf.case import DEMONSTRATIONS, Case
from minirl import preset, rlhf, train
from minirl.advantages import RewardToGo
from minirl.envs.verifiable import UNEQUAL, first_answer_correct, verifiable
from minirl.exact import sequences
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.rlhf.align import ENVIRONMENT

STUDY = study.Study(
    study.RESULTS / "search.csv",
    ("model", "method", "sentences", "corpus"),
    ("success", "hardest", "kl", "fraction"),
)
SHAPING = study.Study(
    study.RESULTS / "process_rewards.csv", ("potential", "learning_rate", "corpus"), ("fraction",)
)
CORPORA = range(400, 406)
SENTENCES = (4_000, 16_000, 64_000)
SHAPING_SENTENCES = 10_240
BETA, SHAPING_BETA = 0.1, 0.3
GROUP_SIZE = 4
# select, rounds
IMITATION = {
    "best of 4, 4 rounds": (rlhf.keep_best, 4),
    "all right, 1 round": (rlhf.keep_right, 1),
    "all right, 4 rounds": (rlhf.keep_right, 4),
}
# learning rate of a table and of a network, and beta
REINFORCEMENT: dict[str, tuple[Any, Any, float | None]] = {
    "dr-grpo": (LinearSchedule(0.1), LinearSchedule(0.01), None),
    "grpo": (LinearSchedule(0.1), LinearSchedule(0.01), BETA),
    "rloo": (100.0, 3.0, BETA),
}
FITS = {"table": rlhf.fit_table, "bigram table": rlhf.fit_bigrams, "network": rlhf.fit_network}
POTENTIALS = ("none", "value of the prompt", "reference values", "soft values", "random")


@cache
def start(corpus: int, model: str) -> rlhf.Objective:
    """The verifiable task with the fine-tuned model of a corpus, and its objective."""
    task, rng = (
        verifiable(first_answer_correct, success_rates=UNEQUAL),
        np.random.default_rng(corpus),
    )
    demonstrations = rlhf.sample_demonstrations(task, DEMONSTRATIONS, rng)
    if model == "network":
        fresh = rlhf.network_policy(task, rng)
        reference = rlhf.fine_tune_network(task, demonstrations, fresh).policy
    else:
        reference = rlhf.fine_tune(task, demonstrations).policy
    return rlhf.Objective(task, reference, task.utilities, BETA)


def imitate(
    objective: rlhf.Objective, model: str, method: str, sentences: int, seed: int
) -> Policy:
    """The policy after the last round of imitation."""
    select, rounds = IMITATION[method]
    return rlhf.rejection_sampling(
        objective.task,
        objective.reference,
        objective.rewards,
        select,
        FITS[model],
        rounds=rounds,
        groups=sentences // (rounds * GROUP_SIZE),
        group_size=GROUP_SIZE,
        rng=np.random.default_rng(seed),
    )[-1].policy


def reinforce(
    objective: rlhf.Objective, model: str, method: str, sentences: int, seed: int
) -> Policy:
    """The policy after reinforcement learning."""
    for_table, for_network, beta = REINFORCEMENT[method]
    chosen = preset(ENVIRONMENT, method)
    rate = for_network if model == "network" else for_table
    return rlhf.align(
        objective.task,
        objective.reference,
        objective.rewards,
        replace(chosen, algorithm=replace(chosen.algorithm, learning_rate=rate)),
        sentences=sentences,
        beta=beta,
        seed=seed,
    ).policy


def run(item: tuple[str, str, int, int]) -> list[str]:
    """Success rate, that of the hardest prompt, KL and fraction of the optimum of one run."""
    model, method, sentences, corpus = item
    objective = start(corpus, model)
    learn = imitate if method in IMITATION else reinforce
    policy = learn(objective, model, method, sentences, corpus)
    log_probs = sequences.response_log_probs(rlhf.log_table(objective.task, policy))
    success = (np.exp(log_probs) * objective.rewards).sum(axis=1)
    kl = objective.value(policy).kl
    fraction = objective.fraction_of_optimum(policy)
    return [study.cell(value) for value in (success.mean(), success[-1], kl, fraction)]


def wanted() -> list[tuple[str, str, int, int]]:
    """All runs. A bigram table is fitted by imitation only: policies of `align` share no rows."""
    runs = [(model, method) for model in FITS for method in IMITATION]
    runs += [(model, method) for model in ("table", "network") for method in REINFORCEMENT]
    return [(*one, n, corpus) for one in runs for n in SENTENCES for corpus in CORPORA]


# ---------------------------------------------------------------- process rewards


@cache
def gold_case(corpus: int) -> Case:
    """The arithmetic task with the fine-tuned model of a corpus."""
    return Case(np.random.default_rng(corpus), SHAPING_BETA)


def potential_of(name: str, objective: rlhf.Objective, rng: np.random.Generator) -> np.ndarray:
    """The potential (X, C) of this name."""
    table = objective.log_reference
    values = sequences.action_values(table, table, objective.rewards, 0.0)[1]
    return {
        "none": np.zeros_like(values),
        "value of the prompt": np.repeat(values[:, :1], values.shape[1], axis=1),
        "reference values": values,
        "soft values": rlhf.soft_values(objective),
        "random": 3 * rng.normal(size=values.shape),
    }[name]


def shape(item: tuple[str, float, int]) -> list[str]:
    """The fraction of the optimum after a run of the policy gradient with one potential."""
    name, rate, corpus = item
    case = gold_case(corpus)
    potential = potential_of(name, case.objective, np.random.default_rng(corpus))
    first = rlhf.ReferenceKL(case.reference, SHAPING_BETA)
    chosen = preset(ENVIRONMENT, "policy-gradient")
    result = train(
        partial(rlhf.TokenGenerationVectorEnv, task=case.task, rewards=case.gold),
        replace(chosen.algorithm, learning_rate=rate),
        total_episodes=SHAPING_SENTENCES,
        settings=replace(
            chosen.settings,
            advantages=RewardToGo(discount=1.0),
            reward_transform=rlhf.PotentialShaping(case.task, potential, first),
        ),
        policy=case.reference,
        seed=corpus,
        progress=False,
    )
    return [study.cell(case.objective.fraction_of_optimum(result.policy))]


def shaping_wanted() -> list[tuple[str, float, int]]:
    """All runs of the second study."""
    return [(name, rate, c) for name in POTENTIALS for rate in (3.0, 10.0, 30.0) for c in CORPORA]


# ---------------------------------------------------------------- tables


def search_table() -> str:
    """The table of the first study."""
    groups = study.grouped(STUDY.rows(), "model", "method")
    rows = []
    for (model, method), group in groups.items():
        by_budget = study.grouped(group, "sentences")
        fractions = [
            study.iqm_with_interval(study.numbers(by_budget[str(n)], "fraction"), ".3f")
            for n in SENTENCES
        ]
        middle = by_budget[str(SENTENCES[1])]
        others = [np.mean(study.numbers(middle, name)) for name in ("success", "hardest", "kl")]
        rows.append([model, method, *fractions, *(f"{value:.3f}" for value in others)])
    head = ["model", "method", *(f"{n:,}" for n in SENTENCES), "success", "hardest prompt", "KL"]
    return study.markdown(head, rows)


def shaping_table() -> str:
    """The table of the second study."""
    groups = study.grouped(SHAPING.rows(), "potential", "learning_rate")
    rates = ("3.0", "10.0", "30.0")
    rows = [
        [
            name,
            *(
                study.iqm_with_interval(study.numbers(groups[name, rate], "fraction"), ".3f")
                for rate in rates
            ),
        ]
        for name in POTENTIALS
    ]
    return study.markdown(["potential", *(f"rate {float(rate):g}" for rate in rates)], rows)


def table() -> str:
    """Both tables."""
    return study.titled({"Search": search_table(), "Process rewards": shaping_table()})


if __name__ == "__main__":
    if "--table" not in sys.argv:
        SHAPING.complete(shape, shaping_wanted())
    study.main(__doc__, STUDY, run, wanted, table, parallel=False)
