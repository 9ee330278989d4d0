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

    def at_most(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        return np.array([reference[rewards <= reward].sum() ** n for reward in rewards])

    def below(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        return np.array([reference[rewards < reward].sum() ** n for reward in rewards])

    def normalised(reference: np.ndarray, rewards: np.ndarray, n: int) -> np.ndarray:
        powers = at_most(reference, rewards, n)
        return np.asarray(powers / powers.sum())

    rng = np.random.default_rng(0)
    cases = [(rng.dirichlet(np.ones(5)), rng.normal(size=5), n) for n in (1, 2, 7)]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "F^n is the probability that no draw is better; subtract the probability that all "
            "draws are worse": at_most,
            "F^n counts each response together with all worse ones; subtract the probability that "
            "all draws are worse instead of dividing by the sum": normalised,
            "this is the probability that all draws are worse than the response": below,
            "n p F^(n-1) holds for densities; here a response can be drawn twice": (
                lambda p, rewards, n: n * p * at_most(p, rewards, n - 1)
            ),
            "this is right only if exactly one draw is the response and all others are worse; the "
            "response can be drawn several times": (
                lambda p, rewards, n: n * p * below(p, rewards, n - 1)
            ),
            "this is the probability that the response is drawn at least once; it must also be "
            "the best draw": lambda p, rewards, n: 1 - (1 - p) ** n,
            "this is the probability that all n draws are the response": (
                lambda p, rewards, n: p**n
            ),
            "this is the worst of n": lambda p, rewards, n: exact(p, -rewards, n),
        },
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
        p = np.exp(log_probs) / len(log_probs)
        return float((p * learned * gold).sum() - (p * learned).sum() * (p * gold).sum())

    rng = np.random.default_rng(1)
    cases = [
        (log_softmax(rng.normal(size=(3, 6)), axis=1), *(rng.normal(size=(2, 3, 6)) + 1))
        for _ in range(2)
    ]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "this takes means over all prompts together; take them for each prompt": pooled,
            "this is the slope of the learned reward": lambda p, r, u: exact(p, r, r),
            "this is the sum over prompts, not their mean": lambda *case: 3 * exact(*case),
            "this is the mean of the product; a covariance needs one of the factors centred": (
                lambda p, r, u: (np.exp(p) * r * u).sum() / len(u)
            ),
            "the sign is wrong: as t grows, the policy moves to higher learned reward": (
                lambda *case: -exact(*case)
            ),
        },
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
        mistakes={
            "this is t = 1 / beta": lambda *case: 1 / exact(*case),
            "this is the largest beta: the policy is nearly the reference": lambda *case: 20.0,
        },
        rtol=3e-3,
    )


def careful_reward(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(members, log_ref) -> (X, N)``; the members (K, X, N) are not yet centred."""

    def uncentred(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return np.asarray(members.mean(axis=0) - members.std(axis=0))

    def centred(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return members - (np.exp(log_ref) * members).sum(axis=2, keepdims=True)

    def centred_mean(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return np.asarray(centred(members, log_ref).mean(axis=0))

    def spread(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return np.asarray(centred(members, log_ref).std(axis=0))

    def exact(members: np.ndarray, log_ref: np.ndarray) -> np.ndarray:
        return centred_mean(members, log_ref) - spread(members, log_ref)

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
        mistakes={
            "the members are not centred: arbitrary constants count as disagreement": uncentred,
            "this is centred on the unweighted mean; use the mean under the reference": (
                lambda members, log_ref: exact(members, np.full(log_ref.shape, -np.log(4)))
            ),
            "the standard deviation has the divisor K, not K - 1 (np.std without ddof)": (
                lambda members, log_ref: (
                    centred_mean(members, log_ref)
                    - np.sqrt(len(members) / (len(members) - 1)) * spread(members, log_ref)
                )
            ),
            "subtract the standard deviation itself; do not divide it by K": (
                lambda members, log_ref: (
                    centred_mean(members, log_ref) - spread(members, log_ref) / len(members)
                )
            ),
            "subtract the standard deviation; a sum rewards disagreement": (
                lambda members, log_ref: centred_mean(members, log_ref) + spread(members, log_ref)
            ),
            "this is the mean of the centred members; subtract their standard deviation": (
                lambda members, log_ref: centred_mean(members, log_ref)
            ),
        },
    )
