"""Checks of notebook 10: implicit reward, DPO loss, its derivative, the reward of an optimum."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_softmax

from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare, compare_function
from minirl.rlhf import dpo

__all__ = ["implicit_reward", "dpo_loss", "margin_slopes", "recovered_reward", "unchanged"]

BETA = 0.3
# Exercise 5: the change of a table of rewards (X, N) and of beta for each letter.
CHANGES: dict[str, Callable[[np.ndarray, float], tuple[np.ndarray, float]]] = {
    "A": lambda rewards, beta: (rewards + np.arange(1.0, 1.0 + len(rewards))[:, None], beta),
    "B": lambda rewards, beta: (2 * rewards, beta),
    "C": lambda rewards, beta: (rewards + np.arange(rewards.shape[1]) % 3, beta),
    "D": lambda rewards, beta: (2 * rewards, 2 * beta),
}


def _language() -> tuple[np.ndarray, np.ndarray]:
    """A reference (X, C, V) and rewards (X, N): 2 prompts, 3 words, responses of at most 2."""
    rng = np.random.default_rng(0)
    return log_softmax(rng.normal(size=(2, 4, 4)), axis=2), rng.normal(size=(2, 13))


def _optimum(log_reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    log_policy, _ = sequences.soft_optimal_policy(log_reference, rewards, beta)
    return sequences.response_log_probs(log_policy)


def implicit_reward(answer: Callable[..., Any]) -> Verdict:
    """`answer(log_probs, reference_log_probs, beta)`: implicit rewards (M,) of M responses.

    `log_probs` are log pi(y|x) (M,), `reference_log_probs` log pi_ref(y|x) (M,), in nats.
    """
    rng = np.random.default_rng(1)
    return compare_function(
        answer,
        lambda log_policy, reference, beta: beta * (log_policy - reference),
        [(np.log(rng.random(4)), np.log(rng.random(4)), beta) for beta in (0.1, 0.3, 2.0)],
        mistakes={
            "the ratio is inverted: a response that becomes more likely has a higher reward": (
                lambda log_policy, reference, beta: beta * (reference - log_policy)
            ),
            "beta is missing: the log-ratio alone is r / beta": lambda log_policy, ref, beta: (
                log_policy - ref
            ),
            "this divides by beta; it should multiply by beta": lambda log_policy, ref, beta: (
                (log_policy - ref) / beta
            ),
        },
    )


def dpo_loss(answer: Callable[..., Any]) -> Verdict:
    """`answer(chosen, rejected, beta)`: the DPO loss of M hard labels, a number.

    `chosen` and `rejected` are the log-ratios log(pi / pi_ref) of both answers, (M,) each.
    """

    def loss(margins: np.ndarray) -> float:
        return dpo.dpo_loss(margins, np.ones(len(margins)))[0]

    rng = np.random.default_rng(2)
    return compare_function(
        answer,
        lambda chosen, rejected, beta: loss(beta * (chosen - rejected)),
        [(3 * rng.normal(size=5), 3 * rng.normal(size=5), beta) for beta in (0.1, 0.3)],
        mistakes={
            "beta is missing: the margin is a difference of implicit rewards": (
                lambda chosen, rejected, beta: loss(chosen - rejected)
            ),
            "this prefers the rejected answers": (
                lambda chosen, rejected, beta: loss(beta * (rejected - chosen))
            ),
            "this is the mean log-likelihood; the loss is its negative": (
                lambda chosen, rejected, beta: -loss(beta * (chosen - rejected))
            ),
            "this is the sum over pairs; the loss is the mean": (
                lambda chosen, rejected, beta: -log_expit(beta * (chosen - rejected)).sum()
            ),
        },
    )


def margin_slopes(answer: Callable[..., Any]) -> Verdict:
    """`answer(margins, labels)`: the derivative of the DPO loss with respect to M margins (M,).

    `labels` (M,) in [0, 1] are the probabilities that the first answer is preferred.
    """
    rng = np.random.default_rng(3)
    return compare_function(
        answer,
        lambda margins, labels: dpo.dpo_loss(margins, labels)[1],
        [(rng.normal(size=4), np.eye(4)[0]), (3 * rng.normal(size=6), rng.random(6))],
        mistakes={
            "the sign is wrong: the loss decreases along this vector": (
                lambda margins, labels: -dpo.dpo_loss(margins, labels)[1]
            ),
            "the loss is a mean: each pair has the weight 1/M": (
                lambda margins, labels: expit(margins) - labels
            ),
            "this treats every first answer as the chosen one; use the labels": (
                lambda margins, labels: -expit(-margins) / len(margins)
            ),
        },
    )


def recovered_reward(answer: Callable[..., Any]) -> Verdict:
    """`answer(log_optimum, log_reference, beta)`: rewards (X, N) of which pi* is the optimum.

    The arguments are log pi*(y|x) and log pi_ref(y|x) of all responses, (X, N) each. The rewards
    must have mean 0 under pi_ref for each prompt.
    """
    log_reference, rewards = _language()
    log_probs = sequences.response_log_probs(log_reference)

    def mean(table: np.ndarray) -> np.ndarray:
        return np.asarray((np.exp(log_probs) * table).sum(axis=1, keepdims=True))

    def implicit(optimum: np.ndarray, reference: np.ndarray, beta: float) -> np.ndarray:
        return np.asarray(beta * (optimum - reference))

    return compare_function(
        answer,
        lambda *_: rewards - mean(rewards),
        [(_optimum(log_reference, rewards, beta), log_probs, beta) for beta in (BETA, 2.0)],
        mistakes={
            "the constants are still included: the mean under pi_ref is not 0": implicit,
            "this is centred on the unweighted mean; use the mean under pi_ref": (
                lambda *case: implicit(*case) - implicit(*case).mean(axis=1, keepdims=True)
            ),
            "this subtracts the same constant for all prompts, but Z depends on x": (
                lambda *case: implicit(*case) - mean(implicit(*case)).mean()
            ),
        },
    )


def unchanged(answer: Any) -> Verdict:
    """Which changes of reward and beta do not change pi*: letters of `CHANGES`, such as "BC"."""
    log_reference, rewards = _language()
    before = _optimum(log_reference, rewards, BETA)
    after = {key: _optimum(log_reference, *CHANGES[key](rewards, BETA)) for key in CHANGES}
    unchanged = {key for key in CHANGES if np.allclose(after[key], before)}
    if isinstance(answer, (list, tuple, set)) and all(isinstance(part, str) for part in answer):
        answer = "".join(answer)
    if not isinstance(answer, str):
        return compare(answer, "")
    named = set(answer.upper()) - set(" ,")
    mistakes = {
        "twice the rewards at the same beta make the KL penalty half as important": "B" in named,
        "C adds something that differs between answers to one prompt": "C" in named,
        "one more change keeps every difference within a prompt, divided by beta": (
            named < unchanged
        ),
    }
    hints = {hint: "".join(sorted(named)) for hint, made in mistakes.items() if made}
    return compare("".join(sorted(named)), "".join(sorted(unchanged)), mistakes=hints)
