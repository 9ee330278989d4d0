"""Checks of notebook 5: costs of updates, gain within a trust region, comparison of scores."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirl.algorithms import PPO, TRPO
from minirl.algorithms.trpo import full_step
from minirl.batch import Batch
from minirl.distributions import Categorical
from minirl.exercises.verdict import Verdict, compare_function
from minirl.experiments import statistics
from minirl.networks import MLP
from minirl.policy import Policy
from minirl.solvers import conjugate_gradient

__all__ = ["update_cost", "best_gain", "interquartile_mean", "verdict", "cost_ratio"]


def update_cost(answer: Callable[[int, int, int, int], Any]) -> Verdict:
    """Number of gradient-equivalents of one update, computed from its settings.

    Parameters
    ----------
    answer : callable
        (transitions, gradients, fisher_products, forwards) -> a number. The last three are numbers
        of passes over all transitions. The answer is compared with real updates of TRPO and PPO.
    """
    counted: dict[tuple[int, ...], float] = {}
    for rows, iterations, max_kl in ((30, 3, 1e-3), (30, 6, 3.0)):
        trpo = TRPO(max_kl=max_kl, damping=0.01, cg_iterations=iterations)
        policy, batch, rng = _small_problem(rows)
        _, metrics = trpo.update(trpo.init(policy), batch, rng)
        rejected = round(np.log(metrics["accepted_fraction"]) / np.log(trpo.line_search_shrink))
        counted[rows, 1, iterations, rejected + 1] = metrics["gradient_equivalents"]
    for target_kl, forwards in ((None, 0), (1e9, 4)):
        ppo = PPO(epochs=4, minibatch_size=10, target_kl=target_kl)
        policy, batch, rng = _small_problem(50)
        _, metrics = ppo.update(ppo.init(policy), batch, rng)
        counted[50, 4, 0, forwards] = metrics["gradient_equivalents"]

    def exact(*case: int) -> float:
        return counted[case]

    def product_as_one_gradient(
        transitions: int, gradients: int, fisher_products: int, forwards: int
    ) -> float:
        """A Fisher-vector product is one jvp and one vjp, each 2/3 of a gradient."""
        return transitions * (gradients + fisher_products + forwards / 3)

    def forward_as_one_gradient(
        transitions: int, gradients: int, fisher_products: int, forwards: int
    ) -> float:
        """A forward pass costs a third of a gradient."""
        return transitions * (gradients + 4 / 3 * fisher_products + forwards)

    def per_transition(
        transitions: int, gradients: int, fisher_products: int, forwards: int
    ) -> float:
        """Multiply by the number of transitions: each pass covers all of them."""
        return gradients + 4 / 3 * fisher_products + forwards / 3

    def in_forward_passes(
        transitions: int, gradients: int, fisher_products: int, forwards: int
    ) -> float:
        """This counts forward passes; a gradient-equivalent is three of them."""
        return transitions * (3 * gradients + 4 * fisher_products + forwards)

    def without_line_search(
        transitions: int, gradients: int, fisher_products: int, forwards: int
    ) -> float:
        """The forward passes of the line search are missing."""
        return transitions * (gradients + 4 / 3 * fisher_products)

    return compare_function(
        answer,
        exact,
        counted,
        mistakes=[
            product_as_one_gradient,
            forward_as_one_gradient,
            per_transition,
            in_forward_passes,
            without_line_search,
        ],
    )


def best_gain(answer: Callable[[np.ndarray, np.ndarray, float], Any]) -> Verdict:
    """The largest g^T s over the steps with s^T F s / 2 <= max_kl.

    Parameters
    ----------
    answer : callable
        (gradient (P,), fisher (P, P), max_kl) -> a number, compared with TRPO's undamped step.
    """

    def exact(gradient: np.ndarray, fisher: np.ndarray, max_kl: float) -> float:
        solution = conjugate_gradient(fisher.dot, gradient, iterations=50)
        return float(gradient @ full_step(solution, 0.0, max_kl))

    def factor_2_missing(gradient: np.ndarray, fisher: np.ndarray, max_kl: float) -> float:
        """The KL is half of s^T F s."""
        return exact(gradient, fisher, max_kl / 2)

    def euclidean_length(gradient: np.ndarray, fisher: np.ndarray, max_kl: float) -> float:
        """The trust region is defined by F, not by the Euclidean length."""
        return float(np.sqrt(2 * max_kl * gradient @ gradient))

    def without_inverse(gradient: np.ndarray, fisher: np.ndarray, max_kl: float) -> float:
        """This uses F instead of its inverse; small curvature allows a long step."""
        return float(np.sqrt(2 * max_kl * gradient @ fisher @ gradient))

    def along_the_gradient(gradient: np.ndarray, fisher: np.ndarray, max_kl: float) -> float:
        """This is the gain along the plain gradient; the best direction is F^-1 g."""
        length = np.sqrt(2 * max_kl / (gradient @ fisher @ gradient))
        return float(length * gradient @ gradient)

    def without_square_root(gradient: np.ndarray, fisher: np.ndarray, max_kl: float) -> float:
        """The gain is linear in the step, so it grows with the root of max_kl."""
        return exact(gradient, fisher, max_kl) ** 2

    rng = np.random.default_rng(0)
    cases = []
    for size, max_kl in ((2, 0.01), (4, 0.03)):
        root = rng.standard_normal((size, size))
        cases.append((rng.standard_normal(size), root @ root.T + 0.1 * np.eye(size), max_kl))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            factor_2_missing,
            euclidean_length,
            without_inverse,
            along_the_gradient,
            without_square_root,
        ],
    )


def interquartile_mean(answer: Callable[[np.ndarray], Any]) -> Verdict:
    """The mean of the middle half.

    Parameters
    ----------
    answer : callable
        scores (n,) -> a number; floor(n / 4) scores are removed at each end.
    """

    def unsorted(scores: np.ndarray) -> float:
        """The scores must be sorted first."""
        removed = len(scores) // 4
        return float(scores[removed : len(scores) - removed].mean())

    def mean(scores: np.ndarray) -> float:
        """This is the mean of all scores."""
        return float(scores.mean())

    rng = np.random.default_rng(0)
    return compare_function(
        answer,
        statistics.interquartile_mean,
        [(rng.exponential(size=n),) for n in (10, 5, 8, 3)],
        mistakes=[unsorted, mean],
    )


def verdict(answer: Callable[[float, float], Any]) -> Verdict:
    """Which of two algorithms is better, from the interval of first minus second.

    Parameters
    ----------
    answer : callable
        (low, high) -> "first", "second" or "not distinguishable", compared with `compare_scores`.
        In two of the cases an end of the interval is exactly 0.
    """
    rng = np.random.default_rng(0)
    shifts = np.array([[[3.0], [0.0]], [[0.3], [0.0]], [[-3.0], [0.0]], [[-0.3], [0.0]]])
    drawn = [rng.standard_normal((2, 10)) + shift for shift in shifts]
    best, nearly = np.full(10, 500.0), np.array([500.0] * 8 + [400.0] * 2)  # an end is exactly 0
    cases, exact = [], {}
    for first, second in [*drawn, (best, nearly), (nearly, best)]:
        pair = statistics.compare_scores(first, second, rng)
        ahead = "first" if pair.iqm_difference > 0 else "second"
        cases.append(pair.difference_interval)
        exact[pair.difference_interval] = ahead if pair.distinguishable else "not distinguishable"

    def word(first_is_better: bool, second_is_better: bool) -> str:
        if first_is_better:
            return "first"
        return "second" if second_is_better else "not distinguishable"

    def sign_of_the_middle(low: float, high: float) -> str:
        """An interval that contains 0 does not determine the sign."""
        return word(low + high > 0, low + high <= 0)

    def algorithms_exchanged(low: float, high: float) -> str:
        """The interval is that of first minus second, and a higher score is better."""
        return word(high < 0, low > 0)

    def ends_excluded(low: float, high: float) -> str:
        """An interval that begins or ends at 0 contains 0."""
        return word(low >= 0, high <= 0)

    def beginning_excluded(low: float, high: float) -> str:
        """An interval that begins at 0 contains 0."""
        return word(low >= 0, high < 0)

    def end_excluded(low: float, high: float) -> str:
        """An interval that ends at 0 contains 0."""
        return word(low > 0, high <= 0)

    return compare_function(
        answer,
        lambda *interval: exact[interval],
        cases,
        mistakes=[
            sign_of_the_middle,
            algorithms_exchanged,
            ends_excluded,
            beginning_excluded,
            end_excluded,
        ],
    )


def cost_ratio(answer: Callable[[float, float, float, float, float], Any]) -> Verdict:
    """TRPO's cost divided by PPO's, if an environment step costs c gradient-equivalents.

    Parameters
    ----------
    answer : callable
        (trpo_steps, trpo_work, ppo_steps, ppo_work, c) -> a number; work in gradient-equivalents
        per environment step.
    """

    def exact(
        trpo_steps: float, trpo_work: float, ppo_steps: float, ppo_work: float, c: float
    ) -> float:
        return trpo_steps * (c + trpo_work) / (ppo_steps * (c + ppo_work))

    def without_environment(
        trpo_steps: float, trpo_work: float, ppo_steps: float, ppo_work: float, c: float
    ) -> float:
        """The cost of the environment steps is missing."""
        return trpo_steps * trpo_work / (ppo_steps * ppo_work)

    def work_counted_once(
        trpo_steps: float, trpo_work: float, ppo_steps: float, ppo_work: float, c: float
    ) -> float:
        """The work is given per step: each step costs c plus its work."""
        return (trpo_steps * c + trpo_work) / (ppo_steps * c + ppo_work)

    def inverse(
        trpo_steps: float, trpo_work: float, ppo_steps: float, ppo_work: float, c: float
    ) -> float:
        """This is PPO's cost divided by TRPO's; the question is the inverse."""
        return exact(ppo_steps, ppo_work, trpo_steps, trpo_work, c)

    def without_updates(
        trpo_steps: float, trpo_work: float, ppo_steps: float, ppo_work: float, c: float
    ) -> float:
        """This is the ratio of the steps only; the updates cost something as well."""
        return trpo_steps / ppo_steps

    return compare_function(
        answer,
        exact,
        [(70e3, 15.0, 60e3, 10.0, 20.0), (50e3, 15.0, 60e3, 8.0, 1e6)],
        mistakes=[without_environment, work_counted_once, inverse, without_updates],
    )


def _small_problem(rows: int) -> tuple[Policy, Batch, np.random.Generator]:
    """A policy, a batch whose advantages cause a large change, and a generator."""
    rng = np.random.default_rng(rows)
    network = MLP((3, 8, 2), dtype="float64")
    policy = Policy(network, Categorical, network.init(rng))
    observations = rng.standard_normal((rows, 3))
    old = policy(observations)
    actions = old.sample(rng)
    advantages = rng.standard_normal(rows)
    batch = Batch(
        observations=observations,
        actions=actions,
        log_probs=old.log_prob(actions),
        values=np.zeros(rows),
        advantages=advantages,
        returns=advantages,
        weight=np.full(rows, 1 / rows),
    )
    return policy, batch, rng
