"""Checks of notebook 15 on search and process rewards: rounds of imitation, shaped rewards."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirl.exercises.verdict import Verdict, compare_function

__all__ = ["shaped_rewards", "success_after_rounds"]


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
