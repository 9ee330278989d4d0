"""Checks of notebook 13: the weight of a prompt, token weights, MaxRL, resampled prompts."""

from collections.abc import Callable
from math import comb
from typing import Any

import numpy as np

from minirl.exact.groups import normalized_weight, silent_share
from minirl.exercises.verdict import Verdict, compare_function

__all__ = ["weight_of_a_prompt", "token_weights", "success_normalized", "resampled_shares"]


def _expected_deviation(p: float, group_size: int) -> float:
    """E[sqrt(f (1 - f))] for f = m / K, m ~ Binomial(K, p)."""
    return sum(
        comb(group_size, m)
        * p**m
        * (1 - p) ** (group_size - m)
        * np.sqrt(m / group_size * (1 - m / group_size))
        for m in range(group_size + 1)
    )


def weight_of_a_prompt(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(p, K) -> w(p, K)``."""

    def exact(p: float, group_size: int) -> float:
        return float(normalized_weight(p, group_size))

    def not_divided(p: float, group_size: int) -> float:
        """This is the expected standard deviation; divide it by p (1 - p)."""
        return _expected_deviation(p, group_size)

    def limit(p: float, group_size: int) -> float:
        """This is the limit for large groups; for K answers, take the mean over m."""
        return float((p * (1 - p)) ** -0.5)

    def sample_deviation(p: float, group_size: int) -> float:
        """This divides by the sample deviation (divisor K - 1); divide by that with divisor K."""
        return exact(p, group_size) * float(np.sqrt((group_size - 1) / group_size))

    def without_division(p: float, group_size: int) -> float:
        """This is the mean of f (1 - f); the deviation is its square root, in each group."""
        return 1 - 1 / group_size

    def root_of_the_mean(p: float, group_size: int) -> float:
        """The square root was taken after the mean over m; take it in each group, before."""
        return float(np.sqrt((1 - 1 / group_size) / (p * (1 - p))))

    return compare_function(
        answer,
        exact,
        [(0.1, 4), (0.02, 8), (0.5, 5)],
        mistakes=[not_divided, limit, sample_deviation, without_division, root_of_the_mean],
    )


def token_weights(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(lengths) -> weight (G, K) of each token``, from lengths (G, K)."""

    def exact(lengths: np.ndarray) -> np.ndarray:
        totals = lengths.sum(axis=1, keepdims=True)
        return np.broadcast_to(1 / (len(lengths) * totals), lengths.shape)

    def batch(lengths: np.ndarray) -> np.ndarray:
        """This is a mean over the tokens of the batch, as in TRL; DAPO's is per group."""
        return np.full(lengths.shape, 1 / lengths.sum())

    def response(lengths: np.ndarray) -> np.ndarray:
        """This is a mean over each answer, as in GRPO's paper."""
        return np.asarray(1 / (lengths.size * lengths))

    def answers(lengths: np.ndarray) -> np.ndarray:
        """This is a sum over tokens, averaged over answers, as in Dr. GRPO."""
        return np.full(lengths.shape, 1 / lengths.size)

    def sum_over_groups(lengths: np.ndarray) -> np.ndarray:
        """The mean over the groups is missing: divide by G too."""
        return np.asarray(exact(lengths) * len(lengths))

    def whole_answers(lengths: np.ndarray) -> np.ndarray:
        """This is the weight of a whole answer; the weight of one token was asked for."""
        return np.asarray(exact(lengths) * lengths)

    return compare_function(
        answer,
        exact,
        [(np.array([[2, 5, 3], [1, 1, 4]]),), (np.array([[3, 1], [2, 6], [4, 4]]),)],
        mistakes=[batch, response, answers, sum_over_groups, whole_answers],
    )


def success_normalized(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(rewards) -> MaxRL's advantages (G, K)``, from rewards (G, K) of 0 and 1."""

    def divided(rewards: np.ndarray, by: np.ndarray) -> np.ndarray:
        centred = rewards - rewards.mean(axis=1, keepdims=True)
        return np.divide(centred, by, out=np.zeros_like(centred), where=by > 0)

    def exact(rewards: np.ndarray) -> np.ndarray:
        return divided(rewards, rewards.mean(axis=1, keepdims=True))

    def unguarded(rewards: np.ndarray) -> np.ndarray:
        """A group without a right answer gives 0 / 0; its advantages must be 0."""
        with np.errstate(invalid="ignore"):
            return np.asarray(rewards / rewards.mean(axis=1, keepdims=True) - 1)

    def silent_groups_pushed(rewards: np.ndarray) -> np.ndarray:
        """A group without a right answer has advantages of -1 here; they must be 0."""
        means = rewards.mean(axis=1, keepdims=True)
        return np.asarray(
            np.divide(rewards, means, out=np.zeros_like(rewards), where=means > 0) - 1
        )

    def deviation(rewards: np.ndarray) -> np.ndarray:
        """This divides by the standard deviation, as GRPO does; MaxRL divides by the mean."""
        return divided(rewards, rewards.std(axis=1, keepdims=True))

    def not_centred(rewards: np.ndarray) -> np.ndarray:
        """The mean is not subtracted: this is the mean score of the right answers."""
        means = rewards.mean(axis=1, keepdims=True)
        return np.divide(rewards, means, out=np.zeros_like(rewards), where=means > 0)

    def not_divided(rewards: np.ndarray) -> np.ndarray:
        """The mean is subtracted, but the division by it is missing."""
        return np.asarray(rewards - rewards.mean(axis=1, keepdims=True))

    cases = [
        (np.array([[1.0, 0, 0, 0], [1, 1, 0, 1], [0, 0, 0, 0]]),),
        (np.array([[0.0, 0, 0], [1, 1, 1], [0, 1, 0]]),),
    ]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[unguarded, silent_groups_pushed, deviation, not_centred, not_divided],
    )


def resampled_shares(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(p, w, K) -> share (X,) of the total weight``, for prompts resampled."""

    def share(weights: np.ndarray) -> np.ndarray:
        return np.asarray(weights / weights.sum())

    def exact(p: np.ndarray, w: np.ndarray, group_size: int) -> np.ndarray:
        return share(w / (1 - silent_share(p, group_size)))

    def redrawn(p: np.ndarray, w: np.ndarray, group_size: int) -> np.ndarray:
        """These are the shares if new prompts are drawn, as in DAPO; here each prompt is kept."""
        return share(w)

    def multiplied(p: np.ndarray, w: np.ndarray, group_size: int) -> np.ndarray:
        """The weight was multiplied by the probability of a mixed group; divide by it."""
        return share(w * (1 - silent_share(p, group_size)))

    def silent(p: np.ndarray, w: np.ndarray, group_size: int) -> np.ndarray:
        """The weight was divided by the probability of a silent group; divide by 1 minus it."""
        return share(w / silent_share(p, group_size))

    def wrong_only(p: np.ndarray, w: np.ndarray, group_size: int) -> np.ndarray:
        """A group is also silent if all of its answers are right: subtract p^K too."""
        return share(w / (1 - (1 - p) ** group_size))

    def not_a_share(p: np.ndarray, w: np.ndarray, group_size: int) -> np.ndarray:
        """These are the weights; divide them by their sum."""
        return np.asarray(w / (1 - silent_share(p, group_size)))

    cases = []
    for p, group_size in (([0.02, 0.5], 8), ([0.9, 0.3, 0.1], 4)):
        rates = np.array(p)
        cases.append((rates, normalized_weight(rates, group_size), group_size))
    return compare_function(
        answer, exact, cases, mistakes=[redrawn, multiplied, silent, wrong_only, not_a_share]
    )
