"""Checks of notebook 7: the fit of a reward model, leaks, the ceiling, invariances."""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.special
from scipy.optimize import brentq

from minirl.exercises.verdict import Verdict, compare, compare_function
from minirl.rlhf.reward_model import bayes_ceiling, bradley_terry_hessian, bradley_terry_loss

__all__ = ["fitted_weights", "leaks", "ceiling_from_agreement", "invariances"]


def fitted_weights(answer: Callable[..., Any]) -> Verdict:
    """`answer(differences, labels, ridge)`: the weights (F,) that minimise the loss with ridge."""
    rng = np.random.default_rng(1)
    cases = [(rng.normal(size=(40, 3)), rng.uniform(size=40), ridge) for ridge in (2.0, 8.0)]

    def newton(
        differences: np.ndarray, labels: np.ndarray, ridge: float, steps: int = 20
    ) -> np.ndarray:
        weights = np.zeros(differences.shape[1])
        for _ in range(steps):
            _, slope = bradley_terry_loss(weights, differences, labels, ridge)
            hessian = bradley_terry_hessian(weights, differences, labels, ridge)
            weights = weights - np.linalg.solve(hessian, slope)
        return weights

    def without_ridge(differences: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
        """The ridge is missing."""
        return newton(differences, labels, 0.0)

    def ridge_not_divided(differences: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
        """The loss contains ridge / (2 M) times w.w; here the ridge is not divided by M."""
        return newton(differences, labels, ridge * len(labels))

    def ridge_doubled(differences: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
        """The gradient of ridge w.w / (2 M) is ridge w / M; here it has a factor 2."""
        return newton(differences, labels, 2 * ridge)

    def labels_inverted(differences: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
        """The signs are wrong: a label of 1 means that the first answer was preferred."""
        return newton(differences, 1 - labels, ridge)

    def one_step(differences: np.ndarray, labels: np.ndarray, ridge: float) -> np.ndarray:
        """This is one Newton step from w = 0; repeat it until the gradient vanishes."""
        return newton(differences, labels, ridge, steps=1)

    return compare_function(
        answer,
        newton,
        cases,
        mistakes=[without_ridge, ridge_not_divided, ridge_doubled, labels_inverted, one_step],
        rtol=2e-3,
        atol=1e-4,
    )


def leaks(answer: Callable[[np.ndarray, np.ndarray], Any]) -> Verdict:
    """`answer(train, test)`: which test pairs (K,) are training pairs; rows prompt, first, second.

    A pair with exchanged answers is the same pair.
    """
    cases = []
    for train_size, test_size in ((12, 9), (30, 20)):
        rng = np.random.default_rng(train_size)
        cases.append((rng.integers(4, size=(train_size, 3)), rng.integers(4, size=(test_size, 3))))

    def repeated(
        train: np.ndarray, test: np.ndarray, key: Callable[[int, int, int], Any]
    ) -> np.ndarray:
        """Whether a training pair has the same key, for each test pair."""
        seen = {key(*row) for row in train.tolist()}
        return np.array([key(*row) in seen for row in test.tolist()])

    def exact(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        return repeated(train, test, lambda prompt, *answers: (prompt, frozenset(answers)))

    def order_counts(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """A pair whose answers are exchanged is the same pair."""
        return repeated(train, test, lambda *row: row)

    def without_prompt(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """The same two answers to another prompt are another pair."""
        return repeated(train, test, lambda _, *answers: frozenset(answers))

    def one_answer_is_enough(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """Both answers must occur in one training pair; here one of them is enough."""
        seen = {(x, y) for x, *answers in train.tolist() for y in answers}
        return np.array([any((x, y) in seen for y in answers) for x, *answers in test.tolist()])

    def inverted(train: np.ndarray, test: np.ndarray) -> np.ndarray:
        """True should mean that the pair occurs in the training data."""
        return ~exact(train, test)

    def share(train: np.ndarray, test: np.ndarray) -> float:
        """Return one True or False per test pair, not their share."""
        return float(exact(train, test).mean())

    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[order_counts, without_prompt, one_answer_is_enough, inverted, share],
    )


def ceiling_from_agreement(answer: Callable[[float, np.ndarray], Any]) -> Verdict:
    """`answer(agreement, margins)`: the Bayes ceiling of annotators that agree in this share."""

    def preferred(margins: np.ndarray, temperature: float) -> np.ndarray:
        return np.asarray(scipy.special.expit(margins / temperature))

    def agreement_at(margins: np.ndarray, temperature: float) -> float:
        p = preferred(margins, temperature)
        return float(np.mean(p**2 + (1 - p) ** 2))

    def temperature(agreement: float, margins: np.ndarray) -> float:
        """This is the temperature; compute the ceiling at this temperature."""
        return float(brentq(lambda t: agreement_at(margins, t) - agreement, 1e-3, 1e3))

    def exact(agreement: float, margins: np.ndarray) -> float:
        return bayes_ceiling(preferred(margins, temperature(agreement, margins)))

    def agreement_itself(agreement: float, margins: np.ndarray) -> float:
        """This is the agreement; a model that predicts the likelier answer agrees more often."""
        return agreement

    def equal_margins(agreement: float, margins: np.ndarray) -> float:
        """This holds if all pairs are equally hard; here the margins differ, so first find the
        temperature.
        """
        return float((1 + np.sqrt(2 * agreement - 1)) / 2)

    def temperature_1(agreement: float, margins: np.ndarray) -> float:
        """This is the ceiling at temperature 1; the agreement determines the temperature."""
        return bayes_ceiling(preferred(margins, 1.0))

    def signed_margins(agreement: float, margins: np.ndarray) -> float:
        """A negative margin counts too: the ceiling is the mean of max(p, 1 - p)."""
        return float(preferred(margins, temperature(agreement, margins)).mean())

    rng = np.random.default_rng(2)
    cases = []
    for true_temperature in (0.8, 2.5):
        margins = 2 * rng.normal(size=200)
        cases.append((agreement_at(margins, true_temperature), margins))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[agreement_itself, equal_margins, temperature_1, temperature, signed_margins],
        rtol=1e-3,
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
            "doubling makes every preference more certain": [True, True, True, False],
            "both answers of a pair have the same prompt, so its constant cancels": (
                [True, False, False, False]
            ),
            "the answers of a pair may differ in length": [True, True, False, True],
        },
    )
