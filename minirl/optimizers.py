"""First-order optimizers on one flat parameter vector, a gradient-norm clip and a schedule.

`init(theta) -> state`, `step(state, theta, gradient, learning_rate) -> (state, theta)`.
Both minimise; nothing is changed in place, so an old theta stays what it was.
"""

import inspect
import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Annotated, Any, NamedTuple, Protocol

import numpy as np

from minirl.support.arguments import check_arguments
from minirl.support.fields import NonNegative, Positive, check_fields
from minirl.support.validation import (
    described,
    require_fraction,
    require_methods,
    require_non_negative,
    require_positive,
)

SPARSE = 8  # Adam keeps moments of single entries if the first gradient has at most P / 8


@dataclass(frozen=True)
class LinearSchedule:
    """A hyperparameter that moves in a straight line from `start` to `end` over training."""

    start: NonNegative
    end: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __float__(self) -> float:
        raise ValueError(
            f"{self} has a number only at a point of training; replace it before the update: "
            "algorithm = at_progress(algorithm, progress), with progress in [0, 1]"
        )


def at_progress(value: Any, progress: float) -> Any:
    """The value with every `LinearSchedule` in it replaced by its number at this point of training.

    The number is start + (end - start) * progress. A dataclass, such as an algorithm, is returned
    with its fields replaced in the same way, nested dataclasses included. Everything else, and a
    dataclass without a schedule, is returned unchanged.

    Parameters
    ----------
    value : LinearSchedule, dataclass or any other object
    progress : float
        Fraction of the training budget that is spent, in [0, 1].

    Raises
    ------
    ValueError
        If `progress` lies outside [0, 1].

    Examples
    --------
    >>> at_progress(LinearSchedule(4.0, end=2.0), 0.25)
    3.5
    >>> at_progress(0.2, 0.25)
    0.2
    >>> from minirl import PPO
    >>> at_progress(PPO(learning_rate=LinearSchedule(4.0)), 0.25).learning_rate
    3.0
    """
    require_fraction("progress", progress)
    if isinstance(value, LinearSchedule):
        return value.start + (value.end - value.start) * progress
    if not is_dataclass(value) or isinstance(value, type):
        return value
    changes = {}
    for field in fields(value):
        old = getattr(value, field.name)
        new = at_progress(old, progress)
        if new is not old:
            changes[field.name] = new
    return replace(value, **changes) if changes else value


def require_positive_at_start(name: str, value: float | LinearSchedule) -> None:
    """Raise ValueError unless `value`, or the first value of a schedule, is positive."""
    require_positive(name, at_progress(value, 0.0))


def require_non_negative_at_start(name: str, value: float | LinearSchedule) -> None:
    """Raise ValueError unless `value`, or the first value of a schedule, is at least 0."""
    require_non_negative(name, at_progress(value, 0.0))


# Hyperparameters that may change during training, as annotations for `check_fields`.
PositiveSchedule = Annotated[float | LinearSchedule, require_positive_at_start]
NonNegativeSchedule = Annotated[float | LinearSchedule, require_non_negative_at_start]


def clip_by_norm(gradient: np.ndarray, max_norm: float | None) -> tuple[np.ndarray, float]:
    """The gradient, shortened to Euclidean length `max_norm` if longer, and its length before."""
    norm = float(np.sqrt(gradient @ gradient))
    if max_norm is not None and norm > max_norm:
        gradient = gradient * (max_norm / norm)
    return gradient, norm


class Optimizer(Protocol):
    """The interface of an optimizer; `SGD` and `Adam` implement it."""

    def init(self, theta: np.ndarray) -> Any: ...
    def step(
        self, state: Any, theta: np.ndarray, gradient: np.ndarray, learning_rate: float
    ) -> tuple[Any, np.ndarray]: ...


def require_optimizer(name: str, value: Any) -> None:
    """Raise ValueError unless `value` is an optimizer: it has `init`, and `step` of 4 arguments."""
    require_methods(name, value, "init", "step")
    try:
        inspect.signature(value.step).bind(None, None, None, None)
    except TypeError:
        raise ValueError(
            f"{name} must have step(state, theta, gradient, learning_rate), as SGD() and Adam() "
            f"do, got {described(value)}"
        ) from None


CheckedOptimizer = Annotated[Optimizer, require_optimizer]


@dataclass(frozen=True)
class SGD:
    """Gradient descent: theta - learning_rate * gradient."""

    def init(self, theta: np.ndarray) -> None:
        """SGD has no state."""

    def step(
        self, state: None, theta: np.ndarray, gradient: np.ndarray, learning_rate: float
    ) -> tuple[None, np.ndarray]:
        """One step down the gradient."""
        return None, theta - learning_rate * gradient


def require_decay(name: str, value: float) -> None:
    """Raise ValueError unless `value` lies in [0, 1)."""
    if not 0 <= value < 1:
        raise ValueError(f"{name} must lie in [0, 1), got {value!r}")


Decay = Annotated[float, require_decay]


class AdamState(NamedTuple):
    """First and second moment and the number of steps taken.

    The moments are those of all entries of theta (P,), or only those of K `entries`: where the
    gradient has always been 0, both moments are 0 and Adam does not move theta. This makes the
    steps of a large table fast, in which few states are ever visited. The results are the same.
    """

    mean: np.ndarray
    square: np.ndarray
    steps: int
    entries: np.ndarray | None = None  # their indices in theta, sorted; None for all


def _with_moments_for(gradient: np.ndarray, state: AdamState) -> AdamState:
    """The state with moments for each entry of theta that has a gradient; new moments are 0."""
    mean, square, steps, entries = state
    if entries is None and steps > 0:
        return state
    has_gradient = gradient != 0
    count = np.count_nonzero(has_gradient)
    if entries is None:
        if count > gradient.size // SPARSE:
            return state
        entries = np.flatnonzero(has_gradient)
        return AdamState(mean[entries], square[entries], steps, entries)
    if count == np.count_nonzero(has_gradient[entries]):
        return state
    wider = np.union1d(entries, np.flatnonzero(has_gradient))
    place = np.searchsorted(wider, entries)
    mean, square = np.zeros((2, wider.size), gradient.dtype)
    mean[place], square[place] = state.mean, state.square
    return AdamState(mean, square, steps, wider if wider.size < gradient.size else None)


@dataclass(frozen=True)
class Adam:
    """Adam with bias correction (Kingma and Ba 2015, Algorithm 1, in its efficient form).

    Parameters
    ----------
    beta1, beta2 : float
        Decay of the first and second moment, in [0, 1).
    epsilon : float
        Added to the root of the second moment. The paper uses 1e-8; many PPO codebases use 1e-5.

    Notes
    -----
    If few entries of the first gradient differ from 0, as in a large table, the state holds moments
    only for entries that have had a gradient. The steps are the same: see `AdamState`.
    """

    beta1: Decay = 0.9
    beta2: Decay = 0.999
    epsilon: Positive = 1e-8

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, theta: np.ndarray) -> AdamState:
        """Zero moments."""
        return AdamState(np.zeros_like(theta), np.zeros_like(theta), 0)

    def step(
        self, state: AdamState, theta: np.ndarray, gradient: np.ndarray, learning_rate: float
    ) -> tuple[AdamState, np.ndarray]:
        """One bias-corrected step down the gradient."""
        state = _with_moments_for(gradient, state)
        if state.entries is not None:
            gradient = gradient[state.entries]
        steps = state.steps + 1
        # Both bias corrections are gathered in the rate; epsilon is scaled to match.
        root_correction = math.sqrt(1 - self.beta2**steps)
        rate = learning_rate * root_correction / (1 - self.beta1**steps)
        # One scratch array for all intermediate results: fresh memory costs as much as arithmetic.
        scratch = (1 - self.beta1) * gradient
        mean = self.beta1 * state.mean
        mean += scratch
        np.multiply(gradient, gradient, out=scratch)
        scratch *= 1 - self.beta2
        square = self.beta2 * state.square
        square += scratch
        update = np.sqrt(square, out=scratch)
        update += self.epsilon * root_correction
        np.divide(mean, update, out=update)
        update *= rate
        state = AdamState(mean, square, steps, state.entries)
        if state.entries is None:
            return state, np.subtract(theta, update, out=update)
        theta = theta.copy()
        theta[state.entries] -= update
        return state, theta


check_arguments(__name__, often=("at_progress", "clip_by_norm", "SGD.step", "Adam.step"))
