"""Checks of notebook 7: Bradley-Terry, scores from votes, the loss, the ceiling, invariances."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special

from minirl.exercises.verdict import Verdict, compare, compare_function
from minirl.rlhf.preferences import Annotator
from minirl.rlhf.reward_model import bayes_ceiling, bradley_terry_loss
from minirl.rlhf.votes import stack_exchange_score

__all__ = ["probability", "score", "gradient", "ceiling", "invariances"]


def probability(answer: Callable[..., Any]) -> Verdict:
    """`answer(first, second, temperature, flip)`: P(first preferred), (M,), of utilities (M,)."""
    rng = np.random.default_rng(0)
    cases = [(*rng.normal(size=(2, 5)), 1.0, 0.0), (*rng.normal(size=(2, 5)), 2.5, 0.2)]
    sigmoid = scipy.special.expit

    def no_flip(
        first: np.ndarray, second: np.ndarray, temperature: float, flip: float
    ) -> np.ndarray:
        return (1 - flip) * sigmoid((first - second) / temperature)

    return compare_function(
        answer,
        lambda first, second, temperature, flip: Annotator(temperature, flip).probability(
            first, second
        ),
        cases,
        mistakes={
            "a flipped label for the second answer is one for the first: a term is missing": (
                no_flip
            ),
            "divide the difference by the temperature instead of multiplying": (
                lambda first, second, t, flip: Annotator(1 / t, flip).probability(first, second)
            ),
            "this is the probability that the second is preferred": (
                lambda first, second, t, flip: Annotator(t, flip).probability(second, first)
            ),
        },
    )


def score(answer: Callable[[int, bool], Any]) -> Verdict:
    """`answer(upvotes, accepted)`: the StackExchange score of one answer, a whole number."""
    cases = [(v, accepted) for v in (-3, 0, 1, 2, 4, 5, 11, 100) for accepted in (False, True)]

    def logarithm(upvotes: int) -> float:
        return float(np.log2(1 + max(upvotes, 0)))

    return compare_function(
        answer,
        stack_exchange_score,
        cases,
        mistakes={
            "an answer with negative votes has the score -1, even if it is accepted": (
                lambda v, accepted: (-1 if v < 0 else round(logarithm(v))) + accepted
            ),
            "the logarithm is rounded to the nearest whole number, not down": (
                lambda v, accepted: -1 if v < 0 else int(logarithm(v)) + accepted
            ),
            "negative votes give the score -1, whatever their number": (
                lambda v, accepted: round(logarithm(v)) + accepted
            ),
        },
    )


def gradient(answer: Callable[..., Any]) -> Verdict:
    """`answer(weights, differences, labels)`: the gradient (F,) of the loss without ridge."""
    rng = np.random.default_rng(1)
    cases = [(rng.normal(size=3), rng.normal(size=(6, 3)), rng.uniform(size=6)) for _ in range(2)]

    def exact(weights: np.ndarray, differences: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return bradley_terry_loss(weights, differences, labels)[1]

    def squared(weights: np.ndarray, differences: np.ndarray, labels: np.ndarray) -> np.ndarray:
        p = scipy.special.expit(differences @ weights)
        return differences.T @ ((p - labels) * p * (1 - p)) / len(labels)

    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "the sign is wrong: the loss decreases along this vector": (
                lambda w, d, labels: -exact(w, d, labels)
            ),
            "the loss is a mean over pairs; this is the gradient of a sum": (
                lambda w, d, labels: len(labels) * exact(w, d, labels)
            ),
            "with the cross-entropy the factor p (1 - p) of the sigmoid cancels": squared,
        },
    )


def ceiling(answer: Callable[[np.ndarray], Any]) -> Verdict:
    """`answer(labels)`: the largest accuracy that a model can have, for soft labels (M,)."""
    rng = np.random.default_rng(2)
    return compare_function(
        answer,
        bayes_ceiling,
        [(rng.uniform(size=8),), (np.array([0.0, 1.0, 0.5]),)],
        mistakes={
            "this is how often two random labels agree; a model can predict the likelier one": (
                lambda p: np.mean(p**2 + (1 - p) ** 2)
            ),
            "for a pair with p < 1/2, the best prediction is the second answer": np.mean,
            "the label may differ from the best prediction, unless p is 0 or 1": (
                lambda p: np.mean(p > 0.5)
            ),
        },
    )


def invariances(answer: Any) -> Verdict:
    """Four bools: whether a change of the reward leaves all preference probabilities the same.

    In order: add a constant; add a constant to one prompt; double; add 0.1 per word.
    """
    rng = np.random.default_rng(3)
    rewards, words = rng.normal(size=(2, 7)), np.array([0, 1, 1, 2, 2, 2, 2])

    def predictions(table: np.ndarray) -> np.ndarray:
        return np.asarray(scipy.special.expit(table[:, :, None] - table[:, None, :]))

    changed = [rewards + 3, rewards + np.array([[10.0], [0.0]]), 2 * rewards, rewards + 0.1 * words]
    unchanged = [bool(np.allclose(predictions(table), predictions(rewards))) for table in changed]
    return compare(
        answer,
        unchanged,
        mistakes={
            "doubling makes every preference more certain": ([True, True, True, False]),
            "both answers of a pair have the same prompt, so its constant cancels": (
                [True, False, False, False]
            ),
            "the answers of a pair may differ in length": [True, True, False, True],
        },
    )
