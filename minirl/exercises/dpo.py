"""Checks of notebook 10: DPO's loop and loss, labels that are flipped, the reward of an optimum."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, log_expit, log_softmax, logit

from minirl.distributions import Categorical
from minirl.envs.token_tasks import Paths
from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare, compare_function
from minirl.networks import Table
from minirl.policy import Policy
from minirl.rlhf import dpo

__all__ = ["dpo_loop", "dpo_loss", "margin_with_flips", "recovered_reward", "unchanged"]

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


def dpo_loop(answer: Callable[..., Any]) -> Verdict:
    """`answer(reference_logits, first, second, labels, beta, rate, steps)`: logits (N,) after DPO.

    One prompt with N responses and a softmax policy over whole responses, which starts at the
    reference. `first` and `second` (M,) are the numbers of the responses of M pairs, `labels` (M,)
    the probabilities that the first is preferred. Each step uses all pairs and is plain gradient
    descent on the mean loss.
    """

    def exact(
        reference_logits: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        labels: np.ndarray,
        beta: float,
        rate: float,
        steps: int,
    ) -> np.ndarray:
        size = len(reference_logits)
        policy = Policy(Table(1, size), Categorical, reference_logits)
        zeros, valid = np.zeros((len(first), 1), np.int64), np.ones((len(first), 1), dtype=bool)
        one, two = (Paths(zeros, side[:, None], valid) for side in (first, second))
        margins = reference_logits[first] - reference_logits[second]
        method = dpo.DPO(beta=beta)
        for _ in range(steps):
            _, gradient, _ = method.loss_and_gradient(policy, one, two, margins, labels)
            policy = policy.with_parameters(policy.parameters - rate * gradient)
        return policy.parameters

    def by_hand(
        with_reference: bool = True, factor: Callable[[float, int], float] | None = None
    ) -> Callable[..., np.ndarray]:
        """The same loop, without the reference or with another factor in front of the gradient."""

        def loop(
            reference_logits: np.ndarray,
            first: np.ndarray,
            second: np.ndarray,
            labels: np.ndarray,
            beta: float,
            rate: float,
            steps: int,
        ) -> np.ndarray:
            logits = reference_logits.copy()
            start = reference_logits if with_reference else np.zeros(len(logits))
            scale = factor(beta, len(first)) if factor else beta / len(first)
            for _ in range(steps):
                change = logits - start
                slopes = scale * (expit(beta * (change[first] - change[second])) - labels)
                np.add.at(logits, first, -rate * slopes)
                np.add.at(logits, second, rate * slopes)
            return logits

        return loop

    rng = np.random.default_rng(1)
    cases = []
    for beta, steps in ((0.3, 1), (0.5, 20)):
        first = rng.integers(5, size=8)
        second = (first + rng.integers(1, 5, size=8)) % 5
        labels = rng.random(8) if steps > 1 else rng.integers(2, size=8).astype(float)
        cases.append((rng.normal(size=5), first, second, labels, beta, 2.0, steps))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "the reference is missing: the margin is beta times a difference of log-ratios "
            "log(pi / pi_ref), not of log-probabilities": by_hand(with_reference=False),
            "beta is missing in the gradient: the margin is beta times a difference of log-ratios, "
            "so its derivative has the factor beta": by_hand(factor=lambda beta, pairs: 1 / pairs),
            "the sign is wrong: the loss increases along these steps": by_hand(
                factor=lambda beta, pairs: -beta / pairs
            ),
            "this is the gradient of the sum over pairs; the loss is the mean": by_hand(
                factor=lambda beta, pairs: beta
            ),
            "nothing has changed: return the logits after the steps": lambda *case: case[0],
        },
    )


def dpo_loss(answer: Callable[..., Any]) -> Verdict:
    """`answer(margins, labels)`: the DPO loss of M pairs, a finite number for any finite margins.

    The last case contains margins of 1,000 and -1,000, which overflow in `np.exp`.
    """

    def naive(margins: np.ndarray, labels: np.ndarray) -> float:
        with np.errstate(all="ignore"):
            sigmoid = 1 / (1 + np.exp(-margins))
            return -float((labels * np.log(sigmoid) + (1 - labels) * np.log1p(-sigmoid)).mean())

    def infinite(margins: np.ndarray, labels: np.ndarray) -> float:
        return float("inf") if np.abs(margins).max() > 700 else loss(margins, labels)

    def loss(margins: np.ndarray, labels: np.ndarray) -> float:
        return dpo.dpo_loss(margins, labels)[0]

    rng = np.random.default_rng(2)
    soft = 3 * rng.normal(size=5), rng.random(5)
    hard = np.array([1000.0, -1000.0, 0.5, -1000.0]), np.array([1.0, 0.0, 1.0, 1.0])
    return compare_function(
        answer,
        loss,
        [soft, hard],
        mistakes={
            "np.exp overflows at a margin of 1,000, and 0 times infinity is NaN; compute the log "
            "of the sigmoid by scipy.special.log_expit or np.logaddexp": naive,
            "the loss is infinite, because np.exp overflows at -1,000, where the log of "
            "the sigmoid is -1,000; use scipy.special.log_expit or np.logaddexp": infinite,
            "this treats every first answer as the chosen one; use the labels": (
                lambda margins, labels: -float(log_expit(margins).mean())
            ),
            "the labels are exchanged: p belongs to the first answer": (
                lambda margins, labels: loss(margins, 1 - labels)
            ),
            "this is the mean log-likelihood; the loss is its negative": (
                lambda margins, labels: -loss(margins, labels)
            ),
            "this is the sum over pairs; the loss is the mean": (
                lambda margins, labels: loss(margins, labels) * len(margins)
            ),
        },
    )


def margin_with_flips(answer: Callable[..., Any]) -> Verdict:
    """`answer(differences, flips)`: the margins (M,) at which DPO's loss of each pair is smallest.

    The annotator's verdict follows Bradley-Terry with the reward differences r_1 - r_2 (M,), and is
    then turned round with probability `flips`, below 1/2.
    """

    def label(differences: np.ndarray, flips: float) -> np.ndarray:
        return np.asarray((1 - flips) * expit(differences) + flips * expit(-differences))

    rng = np.random.default_rng(3)
    return compare_function(
        answer,
        lambda differences, flips: logit(label(differences, flips)),
        [(2 * rng.normal(size=4), 0.1), (3 * rng.normal(size=6), 0.3)],
        mistakes={
            "this is the label p, a probability; the margin is where sigmoid(margin) = p": label,
            "flips change the minimum: the labels are no longer sigmoid(r_1 - r_2)": (
                lambda differences, flips: differences
            ),
            "the label shrinks towards 1/2, but the margin does not shrink by the same factor": (
                lambda differences, flips: (1 - 2 * flips) * differences
            ),
            "the sign is wrong: the first answer has the probability p": (
                lambda differences, flips: -logit(label(differences, flips))
            ),
            "an unflipped verdict for the second answer does not count for the first: the label is "
            "(1 - flips) sigmoid(d) + flips sigmoid(-d)": (
                lambda differences, flips: logit((1 - flips) * expit(differences))
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
