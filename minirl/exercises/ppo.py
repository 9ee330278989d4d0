"""Checks of notebook 4: the clipped objective, its derivative, the adaptive penalty, a far step."""

from collections.abc import Callable
from typing import Any

import numpy as np

from minirl.algorithms.ppo import AdaptiveKL, clipped_surrogate_loss
from minirl.batch import Batch
from minirl.distributions import Categorical
from minirl.exercises.verdict import UNANSWERED, Verdict, compare, compare_function, unanswered

__all__ = [
    "clipped_objective",
    "clipped_derivative",
    "next_beta",
    "silent_fraction",
    "far_but_free",
]

# The problem of `far_but_free`; the advantages have mean 0 under the old policy.
OLD = np.array([0.2, 0.3, 0.5])
ADVANTAGES = np.array([2.0, 1 / 3, -1.0])
EPSILON = 0.2


def clipped_objective(answer: Callable[..., Any]) -> Verdict:
    """Check answer(ratio, advantages, epsilon): each transition's clipped objective (N,)."""
    return compare_function(
        answer,
        _objective,
        _cases(),
        mistakes={
            "this clips without the minimum; a ratio that moved in the wrong direction then has no "
            "gradient that leads back": lambda ratio, advantages, epsilon: (
                np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantages
            ),
            "this is the loss, which is minimised; the objective has the opposite sign": (
                lambda *case: -_objective(*case)
            ),
            "the minimum is taken of the ratios instead of the products; for a negative advantage "
            "this gives the larger product": lambda ratio, advantages, epsilon: (
                np.minimum(ratio, np.clip(ratio, 1 - epsilon, 1 + epsilon)) * advantages
            ),
            "this is the maximum; the objective is the smaller of the two products": (
                lambda ratio, advantages, epsilon: np.maximum(
                    ratio * advantages, np.clip(ratio, 1 - epsilon, 1 + epsilon) * advantages
                )
            ),
            "nothing is clipped": lambda ratio, advantages, epsilon: ratio * advantages,
        },
    )


def clipped_derivative(answer: Callable[..., Any]) -> Verdict:
    """Check answer(ratio, advantages, epsilon): the derivative with respect to log pi(a_i|s_i)."""
    return compare_function(
        answer,
        _derivative,
        _cases(),
        mistakes={
            "this is the derivative with respect to the ratio: d ratio / d log pi is missing": (
                lambda ratio, advantages, epsilon: (
                    advantages * (_derivative(ratio, advantages, epsilon) != 0)
                )
            ),
            "this is 0 on both sides; where the ratio moved in the wrong direction, the minimum "
            "keeps the gradient": lambda ratio, advantages, epsilon: (
                ratio * advantages * (np.abs(ratio - 1) <= epsilon)
            ),
            "nothing is clipped; where the minimum is the clipped term, the derivative is 0": (
                lambda ratio, advantages, epsilon: ratio * advantages
            ),
        },
    )


def next_beta(answer: Callable[..., Any]) -> Verdict:
    """Check answer(beta, kl, target): the coefficient of the next update, a number."""

    def exact(beta: float, kl: float, target: float) -> float:
        return AdaptiveKL(target=target).next_beta(beta, kl)

    def turned(beta: float, kl: float, target: float) -> float:
        return beta**2 / exact(beta, kl, target)

    def no_margin(beta: float, kl: float, target: float) -> float:
        return beta / 2 if kl < target else beta * 2

    factors = (0.1, 0.6, 0.7, 1.4, 1.6, 10.0)
    cases = [(b, factor * d, d) for b, d in ((3.0, 0.02), (0.5, 0.1)) for factor in factors]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "this is inverted: a KL above the target must increase beta": turned,
            "beta does not change between target / 1.5 and 1.5 target": no_margin,
        },
    )


def silent_fraction(answer: Callable[..., Any]) -> Verdict:
    """Check answer(ratio, advantages, epsilon): the share of transitions with zero gradient."""
    return compare_function(
        answer,
        lambda *case: np.mean(_derivative(*case) == 0),
        _cases(),
        mistakes={
            "this is `clip_fraction`, which includes ratios that moved in the wrong direction and "
            "keep their gradient": lambda ratio, advantages, epsilon: np.mean(
                np.abs(ratio - 1) > epsilon
            ),
            "this is the number of transitions, not the fraction": lambda *case: np.count_nonzero(
                _derivative(*case) == 0
            ),
        },
    )


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
    if alive:
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
