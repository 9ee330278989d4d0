"""Checks of notebook 4: the clipped objective, its derivative, PPO's loop, a far step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirl.algorithms.ppo import PPO, Clipped, clipped_surrogate_loss
from minirl.batch import Batch
from minirl.distributions import Categorical
from minirl.exercises.verdict import UNANSWERED, Verdict, compare, compare_function, unanswered
from minirl.networks import Table
from minirl.optimizers import SGD
from minirl.policy import Policy

__all__ = [
    "clipped_objective",
    "clipped_derivative",
    "ppo_loop",
    "silent_fraction",
    "far_but_free",
]

# The problem of `far_but_free`; the advantages have mean 0 under the old policy.
OLD = np.array([0.2, 0.3, 0.5])
ADVANTAGES = np.array([2.0, 1 / 3, -1.0])
EPSILON = 0.2


def clipped_objective(answer: Callable[..., Any]) -> Verdict:
    """Check answer(ratio, advantages, epsilon): each transition's clipped objective (N,)."""

    def without_minimum(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """This clips without the minimum; a ratio that moved in the wrong direction then has no
        gradient that leads back.
        """
        return np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantages

    def loss(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """This is the loss, which is minimised; the objective has the opposite sign."""
        return -_objective(ratio, advantages, epsilon)

    def minimum_of_ratios(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """The minimum is taken of the ratios instead of the products; for a negative advantage
        this gives the larger product.
        """
        return np.minimum(ratio, np.clip(ratio, 1 - epsilon, 1 + epsilon)) * advantages

    def maximum(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """This is the maximum; the objective is the smaller of the two products."""
        clipped = np.clip(ratio, 1 - epsilon, 1 + epsilon)
        return np.maximum(ratio * advantages, clipped * advantages)

    def unclipped(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """Nothing is clipped."""
        return ratio * advantages

    return compare_function(
        answer,
        _objective,
        _cases(),
        mistakes=[without_minimum, loss, minimum_of_ratios, maximum, unclipped],
    )


def clipped_derivative(answer: Callable[..., Any]) -> Verdict:
    """Check answer(ratio, advantages, epsilon): the derivative with respect to log pi(a_i|s_i)."""

    def by_the_ratio(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """This is the derivative with respect to the ratio: d ratio / d log pi is missing."""
        return _by_the_ratio(ratio, advantages, epsilon)

    def of_the_loss(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """This is the derivative of the loss; that of the objective has the opposite sign."""
        return -_derivative(ratio, advantages, epsilon)

    def zero_on_both_sides(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """This is 0 on both sides; where the ratio moved in the wrong direction, the minimum
        keeps the gradient.
        """
        return _zero_on_both_sides(ratio, advantages, epsilon)

    def unclipped(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
        """Nothing is clipped; where the minimum is the clipped term, the derivative is 0."""
        return _unclipped(ratio, advantages, epsilon)

    return compare_function(
        answer,
        _derivative,
        _cases(),
        mistakes=[by_the_ratio, of_the_loss, zero_on_both_sides, unclipped],
    )


def ppo_loop(answer: Callable[..., Any]) -> Verdict:
    """Check the logits (A,) after PPO's minibatch steps in one state, with plain gradient ascent.

    Parameters
    ----------
    answer : callable
        (logits, actions, old_log_probs, advantages, minibatches, epsilon, learning_rate) -> the
        logits (A,) after the last step. `minibatches` is a list of arrays of row numbers, one per
        step.
    """

    def exact(
        logits: np.ndarray,
        actions: np.ndarray,
        old_log_probs: np.ndarray,
        advantages: np.ndarray,
        minibatches: list[np.ndarray],
        epsilon: float,
        learning_rate: float,
        *,
        recompute: bool = False,
    ) -> np.ndarray:
        policy = Policy(Table(1, len(logits)), Categorical, logits)
        algorithm = PPO(objective=Clipped(epsilon), learning_rate=learning_rate, optimizer=SGD())
        state = algorithm.init(policy)
        for part in minibatches:
            states, weight = np.zeros(len(part), np.int64), np.full(len(part), 1 / len(part))
            stored = old_log_probs[part]
            if recompute:
                stored = state.policy(states).log_prob(actions[part])
            empty = np.zeros(len(part))
            batch = Batch(states, actions[part], stored, empty, advantages[part], empty, weight)
            state, _, _ = algorithm.step(state, batch, None)
        return state.policy.parameters

    def by_hand(
        logits: np.ndarray,
        actions: np.ndarray,
        old_log_probs: np.ndarray,
        advantages: np.ndarray,
        minibatches: list[np.ndarray],
        epsilon: float,
        learning_rate: float,
        *,
        slope: Callable[..., np.ndarray] = _derivative,
        sign: int = 1,
        summed: bool = False,
        score: bool = True,
    ) -> np.ndarray:
        for part in minibatches:
            policy = Categorical(np.tile(logits, (len(part), 1)))
            ratio = np.exp(policy.log_prob(actions[part]) - old_log_probs[part])
            d_log_prob = slope(ratio, advantages[part], epsilon) / (1 if summed else len(part))
            direction = policy.grad_log_prob(actions[part])
            if not score:
                direction = np.eye(len(logits))[actions[part]]
            logits = logits + sign * learning_rate * d_log_prob @ direction
        return logits

    def ratio_always_1(*case: Any) -> np.ndarray:
        """The old log-probabilities are recomputed in every step, so every ratio is 1 and
        nothing is clipped; use `old_log_probs`.
        """
        return exact(*case, recompute=True)

    def gradient_descent(*case: Any) -> np.ndarray:
        """The logits move down the gradient; the objective is maximised."""
        return by_hand(*case, sign=-1)

    def sum_over_the_minibatch(*case: Any) -> np.ndarray:
        """The gradient is that of a sum over the minibatch; take the mean."""
        return by_hand(*case, summed=True)

    def unclipped(*case: Any) -> np.ndarray:
        """Nothing is clipped."""
        return by_hand(*case, slope=_unclipped)

    def zero_on_both_sides(*case: Any) -> np.ndarray:
        """The gradient is 0 on both sides of the interval; the minimum keeps the gradient that
        leads back.
        """
        return by_hand(*case, slope=_zero_on_both_sides)

    def without_ratio(*case: Any) -> np.ndarray:
        """The factor ratio is missing: it is the derivative of the ratio with respect to log pi."""
        return by_hand(*case, slope=_by_the_ratio)

    def without_probabilities(*case: Any) -> np.ndarray:
        """The derivative of log pi(a) with respect to the logits is onehot(a) - p; p is
        missing.
        """
        return by_hand(*case, score=False)

    rng = np.random.default_rng(0)
    cases = []
    for epochs, size in ((1, 12), (4, 4), (6, 3)):
        logits = rng.standard_normal(3)
        policy = Categorical(np.tile(logits, (12, 1)))
        actions = policy.sample(rng)
        minibatches = [
            part for _ in range(epochs) for part in rng.permutation(12).reshape(-1, size)
        ]
        cases.append(
            (
                *(logits, actions, policy.log_prob(actions), rng.standard_normal(12)),
                *(minibatches, 0.2, 0.5),
            )
        )
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            ratio_always_1,
            gradient_descent,
            sum_over_the_minibatch,
            unclipped,
            zero_on_both_sides,
            without_ratio,
            without_probabilities,
        ],
    )


def silent_fraction(answer: Callable[..., Any]) -> Verdict:
    """Check answer(ratio, advantages, epsilon): the share of transitions with zero gradient."""

    def exact(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> float:
        return float(np.mean(_derivative(ratio, advantages, epsilon) == 0))

    def clip_fraction(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> float:
        """This is `clip_fraction`, which includes ratios that moved in the wrong direction and
        keep their gradient.
        """
        return float(np.mean(np.abs(ratio - 1) > epsilon))

    def complement(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> float:
        """This is the complement: the fraction of transitions that keep their gradient."""
        return 1 - exact(ratio, advantages, epsilon)

    def count(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> float:
        """This is the number of transitions, not the fraction."""
        return exact(ratio, advantages, epsilon) * len(ratio)

    return compare_function(answer, exact, _cases(), mistakes=[clip_fraction, complement, count])


def far_but_free(answer: Any) -> Verdict:
    """Check logits (3,) with a clipped gradient of zero and a KL(old || new) of at least 1 nat."""
    if unanswered(answer):
        return UNANSWERED
    try:
        logits = np.asarray(answer, np.float64)
    except (TypeError, ValueError):
        logits = np.array(np.nan)
    if logits.shape != OLD.shape or not np.isfinite(logits).all():
        return Verdict("wrong", f"Not yet: give three finite logits, not {answer!r}.")
    log_probs = Categorical(logits[None]).log_prob
    ratio = np.exp([log_probs(np.array([a]))[0] for a in range(3)]) / OLD
    slope = _derivative(ratio, ADVANTAGES, EPSILON)
    kl = float(Categorical(np.log(OLD)[None]).kl(Categorical(logits[None]))[0])
    measured = np.array([np.count_nonzero(slope), min(kl, 1.0)])
    alive = ", ".join(f"{a} (ratio {ratio[a]:.3g})" for a in np.flatnonzero(slope))
    why = f"the KL is only {kl:.3g} nats"
    if (logits >= 0).all() and np.isclose(logits.sum(), 1):
        why = "these look like probabilities; give logits, for example their logarithms"
    elif alive:
        why = f"these actions still have a gradient: {alive}"
    return compare(measured, [0, 1], mistakes={why: measured})


def _cases() -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Ratios below, within and above the clipping range, with both signs of the advantage."""
    rng = np.random.default_rng(0)
    return [
        (np.exp(rng.uniform(-0.8, 0.8, 40)), rng.standard_normal(40), epsilon)
        for epsilon in (0.1, 0.2, 0.3)
    ]


def _batch(advantages: np.ndarray) -> Batch:
    """Transitions of weight 1 with these advantages (N,); the other entries are not used here."""
    zeros = np.zeros(len(advantages))
    return Batch(zeros, zeros.astype(int), zeros, zeros, advantages, zeros, zeros + 1)


def _objective(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
    """The objective of each transition, computed by the package."""
    pairs = zip(ratio[:, None], advantages[:, None], strict=True)
    return np.array([-clipped_surrogate_loss(r, _batch(a), epsilon)[0] for r, a in pairs])


def _derivative(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
    return -clipped_surrogate_loss(ratio, _batch(advantages), epsilon)[1]


# The derivatives below have a mistake; the checks of the derivative and of the loop share them.


def _unclipped(ratio: np.ndarray, advantages: np.ndarray, _: float) -> np.ndarray:
    return ratio * advantages


def _zero_on_both_sides(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
    return ratio * advantages * (np.abs(ratio - 1) <= epsilon)


def _by_the_ratio(ratio: np.ndarray, advantages: np.ndarray, epsilon: float) -> np.ndarray:
    """The derivative with respect to the ratio instead of log pi."""
    return advantages * (_derivative(ratio, advantages, epsilon) != 0)
