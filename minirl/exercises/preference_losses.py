"""Checks of notebook 15: preference losses, rounds of imitation, shaped rewards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.optimize
from scipy.special import expit, log_softmax, logsumexp

from minirl.exercises.verdict import Verdict, compare_function
from minirl.rlhf.preference_losses import APOZero, PairLogProbs

__all__ = [
    "apo_zero",
    "robust_labels",
    "simpo_minimiser",
    "success_after_rounds",
    "shaped_rewards",
]


def apo_zero(answer: Callable[..., Any]) -> Verdict:
    """`answer(log_ratios, beta)`: derivatives (2, M) of APO zero's mean loss.

    `log_ratios` (2, M) contains those of the winners in row 0 and those of the losers in row 1. The
    loss of a pair is 1 - sigmoid(beta h_w) + sigmoid(beta h_l).
    """

    def exact(log_ratios: np.ndarray, beta: float) -> np.ndarray:
        pairs = log_ratios.shape[1]
        table = PairLogProbs(
            log_ratios, np.zeros(log_ratios.shape), np.ones((2, pairs), int), np.ones(pairs)
        )
        return APOZero().evaluate(table, beta).d_log_probs

    def without_beta(log_ratios: np.ndarray, beta: float) -> np.ndarray:
        """The factor beta is missing: h is multiplied by beta inside the sigmoid."""
        return exact(log_ratios, beta) / beta

    def summed(log_ratios: np.ndarray, beta: float) -> np.ndarray:
        """This is the derivative of the sum over pairs; the loss is the mean."""
        return exact(log_ratios, beta) * log_ratios.shape[1]

    def uphill(log_ratios: np.ndarray, beta: float) -> np.ndarray:
        """The signs are wrong: gradient descent must raise the winner and lower the loser."""
        return -exact(log_ratios, beta)

    def of_log_sigmoid(log_ratios: np.ndarray, beta: float) -> np.ndarray:
        """This is the derivative of the logarithm of the sigmoid, as in DPO; here there is none."""
        winner, loser = expit(beta * log_ratios)
        return np.array([winner - 1, loser]) * beta / log_ratios.shape[1]

    rng = np.random.default_rng(0)
    return compare_function(
        answer,
        exact,
        [(rng.normal(size=(2, 3)), 0.5), (2 * rng.normal(size=(2, 5)), 2.0)],
        mistakes=[without_beta, summed, uphill, of_log_sigmoid],
    )


def robust_labels(answer: Callable[..., Any]) -> Verdict:
    """`answer(labels, flips)`: labels (M,) with which DPO's loss is robust DPO's."""

    def exact(labels: np.ndarray, flips: float) -> np.ndarray:
        return np.asarray((labels - flips) / (1 - 2 * flips))

    def repeated(labels: np.ndarray, flips: float) -> np.ndarray:
        """This is conservative DPO: it flips the labels once more instead of undoing the flips."""
        return np.asarray((1 - flips) * labels + flips * (1 - labels))

    def clipped(labels: np.ndarray, flips: float) -> np.ndarray:
        """Do not clip: the expectation over flips is right only if labels may leave [0, 1]."""
        return np.clip(exact(labels, flips), 0, 1)

    def not_divided(labels: np.ndarray, flips: float) -> np.ndarray:
        """Flips shrink the distance of two labels by 1 - 2 flips; divide by this factor."""
        return labels - flips

    rng = np.random.default_rng(1)
    return compare_function(
        answer,
        exact,
        [(rng.random(4), 0.1), (np.array([0.0, 1.0, 0.5]), 0.3)],
        mistakes=[repeated, clipped, not_divided],
    )


def simpo_minimiser(answer: Callable[..., Any]) -> Verdict:
    """`answer(rewards, lengths, beta)`: probabilities (N,) at the minimum of SimPO with gamma 0."""

    def exact(rewards: np.ndarray, lengths: np.ndarray, beta: float) -> np.ndarray:
        def log_probs(c: float) -> np.ndarray:
            return np.asarray(lengths * (rewards + c) / beta)

        return np.exp(log_probs(scipy.optimize.brentq(lambda c: logsumexp(log_probs(c)), -99, 99)))

    def normalised_last(rewards: np.ndarray, lengths: np.ndarray, beta: float) -> np.ndarray:
        """The constant belongs inside the bracket: it is multiplied by the length, so dividing by
        the sum at the end gives another policy.
        """
        return np.exp(log_softmax(lengths * rewards / beta))

    def without_lengths(rewards: np.ndarray, lengths: np.ndarray, beta: float) -> np.ndarray:
        """The lengths are missing: the margin divides log pi by the number of tokens."""
        return np.exp(log_softmax(rewards / beta))

    def divided(rewards: np.ndarray, lengths: np.ndarray, beta: float) -> np.ndarray:
        """The length multiplies the reward: solve beta log pi / |y| = r + c for log pi."""
        return exact(rewards, 1 / lengths, beta)

    rng = np.random.default_rng(2)
    return compare_function(
        answer,
        exact,
        [
            (rng.normal(size=4), np.array([1, 2, 3, 3]), 2.0),
            (rng.normal(size=6), np.array([1, 1, 2, 4, 5, 5]), 4.0),
        ],
        mistakes=[normalised_last, without_lengths, divided],
    )


def success_after_rounds(answer: Callable[..., Any]) -> Verdict:
    """`answer(p, K, rounds)`: the success rate after rounds of keeping the best of K and fitting.

    The rewards are 0 and 1, the first policy succeeds with probability p, each round has infinitely
    many samples, and the table represents every distribution exactly.
    """

    def exact(p: float, K: int, rounds: int) -> float:
        return 1 - (1 - p) ** (K**rounds)

    def added(p: float, K: int, rounds: int) -> float:
        """The numbers of samples multiply from round to round; they do not add up."""
        return 1 - (1 - p) ** (K * rounds)

    def once(p: float, K: int, rounds: int) -> float:
        """This is the success rate after one round."""
        return 1 - (1 - p) ** K

    def failure(p: float, K: int, rounds: int) -> float:
        """This is the probability that all samples are wrong; return that of a success."""
        return float((1 - p) ** (K**rounds))

    def first_order(p: float, K: int, rounds: int) -> float:
        """This is the approximation for a small p; two samples of a group may both be right."""
        return p * K**rounds

    cases = [(0.02, 4, 3), (0.3, 2, 2), (0.1, 5, 1), (0.013, 4, 4)]
    return compare_function(answer, exact, cases, mistakes=[added, once, failure, first_order])


def shaped_rewards(answer: Callable[..., Any]) -> Verdict:
    """`answer(rewards, potential, done)`: shaped rewards (T,) of one column of a rollout.

    `potential` (T,) holds Phi of the context in which each token was chosen, and `done` (T,)
    whether the sentence ended with this token. The last token ends a sentence. The shaping must
    keep the optimum.
    """

    def shaped(
        rewards: np.ndarray,
        potential: np.ndarray,
        done: np.ndarray,
        *,
        following: float = 1.0,
        current: float = 1.0,
        at_end: float = 0.0,
    ) -> np.ndarray:
        after = np.append(potential[1:], 0.0)
        after = np.where(done, at_end * potential, after)
        return rewards + following * after - current * potential

    def exact(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        return shaped(rewards, potential, done)

    def across_the_end(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """After the last token of a sentence the potential is 0; this uses the next sentence's."""
        return rewards + np.append(potential[1:], 0.0) - potential

    def kept(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """After the last token of a sentence the potential is 0; this keeps the last context's."""
        return shaped(rewards, potential, done, at_end=1.0)

    def reversed_sign(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """The sign is wrong: Phi of what follows is added, and Phi of the context subtracted."""
        return 2 * rewards - shaped(rewards, potential, done)

    def only_following(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Phi of the context is not subtracted; the sum over a sentence then varies."""
        return shaped(rewards, potential, done, current=0.0)

    def only_current(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """Phi of the next context is not added; the sum over a sentence then varies."""
        return shaped(rewards, potential, done, following=0.0)

    def discounted(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """The sum over a sentence is not discounted, so Phi of what follows must not be either."""
        return shaped(rewards, potential, done, following=0.99)

    def replaced(rewards: np.ndarray, potential: np.ndarray, done: np.ndarray) -> np.ndarray:
        """The rewards themselves are missing: shaping is added to them."""
        return shaped(0 * rewards, potential, done)

    rng = np.random.default_rng(0)
    cases = []
    for ends in ([2, 4], [0, 1, 5]):
        done = np.zeros(ends[-1] + 1, dtype=bool)
        done[ends] = True
        rewards = np.where(done, rng.normal(size=len(done)), 0.0)
        cases.append((rewards, rng.normal(size=len(done)), done))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            across_the_end,
            kept,
            reversed_sign,
            only_following,
            only_current,
            discounted,
            replaced,
        ],
    )
