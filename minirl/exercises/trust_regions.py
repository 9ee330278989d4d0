"""Checks of the exercises of notebook 3, trust regions and TRPO."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirl import solvers
from minirl.algorithms.natural_gradient import fisher_vector_product
from minirl.algorithms.trpo import full_step
from minirl.distributions import Categorical
from minirl.exercises.verdict import Verdict, compare_function
from minirl.networks import Table
from minirl.policy import Policy

__all__ = [
    "bernoulli_kl",
    "accepted_fraction",
    "step_of_length",
    "fisher_product",
    "conjugate_gradient",
]


def bernoulli_kl(answer: Callable[..., Any]) -> Verdict:
    """Check the KL of two policies with two actions, in both directions.

    Parameters
    ----------
    answer : callable
        (p, q), each the probability of action 1, in (0, 1) -> the pair KL(p || q), KL(q || p), in
        nats.
    """

    def policies(p: float, q: float) -> tuple[Categorical, Categorical]:
        first, second = (Categorical(np.log([[1 - x, x]])) for x in (p, q))
        return first, second

    def exact(p: float, q: float) -> tuple[float, float]:
        first, second = policies(p, q)
        return first.kl(second)[0], second.kl(first)[0]

    return compare_function(
        answer,
        exact,
        [(0.5, 0.9), (0.01, 0.3), (0.7, 0.7)],
        mistakes={
            "the two directions are exchanged; KL(p || q) averages over p": lambda p, q: exact(
                q, p
            ),
            "the sum has two terms; action 0 has the probabilities 1 - p and 1 - q": lambda p, q: (
                p * np.log(p / q),
                q * np.log(q / p),
            ),
            "this is in bits; nats use the natural logarithm": lambda p, q: tuple(
                kl / np.log(2) for kl in exact(p, q)
            ),
        },
    )


def accepted_fraction(answer: Callable[..., Any]) -> Verdict:
    """Check which fraction of the step the line search accepts, from a table of tries.

    Parameters
    ----------
    answer : callable
        (fractions, kls, improvements, max_kl) -> the fraction that TRPO takes, 0 if none. The
        first three are arrays (K,), longest step first. They contain the fractions, and the exact
        mean KL and the improvement of the surrogate at each of them.
    """

    def first(fractions: np.ndarray, accepted: np.ndarray) -> float:
        table = dict(zip(fractions, accepted, strict=True))
        return solvers.backtracking_line_search(
            lambda fraction: None if table[fraction] else "refused", shrink=0.5, tries=len(table)
        ).fraction

    fractions = 0.5 ** np.arange(4)
    return compare_function(
        answer,
        lambda f, kls, gains, max_kl: first(f, (kls <= max_kl) & (gains > 0)),
        [
            # A KL equal to max_kl is accepted; an improvement equal to 0 is not.
            (fractions, np.array([0.05, 0.012, 0.01, 0.001]), np.array([5, 4, 2, 3]), 0.01),
            (fractions, np.array([0.03, 0.009, 0.002, 0.001]), np.array([-2, 0, 1, 3]), 0.01),
            (fractions, np.array([0.03, 0.02, 0.013, 0.012]), np.array([1, 2, 3, 4]), 0.01),
        ],
        mistakes={
            "the surrogate must improve too": lambda f, kls, gains, m: first(f, kls <= m),
            "the KL must stay within max_kl too": lambda f, kls, gains, m: first(f, gains > 0),
            "TRPO takes the longest step that passes, not the one with the best improvement": (
                lambda f, kls, gains, m: float(
                    f[np.where(kls <= m, gains, -np.inf).argmax()] * (kls <= m).any()
                )
            ),
        },
    )


def step_of_length(answer: Callable[..., Any]) -> Verdict:
    """Check TRPO's full step without damping.

    Parameters
    ----------
    answer : callable
        (g, F, max_kl) -> the full step (P,), for a gradient g (P,) and an invertible Fisher matrix
        F (P, P).
    """

    def exact(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        solution = solvers.conjugate_gradient(fisher.dot, g, iterations=20)
        return full_step(solution, damping=0.0, max_kl=max_kl)

    def squared(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        x = np.linalg.solve(fisher, g)
        return x * 2 * max_kl / (x @ fisher @ x)

    def along_gradient(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        return g * np.sqrt(2 * max_kl / (g @ fisher @ g))

    def euclidean(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        x = np.linalg.solve(fisher, g)
        return x * np.sqrt(2 * max_kl) / np.linalg.norm(x)

    return compare_function(
        answer,
        exact,
        [
            (np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 0.3]]), 0.01),
            (np.array([0.3, 0.1]), np.diag([0.01, 4.0]), 0.5),
        ],
        mistakes={
            "the KL is half of s'Fs: a factor of 2 is missing": lambda g, fisher, max_kl: exact(
                g, fisher, max_kl / 2
            ),
            "the KL grows with the square of the step: take the square root": squared,
            "the direction is that of F^-1 g, not of g": along_gradient,
            "this scales x by its Euclidean length; use x'Fx instead": euclidean,
        },
    )


def fisher_product(answer: Callable[..., Any]) -> Verdict:
    """Check the Fisher-vector product of a softmax table.

    Parameters
    ----------
    answer : callable
        (logits, weight, v) -> F v (S, A), for logits (S, A), the weight of each state (S,) and a
        direction v (S, A).
    """

    def exact(logits: np.ndarray, weight: np.ndarray, v: np.ndarray) -> np.ndarray:
        policy = Policy(Table(*logits.shape), Categorical, logits.ravel())
        distribution, cache = policy.forward(np.arange(len(logits)))
        product = fisher_vector_product(policy, cache, distribution, weight, v.ravel())
        return product.reshape(logits.shape)

    rng = np.random.default_rng(0)
    cases = [
        (rng.standard_normal(shape), rng.uniform(0.1, 1.0, shape[0]), rng.standard_normal(shape))
        for shape in ((1, 2), (4, 3))
    ]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "the weights of the states are missing": lambda logits, weight, v: exact(
                logits, np.ones_like(weight), v
            ),
            "M is diag(p) - p p': the second part is missing": lambda logits, weight, v: (
                weight[:, None] * Categorical(logits).probs * v
            ),
        },
    )


def conjugate_gradient(answer: Callable[..., Any]) -> Verdict:
    """Check the result of conjugate gradient after 1, 2, 3 and 4 iterations.

    Parameters
    ----------
    answer : callable
        (product, b, iterations) -> x (P,), starting at x = 0, without a test of convergence.
        product is v -> A v for a symmetric positive definite matrix A, and b has shape (P,).
    """

    def steepest(product: Callable[..., Any], b: np.ndarray, iterations: int) -> np.ndarray:
        x, residual = np.zeros_like(b), b.copy()
        for _ in range(iterations):
            along = product(residual)
            step = residual @ residual / (residual @ along)
            x, residual = x + step * residual, residual - step * along
        return x

    rng = np.random.default_rng(0)
    root = rng.standard_normal((5, 5))
    matrix, b = root @ root.T + 0.1 * np.eye(5), rng.standard_normal(5)
    return compare_function(
        answer,
        lambda product, b, n: solvers.conjugate_gradient(product, b, iterations=n).x,
        [(matrix.dot, b, iterations) for iterations in range(1, 5)],
        mistakes={
            "this is steepest descent: the next direction is the new residual plus (new / old "
            "squared residual) times the old direction": steepest,
        },
    )
