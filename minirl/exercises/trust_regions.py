"""Checks of the exercises of notebook 3, trust regions and TRPO."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirl import solvers
from minirl.algorithms.natural_gradient import fisher_vector_product
from minirl.algorithms.trpo import TRPO, full_step
from minirl.checks import enumerated_batch
from minirl.distributions import Categorical
from minirl.exercises.verdict import Verdict, compare_function
from minirl.networks import Table
from minirl.policy import Policy

__all__ = [
    "bernoulli_kl",
    "accepted_fraction",
    "step_of_length",
    "fisher_product",
    "trpo_update",
]


def bernoulli_kl(answer: Callable[..., Any]) -> Verdict:
    """Check the KL of two policies with two actions, in both directions, and which is larger.

    Parameters
    ----------
    answer : callable
        (p, q), each the probability of action 1, in (0, 1) -> KL(p || q), KL(q || p), both in
        nats, and whether the first is the larger one.
    """

    def exact(p: float, q: float) -> tuple[float, float, bool]:
        first, second = (Categorical(np.log([[1 - x, x]])) for x in (p, q))
        # The KL averages over its first policy: it is large if the second one makes an action
        # rare, so the first KL is the larger one if q is nearer to 0 or 1 than p is.
        return first.kl(second)[0], second.kl(first)[0], abs(q - 0.5) > abs(p - 0.5)

    def directions_exchanged(p: float, q: float) -> tuple[float, float, bool]:
        """The two directions are exchanged; KL(p || q) averages over p."""
        forward, backward, larger = exact(p, q)
        return backward, forward, larger

    def one_term(p: float, q: float) -> tuple[float, float, bool]:
        """The sum has two terms; action 0 has the probabilities 1 - p and 1 - q."""
        _, _, larger = exact(p, q)
        return p * np.log(p / q), q * np.log(q / p), larger

    def in_bits(p: float, q: float) -> tuple[float, float, bool]:
        """This is in bits; nats use the natural logarithm."""
        forward, backward, larger = exact(p, q)
        return forward / np.log(2), backward / np.log(2), larger

    def larger_if_q_is_larger(p: float, q: float) -> tuple[float, float, bool]:
        """The KLs are right, but q > p does not decide which is larger: exchanging the two
        actions turns p and q into 1 - p and 1 - q and changes neither KL.
        """
        forward, backward, _ = exact(p, q)
        return forward, backward, q > p

    def larger_reversed(p: float, q: float) -> tuple[float, float, bool]:
        """The KLs are right, but the bool is reversed: KL(p || q) is large if q makes an action
        rare that p takes often.
        """
        forward, backward, _ = exact(p, q)
        return forward, backward, abs(q - 0.5) < abs(p - 0.5)

    return compare_function(
        answer,
        exact,
        [(0.5, 0.9), (0.01, 0.3), (0.7, 0.7), (0.6, 0.2), (0.9, 0.6)],
        mistakes=[directions_exchanged, one_term, in_bits, larger_if_q_is_larger, larger_reversed],
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

        def reason_to_reject(fraction: float) -> str | None:
            return None if table[fraction] else "refused"

        search = solvers.backtracking_line_search(reason_to_reject, shrink=0.5, tries=len(table))
        return search.fraction

    def exact(
        fractions: np.ndarray, kls: np.ndarray, improvements: np.ndarray, max_kl: float
    ) -> float:
        return first(fractions, (kls <= max_kl) & (improvements > 0))

    def only_the_kl(
        fractions: np.ndarray, kls: np.ndarray, improvements: np.ndarray, max_kl: float
    ) -> float:
        """The surrogate must improve too."""
        return first(fractions, kls <= max_kl)

    def only_the_surrogate(
        fractions: np.ndarray, kls: np.ndarray, improvements: np.ndarray, max_kl: float
    ) -> float:
        """The KL must stay within max_kl too."""
        return first(fractions, improvements > 0)

    def best_improvement(
        fractions: np.ndarray, kls: np.ndarray, improvements: np.ndarray, max_kl: float
    ) -> float:
        """TRPO takes the longest step that passes, not the one with the best improvement."""
        within = kls <= max_kl
        if not within.any():
            return 0.0
        return float(fractions[within][improvements[within].argmax()])

    fractions = 0.5 ** np.arange(4)
    return compare_function(
        answer,
        exact,
        [
            # A KL equal to max_kl is accepted; an improvement equal to 0 is not.
            (fractions, np.array([0.05, 0.012, 0.01, 0.001]), np.array([5, 4, 2, 3]), 0.01),
            (fractions, np.array([0.03, 0.009, 0.002, 0.001]), np.array([-2, 0, 1, 3]), 0.01),
            (fractions, np.array([0.03, 0.02, 0.013, 0.012]), np.array([1, 2, 3, 4]), 0.01),
        ],
        mistakes=[only_the_kl, only_the_surrogate, best_improvement],
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

    def factor_2_missing(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        """The KL is half of s'Fs: a factor of 2 is missing."""
        return exact(g, fisher, max_kl / 2)

    def without_square_root(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        """The KL grows with the square of the step: take the square root."""
        x = np.linalg.solve(fisher, g)
        return x * 2 * max_kl / (x @ fisher @ x)

    def along_the_gradient(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        """The direction is that of F^-1 g, not of g."""
        return g * np.sqrt(2 * max_kl / (g @ fisher @ g))

    def euclidean_length(g: np.ndarray, fisher: np.ndarray, max_kl: float) -> np.ndarray:
        """This scales x by its Euclidean length; use x'Fx instead."""
        x = np.linalg.solve(fisher, g)
        return x * np.sqrt(2 * max_kl) / np.linalg.norm(x)

    return compare_function(
        answer,
        exact,
        [
            (np.array([1.0, -2.0]), np.array([[2.0, 0.5], [0.5, 0.3]]), 0.01),
            (np.array([0.3, 0.1]), np.diag([0.01, 4.0]), 0.5),
        ],
        mistakes=[factor_2_missing, without_square_root, along_the_gradient, euclidean_length],
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

    def without_weights(logits: np.ndarray, weight: np.ndarray, v: np.ndarray) -> np.ndarray:
        """The weights of the states are missing."""
        return exact(logits, np.ones_like(weight), v)

    def only_the_diagonal(logits: np.ndarray, weight: np.ndarray, v: np.ndarray) -> np.ndarray:
        """M is diag(p) - p p': the second part is missing."""
        return weight[:, None] * Categorical(logits).probs * v

    rng = np.random.default_rng(0)
    cases = [
        (rng.standard_normal(shape), rng.uniform(0.1, 1.0, shape[0]), rng.standard_normal(shape))
        for shape in ((1, 2), (4, 3))
    ]
    return compare_function(answer, exact, cases, mistakes=[without_weights, only_the_diagonal])


def trpo_update(answer: Callable[..., Any]) -> Verdict:
    """Check one TRPO update of a softmax table, without damping.

    Parameters
    ----------
    answer : callable
        (logits, weight, advantages, max_kl) -> the probabilities (S, A) of the new policy, for
        logits and exact advantages (S, A) and the share of visits of each state (S,), whose sum
        is 1. The line search tries the fractions 0.7^k, k = 0 .. 9.
    """

    def exact(
        logits: np.ndarray, weight: np.ndarray, advantages: np.ndarray, max_kl: float
    ) -> np.ndarray:
        policy = Policy(Table(*logits.shape), Categorical, logits.ravel())
        algorithm = TRPO(max_kl=max_kl, damping=0.0, cg_iterations=100)
        batch = enumerated_batch(policy, weight, advantages)
        state, _ = algorithm.update(algorithm.init(policy), batch, np.random.default_rng(0))
        return Categorical(state.policy.parameters.reshape(logits.shape)).probs

    def by_hand(
        logits: np.ndarray,
        weight: np.ndarray,
        advantages: np.ndarray,
        max_kl: float,
        *,
        factor: float = 2.0,
        along_gradient: bool = False,
        weighted: bool = True,
        tries: int = 10,
        reverse: bool = False,
    ) -> np.ndarray:
        old, share = Categorical(logits), weight[:, None]
        gradient = share * old.probs * advantages
        x = gradient if along_gradient else advantages
        product = (share if weighted else 1.0) * old.fisher_product(x)
        step = x * np.sqrt(factor * max_kl / (x * product).sum())
        if tries == 0:
            return Categorical(logits + step).probs
        # On an exact table every fraction improves the surrogate, so only the KL decides.
        for fraction in 0.7 ** np.arange(tries):
            new = Categorical(logits + fraction * step)
            if weight @ (new.kl(old) if reverse else old.kl(new)) <= max_kl:
                return new.probs
        return old.probs

    def without_line_search(*case: Any) -> np.ndarray:
        """No line search tests the exact KL: the full step can exceed max_kl."""
        return by_hand(*case, tries=0)

    def reverse_kl(*case: Any) -> np.ndarray:
        """The line search tests KL(new || old); TRPO bounds KL(old || new)."""
        return by_hand(*case, reverse=True)

    def plain_gradient(*case: Any) -> np.ndarray:
        """The direction is the plain gradient; the natural gradient solves F x = g."""
        return by_hand(*case, along_gradient=True)

    def factor_2_missing(*case: Any) -> np.ndarray:
        """The predicted KL is half of s'Fs: a factor of 2 is missing in the length."""
        return by_hand(*case, factor=1.0)

    def without_weights(*case: Any) -> np.ndarray:
        """F contains the weights of the states; they are missing in x'Fx."""
        return by_hand(*case, weighted=False)

    def log_probabilities(*case: Any) -> np.ndarray:
        """These are log-probabilities; return probabilities."""
        return np.log(exact(*case))

    logits = np.array([[0.0, 0.5, -1.0], [1.0, 0.0, 0.2]])
    weight = np.array([0.7, 0.3])
    advantages = np.array([[1.0, -1.0, 0.5], [0.0, 2.0, -0.3]])
    advantages -= (Categorical(logits).probs * advantages).sum(axis=1, keepdims=True)
    return compare_function(
        answer,
        exact,
        [(logits, weight, advantages, max_kl) for max_kl in (0.01, 0.5, 2.0)]
        + [(logits, weight, -advantages, max_kl) for max_kl in (0.01, 0.3)],
        mistakes=[
            without_line_search,
            reverse_kl,
            plain_gradient,
            factor_2_missing,
            without_weights,
            log_probabilities,
        ],
    )
