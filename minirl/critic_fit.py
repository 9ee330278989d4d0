"""Fitting the critic: a separate step, shared by all algorithms.

The critic regresses on the returns of the current batch before the policy is updated; advantages
were computed with the values from before the fit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minirl.batch import Batch
from minirl.networks import Table
from minirl.optimizers import (
    Adam,
    CheckedOptimizer,
    PositiveSchedule,
    clip_by_norm,
)
from minirl.policy import Critic
from minirl.support.arguments import check_arguments
from minirl.support.fields import Count, PositiveOrNone, Repetitions, check_fields


@dataclass(frozen=True, eq=False)
class CriticState:
    """The critic and its optimizer's state."""

    critic: Critic
    optimizer: Any


def value_loss(
    values: np.ndarray, batch: Batch, clip_range: float | None = None
) -> tuple[float, np.ndarray]:
    """L = sum_i w_i (V(s_i) - R_i)^2 / 2 and its derivative dL/dV (N,).

    With `clip_range`, the larger of this loss and that of the value clipped to within clip_range
    of the old one counts (the value clipping of OpenAI Baselines' PPO2; not in the paper).
    """
    error = values - batch.returns
    weighted = batch.weight * error
    if clip_range is None:
        return float(0.5 * (weighted @ error)), weighted
    clipped = batch.values + np.clip(values - batch.values, -clip_range, clip_range)
    clipped_error = clipped - batch.returns
    # Where clipping binds and gives the larger loss, moving V changes nothing.
    bound = (np.abs(values - batch.values) > clip_range) & (clipped_error**2 > error**2)
    loss = 0.5 * float(batch.weight @ np.maximum(error**2, clipped_error**2))
    return loss, np.where(bound, 0.0, weighted).astype(weighted.dtype)


def explained_variance(values: np.ndarray, returns: np.ndarray) -> float:
    """1 - Var(R - V) / Var(R): 1 is perfect, 0 no better than a constant; nan if R is constant.

    R is constant if it varies by no more than the rounding of its values.
    """
    rounding = 8 * np.finfo(np.result_type(returns, np.float32)).eps * np.abs(returns).max()
    if np.ptp(returns) <= rounding:
        return float("nan")
    variance = float(returns.var(dtype=np.float64))
    return 1 - float((returns - values).var(dtype=np.float64)) / variance


def _as_mean(loss: float, batch: Batch) -> float:
    """A sum over rows times `weight` as the sum over rows times `mean_weight`."""
    total = float(batch.weight.sum())
    return loss * (float(batch.mean_weight.sum()) / total) if total > 0 else loss


@dataclass(frozen=True, kw_only=True)
class CriticFit:
    """Minibatch regression of the critic on the batch's returns.

    Parameters
    ----------
    learning_rate : float or LinearSchedule
    epochs : int
        Passes over the batch.
    minibatch_size : int
        Rows per step, approximately (see `Batch.minibatches`).
    value_clip : float, optional
        See `value_loss`; off by default.
    max_gradient_norm : float, optional
        Longer gradients are shortened to this Euclidean norm. Policy and critic are separate.
    optimizer : Optimizer
    """

    learning_rate: PositiveSchedule = 1e-3
    epochs: Repetitions = 10
    minibatch_size: Count = 128
    value_clip: PositiveOrNone = None
    max_gradient_norm: PositiveOrNone = None
    optimizer: CheckedOptimizer = Adam()

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, critic: Critic) -> CriticState:
        """The state before the first fit."""
        return CriticState(critic, self.optimizer.init(critic.parameters))

    def step(self, state: CriticState, minibatch: Batch) -> tuple[CriticState, float, float]:
        """One optimizer step: the new state, the loss before it and the gradient norm."""
        values, cache = state.critic.forward(minibatch.observations)
        loss, d_values = value_loss(values, minibatch, self.value_clip)
        gradient, norm = clip_by_norm(state.critic.vjp(cache, d_values), self.max_gradient_norm)
        optimizer, theta = self.optimizer.step(
            state.optimizer, state.critic.parameters, gradient, float(self.learning_rate)
        )
        return CriticState(state.critic.with_parameters(theta), optimizer), loss, norm

    def fit(
        self, state: CriticState, batch: Batch, rng: np.random.Generator
    ) -> tuple[CriticState, dict[str, float]]:
        """`epochs` passes of minibatch steps over one batch."""
        losses, norms = [], []
        for _ in range(self.epochs):
            for _, minibatch in batch.minibatches(self.minibatch_size, rng):
                state, loss, norm = self.step(state, minibatch)
                losses.append(loss)
                norms.append(norm)
        steps_per_epoch = len(losses) // self.epochs
        return state, {
            "value_loss": _as_mean(float(np.mean(losses[-steps_per_epoch:])), batch),
            "explained_variance": explained_variance(batch.values, batch.returns),
            "critic_gradient_norm": float(np.mean(norms)),
            "critic_gradient_equivalents": float(self.epochs * len(batch)),
        }


@dataclass(frozen=True, kw_only=True)
class TableFit:
    """For tables: each visited state's value moves towards the mean of its returns.

    V(s) + rate (mean of R_i over the visits of s - V(s)). No gradient, so no learning rate that
    depends on how often a state is seen.

    Parameters
    ----------
    rate : float
        In (0, 1].
    """

    rate: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {self.rate!r}")

    def init(self, critic: Critic) -> CriticState:
        """The state before the first fit; raises ValueError if the critic is not a table."""
        if not isinstance(critic.network, Table):
            raise ValueError(
                f"TableFit fits tables (Discrete observations), got {critic.network}; use CriticFit"
            )
        return CriticState(critic, None)

    def fit(
        self, state: CriticState, batch: Batch, rng: np.random.Generator
    ) -> tuple[CriticState, dict[str, float]]:
        """One move of every visited state; deterministic."""
        critic = state.critic
        loss, _ = value_loss(critic.values(batch.observations), batch)
        visits = np.bincount(batch.observations, batch.weight, critic.network.size)
        sums = np.bincount(batch.observations, batch.weight * batch.returns, critic.network.size)
        visited = visits > 0
        theta = critic.parameters.copy()
        theta[visited] += self.rate * (sums[visited] / visits[visited] - theta[visited])
        return CriticState(critic.with_parameters(theta), None), {
            "value_loss": _as_mean(loss, batch),
            "explained_variance": explained_variance(batch.values, batch.returns),
            "critic_gradient_equivalents": float(len(batch)),
        }


check_arguments(__name__, often=("value_loss", "CriticFit.step"))
