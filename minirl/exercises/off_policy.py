"""Checks of notebook 14: weights of stale samples, pass@k and its gradient, entropy of a step."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import comb, log_softmax, softmax

from minirl.algorithms.ratio_objectives import sequence_log_ratios
from minirl.exact import entropy, pass_at_k
from minirl.exercises.verdict import Verdict, compare_function

__all__ = ["entropy_change", "pass_at_k_estimate", "prompt_shares", "sequence_weights"]


def sequence_weights(answer: Callable[..., Any]) -> Verdict:
    """`answer(log_policy, log_sampling, episodes)`: the unbiased weight (B,) of each token.

    `log_policy` and `log_sampling` (B,) are log-probabilities of the sampled tokens under the
    current and the older policy, and `episodes` (B,) the numbers of their responses.
    """

    def exact(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        log_ratios, _ = sequence_log_ratios(np.exp(policy - sampling), episodes)
        return np.asarray(np.exp(log_ratios)[episodes])

    def tokens(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """These are token ratios; multiply the ratios of all tokens of a response."""
        return np.asarray(np.exp(policy - sampling))

    def roots(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """This is the geometric mean of the ratios, GSPO's; the weight is their product."""
        return np.asarray(
            exact(policy, sampling, episodes) ** (1 / np.bincount(episodes)[episodes])
        )

    def inverted(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """The ratio is inverted; the current policy belongs in the numerator."""
        return 1 / exact(policy, sampling, episodes)

    def summed(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """The ratios of a response are added; multiply them, or add their logarithms."""
        return np.asarray(np.bincount(episodes, np.exp(policy - sampling))[episodes])

    def logarithm(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """This is the logarithm of the weight; the exponential is missing."""
        return np.asarray(np.log(exact(policy, sampling, episodes)))

    def prefixes(policy: np.ndarray, sampling: np.ndarray, episodes: np.ndarray) -> np.ndarray:
        """This is the product of the ratios up to the token; later tokens belong to it too, because
        the reward depends on them.
        """
        weights = np.empty(len(policy))
        for episode in np.unique(episodes):
            rows = episodes == episode
            weights[rows] = np.exp(np.cumsum((policy - sampling)[rows]))
        return weights

    rng = np.random.default_rng(0)
    return compare_function(
        answer,
        exact,
        [
            (-rng.exponential(size=6), -rng.exponential(size=6), np.array([0, 0, 0, 1, 1, 2])),
            (-rng.exponential(size=5), -rng.exponential(size=5), np.array([0, 1, 1, 1, 1])),
        ],
        mistakes=[tokens, roots, inverted, summed, logarithm, prefixes],
    )


def pass_at_k_estimate(answer: Callable[..., Any]) -> Verdict:
    """`answer(n, c, k)`: the unbiased estimate of pass@k from n answers of which c are right."""

    def exact(n: int, c: int, k: int) -> float:
        return float(pass_at_k.pass_at_k_estimate(n, c, k))

    def plain(n: int, c: int, k: int) -> float:
        """Inserting c/n for p gives an estimate that is too small on average; count the subsets of
        k answers.
        """
        return float(1 - (1 - c / n) ** k)

    def failed(n: int, c: int, k: int) -> float:
        """This is the share of the subsets without a right answer; subtract it from 1."""
        return float(comb(n - c, k) / comb(n, k))

    def all_right(n: int, c: int, k: int) -> float:
        """This is the share of the subsets with right answers only; one right answer is enough."""
        return float(comb(c, k) / comb(n, k))

    return compare_function(
        answer,
        exact,
        [(4, 1, 2), (10, 3, 4), (5, 4, 3), (6, 0, 2)],
        mistakes=[plain, failed, all_right],
    )


def entropy_change(answer: Callable[..., Any]) -> Verdict:
    """`answer(logits, advantages, eta)`: first-order change of the entropy in a natural step.

    The logits (V,) move by ``eta advantages``.
    """

    def exact(logits: np.ndarray, advantages: np.ndarray, eta: float) -> float:
        return float(eta * entropy.entropy_slope(log_softmax(logits), advantages))

    def risen(logits: np.ndarray, advantages: np.ndarray, eta: float) -> float:
        """The sign is wrong: the entropy falls if likely actions are the better ones."""
        return -exact(logits, advantages, eta)

    def uncentred(logits: np.ndarray, advantages: np.ndarray, eta: float) -> float:
        """This is the mean of a product, not a covariance; subtract the product of the means."""
        log_policy = log_softmax(logits)
        return float(-eta * np.exp(log_policy) @ (log_policy * advantages))

    def unweighted(logits: np.ndarray, advantages: np.ndarray, eta: float) -> float:
        """The covariance is under the policy: each action counts with its probability."""
        log_policy = log_softmax(logits)
        return float(-eta * np.cov(log_policy, advantages, ddof=0)[0, 1])

    def vanilla(logits: np.ndarray, advantages: np.ndarray, eta: float) -> float:
        """This is the change in a plain gradient step, whose direction is pi times A; in a natural
        gradient step the direction is A.
        """
        return exact(logits, softmax(logits) * advantages, eta)

    def without_logarithm(logits: np.ndarray, advantages: np.ndarray, eta: float) -> float:
        """This is the covariance with pi; it must be the one with log pi."""
        policy = softmax(logits)
        return float(-eta * policy @ (policy * (advantages - policy @ advantages)))

    rng = np.random.default_rng(1)
    return compare_function(
        answer,
        exact,
        [
            (rng.normal(size=4), rng.normal(size=4), 0.1),
            (2 * rng.normal(size=6), np.ones(6), 0.5),
            (rng.normal(size=3), rng.normal(size=3), 1.0),
        ],
        mistakes=[risen, uncentred, unweighted, vanilla, without_logarithm],
    )


def prompt_shares(answer: Callable[..., Any]) -> Verdict:
    """`answer(p, k)`: the share (X,) of each prompt's weight in the gradient of mean pass@k."""

    def shares(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights / weights.sum())

    def exact(p: np.ndarray, k: int) -> np.ndarray:
        return shares(k * (1 - p) ** (k - 1))

    def one_power_more(p: np.ndarray, k: int) -> np.ndarray:
        """The power is k - 1: the derivative of (1 - p)^k lowers it by one."""
        return shares((1 - p) ** k)

    def values(p: np.ndarray, k: int) -> np.ndarray:
        """These are shares of pass@k itself; differentiate it with respect to p."""
        return shares(pass_at_k.pass_at_k(p, k))

    def equal(p: np.ndarray, k: int) -> np.ndarray:
        """All prompts count alike only for k = 1."""
        return shares(np.ones(len(p)))

    def not_shares(p: np.ndarray, k: int) -> np.ndarray:
        """These are the weights; divide them by their sum."""
        return np.asarray(k * (1 - p) ** (k - 1))

    return compare_function(
        answer,
        exact,
        [(np.array([0.9, 0.5, 0.1, 0.02]), 4), (np.array([0.3, 0.6]), 2)],
        mistakes=[one_power_more, values, equal, not_shares],
    )
