"""Checks of notebook 9: best-of-n, the slope of gold, where to stop, a careful ensemble."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare_function

__all__ = ["best_of_n", "gold_slope", "best_beta", "careful_reward"]


def best_of_n(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(reference, rewards, n) -> probabilities``, all (N,); no two rewards equal."""

    def exact(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        return np.exp(sequences.best_of_n(np.log(reference)[None], rewards[None], n)[0])

    def none_is_better(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """G^n is the probability that no draw is better; subtract the probability that all draws
        are worse.
        """
        return np.array([reference[rewards <= reward].sum() ** n for reward in rewards])

    def normalised(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """G^n counts each response together with all worse ones; subtract the probability that
        all draws are worse instead of dividing by the sum.
        """
        powers = none_is_better(reference, rewards, n)
        return np.asarray(powers / powers.sum())

    def all_are_worse(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """This is the probability that all draws are worse than the response."""
        return np.array([reference[rewards < reward].sum() ** n for reward in rewards])

    def as_for_a_density(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """n p G^(n-1) holds for densities; here a response can be drawn twice."""
        return n * reference * none_is_better(reference, rewards, n - 1)

    def drawn_exactly_once(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """This is right only if exactly one draw is the response and all others are worse; the
        response can be drawn several times.
        """
        return n * reference * all_are_worse(reference, rewards, n - 1)

    def drawn_at_least_once(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """This is the probability that the response is drawn at least once; it must also be the
        best draw.
        """
        return 1 - (1 - reference) ** n

    def drawn_every_time(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """This is the probability that all n draws are the response."""
        return reference**n

    def worst_of_n(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        """This is the worst of n."""
        return exact(reference, -rewards, n)

    rng = np.random.default_rng(0)
    cases = [(rng.dirichlet(np.ones(5)), rng.normal(size=5), n) for n in (1, 2, 7)]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            none_is_better,
            normalised,
            all_are_worse,
            as_for_a_density,
            drawn_exactly_once,
            drawn_at_least_once,
            drawn_every_time,
            worst_of_n,
        ],
    )


def _gold_at(t: float, log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
    """Gold reward of the optimum of the learned reward at beta = 1/t, arrays (X, N)."""
    return sequences.expected_reward(log_softmax(log_probs + t * learned, axis=1), gold)


def gold_slope(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(log_probs, learned, gold) -> d gold / d t``, from arrays (X, N)."""

    def exact(log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        h = 1e-4
        rise = _gold_at(h, log_probs, learned, gold) - _gold_at(-h, log_probs, learned, gold)
        return rise / (2 * h)

    def pooled(log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        """This takes means over all prompts together; take them for each prompt."""
        p = np.exp(log_probs) / len(log_probs)
        return float((p * learned * gold).sum() - (p * learned).sum() * (p * gold).sum())

    def of_the_learned_reward(
        log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray
    ) -> float:
        """This is the slope of the learned reward."""
        return exact(log_probs, learned, learned)

    def sum_over_prompts(log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        """This is the sum over prompts, not their mean."""
        return len(gold) * exact(log_probs, learned, gold)

    def not_centred(log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        """This is the mean of the product; a covariance needs one of the factors centred."""
        return float((np.exp(log_probs) * learned * gold).sum() / len(gold))

    def opposite_sign(log_probs: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        """The sign is wrong: as t grows, the policy moves to higher learned reward."""
        return -exact(log_probs, learned, gold)

    rng = np.random.default_rng(1)
    cases = [
        (log_softmax(rng.normal(size=(3, 6)), axis=1), *(rng.normal(size=(2, 3, 6)) + 1))
        for _ in range(2)
    ]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[pooled, of_the_learned_reward, sum_over_prompts, not_centred, opposite_sign],
        rtol=1e-5,
        atol=1e-6,
    )


def best_beta(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(reference, learned, gold) -> beta``, from arrays (N,), to three digits."""

    def exact(reference: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        arrays = np.log(reference)[None], learned[None], gold[None]
        grid = np.geomspace(0.05, 20, 400)
        best = grid[np.argmax([_gold_at(1 / beta, *arrays) for beta in grid])]
        minimum = minimize_scalar(
            lambda t: -_gold_at(t, *arrays), bounds=(0.97 / best, 1.03 / best), method="bounded"
        )
        return float(1 / minimum.x)

    def inverse(reference: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        """This is t = 1 / beta."""
        return 1 / exact(reference, learned, gold)

    def largest(reference: np.ndarray, learned: np.ndarray, gold: np.ndarray) -> float:
        """This is the largest beta: the policy is nearly the reference."""
        return 20.0

    courtesies = np.arange(6)
    cases = [
        (np.array([0.45, 0.35, 0.15, 0.04, 0.008, 0.002]), slope * courtesies, utility)
        for slope, utility in (
            (0.9, np.array([0.0, 1.0, 1.5, -1.0, -3.5, -6.0])),
            (0.7, np.array([0.0, 1.0, 2.0, 2.5, 1.0, -2.0])),
        )
    ]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[inverse, largest],
        rtol=3e-3,
    )


def careful_reward(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(members, log_ref) -> (X, N)``; the members (K, X, N) are not yet centred."""

    def centred(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return members - (np.exp(log_ref) * members).sum(axis=2, keepdims=True)

    def spread(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return np.asarray(centred(members, log_ref).std(axis=0))

    def mean(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        """This is the mean of the centred members; subtract their standard deviation."""
        return np.asarray(centred(members, log_ref).mean(axis=0))

    def exact(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return mean(members, log_ref) - spread(members, log_ref)

    def uncentred(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        """The members are not centred: arbitrary constants count as disagreement."""
        return np.asarray(members.mean(axis=0) - members.std(axis=0))

    def centred_on_the_unweighted_mean(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        """This is centred on the unweighted mean; use the mean under the reference."""
        responses = log_ref.shape[1]
        return exact(members, np.full(log_ref.shape, -np.log(responses)))

    def sample_deviation(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        """The standard deviation has the divisor K, not K - 1 (np.std without ddof)."""
        correction = np.sqrt(len(members) / (len(members) - 1))
        return mean(members, log_ref) - correction * spread(members, log_ref)

    def divided_by_k(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        """Subtract the standard deviation itself; do not divide it by K."""
        return mean(members, log_ref) - spread(members, log_ref) / len(members)

    def added(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        """Subtract the standard deviation; a sum rewards disagreement."""
        return mean(members, log_ref) + spread(members, log_ref)

    rng = np.random.default_rng(2)
    cases = []
    for members in (2, 5):
        offsets = 3 * rng.normal(size=(members, 3, 1))
        log_ref = log_softmax(rng.normal(size=(3, 4)), axis=1)
        cases.append((rng.normal(size=(members, 3, 4)) + offsets, log_ref))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            uncentred,
            centred_on_the_unweighted_mean,
            sample_deviation,
            divided_by_k,
            added,
            mean,
        ],
    )
