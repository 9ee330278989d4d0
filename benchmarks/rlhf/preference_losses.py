"""Ten preference losses on a table and a network: reward, KL, length, gap below the frontier.

    python -m benchmarks.rlhf.preference_losses                  (about 3 minutes of CPU time)
    python -m benchmarks.rlhf.preference_losses --table          (tables of the page)
    python -m benchmarks.rlhf.preference_losses --figure FILE    (figure of the page)

The page is docs/rlhf/preference-losses.md. Each seed has its own demonstrations, references, pairs
and judgements (hard labels). Every policy is evaluated exactly over all responses, under the gold
reward. A run takes 150 steps of at most 512 pairs. One row per run:

study           "losses": an unbiased annotator. "flips": a fifth of the labels are turned round,
                and the losses know it. "length": the annotator adds 0.5 to the utility for each
                token. "online": pairs are drawn from the current policy, a 150th of them per step
model           "table": full prefixes, fine-tuned bigram. "network": MLP of features, fine-tuned
fraction        (J - J_ref) / (J* - J_ref) with the KL's coefficient 0.3, under the gold reward
gap             reward of the exact frontier at the same KL, minus the policy's reward
tokens          mean length of a response, EOS included
unseen          probability of the responses that occur in no pair; empty for online runs
"""

from functools import cache
from pathlib import Path

import numpy as np

from benchmarks import study
from benchmarks.study import Row
from minirl import rlhf
from minirl.exact import sequences
from minirl.experiments.statistics import with_interval
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.rlhf.language_model import network_policy
from minirl.rlhf.preference_losses import ConservativeDPO, PreferenceLoss, RobustDPO
from minirl.rlhf.sft_network import fine_tune_network

PRICE = 0.3  # reward per nat of KL, in the objective J
SEEDS = range(200, 203)
MODELS = "table", "network"
PAIRS = 300, 3_000, 30_000
STEPS = 150
FLIPS = 0.2
PER_TOKEN = 0.5
# Chosen on seed 20 with 3,000 pairs: of three betas, the one with the best mean over both models;
# of 75, 150 and 300 steps for offline DPO, the best; of two rates for online DPO, the better.
BETAS = {
    "dpo": 0.3,
    "conservative-dpo": 0.3,
    "robust-dpo": 0.3,
    "ipo": 0.1,
    "simpo": 1.2,
    "chi-po": 0.1,
    "orpo": 8.0,
    "kto": 0.3,
    "apo-zero": 0.3,
    "apo-down": 3.0,
}
RATES = {"table": 0.1, "network": 0.005}
ONLINE_RATES = {"table": 0.2, "network": 0.01}
WITH_FLIPS: dict[str, str | PreferenceLoss] = {
    "dpo": "dpo",
    "conservative-dpo": ConservativeDPO(FLIPS),
    "robust-dpo": RobustDPO(FLIPS),
}
KEY = ("study", "model", "loss", "pairs", "seed")
VALUES = ("fraction", "reward", "kl", "gap", "tokens", "unseen")
STUDY = study.Study(study.RESULTS / "preference_losses.csv", KEY, VALUES)
Item = tuple[str, str, str, int, int]


@cache
def objective(model: str, seed: int) -> rlhf.Objective:
    """The objective whose reference is this model, fine-tuned on the demonstrations of a seed."""
    task, rng = rlhf.arithmetic(), np.random.default_rng([seed, 0])
    demonstrations = rlhf.sample_demonstrations(task, 2_000, rng)
    if model == "table":
        reference = rlhf.fine_tune(task, demonstrations).policy
    else:
        fresh = network_policy(task, np.random.default_rng([seed, 1]))
        reference = fine_tune_network(task, demonstrations, fresh).policy
    return rlhf.Objective(task, reference, task.utilities, PRICE)


@cache
def frontier(model: str, seed: int) -> sequences.Frontier:
    """Reward and KL of the optimal policies of many coefficients."""
    of = objective(model, seed)
    return sequences.reward_kl_frontier(of.log_reference, of.rewards, np.geomspace(0.01, 100, 200))


def items() -> list[Item]:
    """All runs."""
    runs = [("losses", model, loss, n) for loss in BETAS for model in MODELS for n in PAIRS]
    runs += [("flips", model, loss, n) for loss in WITH_FLIPS for model in MODELS for n in PAIRS]
    runs += [("length", model, loss, 3_000) for loss in BETAS for model in MODELS]
    runs += [("online", model, "dpo", n) for model in MODELS for n in PAIRS]
    return [(*run, seed) for seed in SEEDS for run in runs]


def learn(item: Item) -> tuple[Policy, rlhf.Preferences | None]:
    """The policy of a run, and its pairs if they were fixed beforehand."""
    kind, model, name, count, seed = item
    of = objective(model, seed)
    annotator = rlhf.Annotator(flip=FLIPS if kind == "flips" else 0.0)
    per_token = PER_TOKEN if kind == "length" else 0.0
    utilities = rlhf.length_biased(of.task, of.rewards, per_token)
    method = rlhf.DPO(
        beta=BETAS[name],
        loss=WITH_FLIPS[name] if kind == "flips" else name,
        steps=STEPS,
        learning_rate=LinearSchedule((ONLINE_RATES if kind == "online" else RATES)[model]),
    )
    rng = np.random.default_rng([seed, count])
    if kind == "online":
        fresh = rlhf.FreshPairs(of.task, annotator, utilities, count // STEPS)
        return method.fit(of.task, of.reference, fresh, rng).policy, None
    pairs = rlhf.sample_pairs(of.task, of.reference, count, rng)
    preferences = annotator.hard(pairs, utilities, rng)
    return method.fit(of.task, of.reference, preferences, rng).policy, preferences


def run(item: Item) -> list[str]:
    """Learn and evaluate exactly: the values of a row."""
    policy, preferences = learn(item)
    of, curve = objective(item[1], item[4]), frontier(item[1], item[4])
    value = of.value(policy)
    best = np.interp(value.kl, curve.kls[::-1], curve.rewards[::-1])
    log_probs = sequences.response_log_probs(rlhf.log_table(of.task, policy))
    tokens = (np.exp(log_probs) * of.task.response_lengths).sum() / len(log_probs)
    unseen = ""
    if preferences is not None:
        unseen = f"{rlhf.probability_masses(of.task, policy, preferences)['unseen']:.4f}"
    scores = of.fraction_of_optimum(policy), value.reward, value.kl, best - value.reward, tokens
    return [*(f"{score:.4f}" for score in scores), unseen]


def mean(rows: list[Row], column: str) -> float:
    """The mean of a column over seeds."""
    return float(np.mean(study.numbers(rows, column)))


def cell(rows: list[Row], column: str, digits: int = 2) -> str:
    """Mean over seeds, with the smallest and the largest."""
    values = study.numbers(rows, column)
    return with_interval(np.mean(values), min(values), max(values), f".{digits}f")


def tables(rows: list[Row]) -> dict[str, str]:
    """The tables of the page, by title."""
    of = study.grouped(rows, "study", "model", "loss", "pairs")

    def line(kind: str, model: str, loss: str, column: str, counts: tuple[int, ...]) -> list[str]:
        return [cell(of[kind, model, loss, str(count)], column) for count in counts]

    header = [f"{count:,}, {model}" for model in MODELS for count in PAIRS]
    made = {}
    for title, column in (("Fraction of the optimum", "fraction"), ("Gap below it", "gap")):
        made[title] = study.markdown(
            ["loss", "beta", *header],
            [
                [
                    loss,
                    str(beta),
                    *(c for m in MODELS for c in line("losses", m, loss, column, PAIRS)),
                ]
                for loss, beta in BETAS.items()
            ],
        )
    made["A fifth of the labels flipped"] = study.markdown(
        ["loss", *header],
        [
            [loss, *(c for m in MODELS for c in line("flips", m, loss, "fraction", PAIRS))]
            for loss in WITH_FLIPS
        ],
    )
    made["Online and offline DPO"] = study.markdown(
        ["pairs", *header],
        [
            [name, *(c for m in MODELS for c in line(kind, m, "dpo", "fraction", PAIRS))]
            for name, kind in (("drawn beforehand", "losses"), ("drawn while learning", "online"))
        ],
    )
    made["An annotator who likes long answers"] = study.markdown(
        ["loss", *(f"{what}, {model}" for model in MODELS for what in ("fair", "biased", "gold"))],
        [
            [
                loss,
                *(
                    text
                    for m in MODELS
                    for text in (
                        *line("losses", m, loss, "tokens", (3_000,)),
                        *line("length", m, loss, "tokens", (3_000,)),
                        *line("length", m, loss, "fraction", (3_000,)),
                    )
                ),
            ]
            for loss in BETAS
        ],
    )
    return made


MARKERS = "o", "s", "^", "X", "D", "P", "v", "*", "p", "<"


def draw(path: Path) -> None:
    """Reward against KL for each loss, 3,000 labels, below the exact frontier."""
    import matplotlib.pyplot as plt

    of = study.grouped(STUDY.rows(), "study", "model", "loss", "pairs")
    figure, axes = plt.subplots(1, 2, figsize=(9, 4), sharey=True)
    for axis, model in zip(axes, MODELS, strict=True):
        curve = frontier(model, SEEDS[0])
        axis.plot(curve.kls, curve.rewards, color="0.4", lw=1.5, label="exact frontier")
        for place, (loss, marker) in enumerate(zip(BETAS, MARKERS, strict=True)):
            rows = of["losses", model, loss, "3000"]
            at = mean(rows, "kl"), mean(rows, "reward")
            axis.plot(*at, marker, color=f"C{place % 6}", ms=8, label=loss)
        axis.set(xlim=(0, 4), ylim=(1, 4), title=f"{model}, 3,000 judgements")
        axis.set_xlabel("KL to the reference (nats per sentence)")
    axes[0].set_ylabel("expected gold reward")
    axes[1].legend(fontsize=7, loc="lower right", ncols=2)
    figure.tight_layout()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    study.main(__doc__, STUDY, run, items, lambda: study.titled(tables(STUDY.rows())), draw=draw)
