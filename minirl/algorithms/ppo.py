"""Proximal policy optimisation (Schulman, Wolski, Dhariwal, Radford and Klimov 2017).

With ratio_i = pi(a_i|s_i) / pi_old(a_i|s_i), several epochs of minibatch steps down one of::

    - sum_i w_i min(ratio_i A_i, clip(ratio_i, 1 - epsilon, 1 + epsilon) A_i)     `Clipped`    (1)
    - sum_i w_i ratio_i A_i                                                       `Unclipped`  (2)
    (2) + beta * sum_i w_i KL(pi_old || pi)(s_i)                                  `FixedKL`    (3)
    (3) with beta halved or doubled to keep the KL near a target                  `AdaptiveKL` (4)

(1) is the paper's L^CLIP, (3) and (4) its L^KLPEN. The KL that (4) and `target_kl` compare with
their target is a mean, weighted by the batch's `mean_weight`.
"""

from dataclasses import dataclass, replace
from typing import Annotated, Any, Protocol

import numpy as np

from minirl.algorithms.policy_gradient import entropy_bonus, step_report
from minirl.algorithms.ratio_objectives import (
    ClippedWeight,
    SequenceClip,
    SequenceRatio,
    SoftGate,
    Uncorrected,
)
from minirl.batch import Batch
from minirl.distributions import Distribution
from minirl.optimizers import (
    Adam,
    CheckedOptimizer,
    LinearSchedule,
    NonNegativeSchedule,
    PositiveSchedule,
    clip_by_norm,
    require_positive_at_start,
)
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.fields import Count, Flag, Positive, PositiveOrNone, Repetitions, check_fields
from minirl.support.validation import require_methods

COEFFICIENT_RANGE = 2.0**20  # largest factor between an adaptive coefficient and its start


def _require_positive_or_none_at_start(name: str, value: float | LinearSchedule | None) -> None:
    if value is not None:
        require_positive_at_start(name, value)


@dataclass(frozen=True)
class Clipped:
    """Objective (1); `epsilon` is the largest change of the ratio that is rewarded.

    Parameters
    ----------
    epsilon : float or LinearSchedule
        The ratio is clipped to [1 - epsilon, 1 + epsilon_high].
    epsilon_high : float or LinearSchedule, optional
        Default: epsilon. DAPO uses 0.2 and 0.28 ("clip higher").
    """

    epsilon: PositiveSchedule = 0.2
    epsilon_high: Annotated[float | LinearSchedule | None, _require_positive_or_none_at_start] = (
        None
    )

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, ratio: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """The loss (1) and its derivative, see `clipped_surrogate_loss`."""
        return clipped_surrogate_loss(ratio, batch, *self.bounds)

    @property
    def bounds(self) -> tuple[float, float]:
        """The two epsilons as numbers, for an objective without schedules."""
        low = float(self.epsilon)
        high = low if self.epsilon_high is None else float(self.epsilon_high)
        return low, high


@dataclass(frozen=True)
class Unclipped:
    """Objective (2): nothing keeps the policy near the old one."""


@dataclass(frozen=True)
class FixedKL:
    """Objective (3); `beta` in units of advantage per nat."""

    beta: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class AdaptiveKL:
    """Objective (4): keeps the mean KL of an update near `target` nats, starting at `beta`.

    The coefficient stays within a factor of 2^20, about a million, of its start. A longer run of
    halvings would end at 0, and one of doublings at infinity, which no later update could leave.
    """

    target: Positive = 0.01
    beta: Positive = 1.0

    def __post_init__(self) -> None:
        check_fields(self)

    def next_beta(self, beta: float, kl: float) -> float:
        """Half of beta if kl < target / 1.5, twice if kl > 1.5 target, else beta; bounded."""
        if kl < self.target / 1.5:
            return max(beta / 2, self.beta / COEFFICIENT_RANGE)
        return min(beta * 2, self.beta * COEFFICIENT_RANGE) if kl > self.target * 1.5 else beta


@dataclass(frozen=True, eq=False)
class PPOState:
    """The policy, its optimizer's state, the KL coefficient (0 without one), and the penalty."""

    policy: Policy
    optimizer: Any
    beta: float
    penalty: "Penalty | None" = None


def clipped_surrogate_loss(
    ratio: np.ndarray, batch: Batch, epsilon: float, epsilon_high: float | None = None
) -> tuple[float, np.ndarray]:
    """-sum_i w_i min(ratio_i A_i, clip(ratio_i, 1 - epsilon, 1 + epsilon) A_i), objective (1).

    Returned with its derivative with respect to log pi(a_i|s_i), (N,). epsilon = inf gives
    objective (2), - sum_i w_i ratio_i A_i. With `epsilon_high`, the upper bound is
    1 + epsilon_high.

    The derivative is 0 where the ratio has already left the interval in the direction in which its
    advantage pushes it, and only there: the minimum keeps the gradient that leads back. A ratio of
    infinity counts as the largest number, so that an advantage of 0 gives 0.
    """
    ratio = np.minimum(ratio, np.finfo(ratio.dtype).max)
    gain = ratio * batch.advantages
    high = epsilon if epsilon_high is None else epsilon_high
    clipped_gain = ratio.clip(1 - epsilon, 1 + high) * batch.advantages
    loss = -float(batch.weight @ np.minimum(gain, clipped_gain))
    return loss, -batch.weight * np.where(gain <= clipped_gain, gain, 0)


def kl_to_old_policy(
    old: Distribution, new: Distribution, weight: np.ndarray, beta: float
) -> tuple[float, np.ndarray]:
    """beta * sum_i w_i KL(old_i || new_i) and its derivative with respect to the new eta (N, d)."""
    weighted = beta * weight
    return float(weighted @ old.kl(new)), weighted[:, None] * old.grad_kl(new, wrt="other")


Objective = (
    Clipped
    | Unclipped
    | FixedKL
    | AdaptiveKL
    | SequenceRatio
    | SequenceClip
    | ClippedWeight
    | SoftGate
    | Uncorrected
)


class Penalty(Protocol):
    """The interface of a further term of the loss."""

    def init(self, policy: Policy) -> "Penalty": ...
    def loss(self, new: Any, batch: Batch) -> tuple[float, np.ndarray]: ...


@dataclass(frozen=True, kw_only=True)
class PPO:
    """Epochs of minibatch steps on one batch.

    Parameters
    ----------
    objective : Clipped, Unclipped, FixedKL, AdaptiveKL or one of `ratio_objectives`
    learning_rate : float or LinearSchedule
        Of the optimizer.
    epochs : int
        Passes over the batch.
    minibatch_size : int
        Rows per step, approximately (see `Batch.minibatches`).
    target_kl : float, optional
        Stop after the epoch in which the mean KL(old || new) has passed this many nats.
    normalize_advantages : bool
        Whiten the advantages, once over the whole batch.
    entropy_coefficient : float or LinearSchedule
        Weight of the entropy bonus, in units of advantage per nat.
    max_gradient_norm : float, optional
        Longer gradients are shortened to this Euclidean norm.
    optimizer : Optimizer
        Turns each minibatch's gradient into a step.
    penalty : Penalty, optional
        A term of the loss besides the objective, such as `minirl.rlhf.ReferenceLoss`. Its
        ``init(policy)`` returns the penalty that belongs to the initial policy, whose
        ``loss(new, minibatch)`` returns the term and its derivative with respect to eta (N, d).
    """

    objective: Objective = Clipped()
    learning_rate: PositiveSchedule = 3e-4
    epochs: Repetitions = 10
    minibatch_size: Count = 64
    target_kl: PositiveOrNone = None
    normalize_advantages: Flag = False
    entropy_coefficient: NonNegativeSchedule = 0.0
    max_gradient_norm: PositiveOrNone = None
    optimizer: CheckedOptimizer = Adam()
    penalty: Penalty | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.objective, Objective):
            raise ValueError(
                "objective must be Clipped(...), Unclipped(), FixedKL(...), AdaptiveKL(...) or an "
                f"objective of minirl.algorithms.ratio_objectives, got {self.objective!r}"
            )
        if self.penalty is not None:
            require_methods("penalty", self.penalty, "init", "loss")

    def init(self, policy: Policy) -> PPOState:
        """The state before the first update."""
        return PPOState(
            policy,
            self.optimizer.init(policy.parameters),
            getattr(self.objective, "beta", 0.0),
            None if self.penalty is None else self.penalty.init(policy),
        )

    def step(
        self,
        state: PPOState,
        minibatch: Batch,
        old: Distribution | None,
    ) -> tuple[PPOState, float, float]:
        """One optimizer step: the new state, the gradient norm and the clip fraction.

        `old` holds the old distributions of the minibatch's rows; needed with a KL penalty.
        """
        policy = state.policy
        new, cache = policy.forward(minibatch.observations)
        ratio = np.exp(new.log_prob(minibatch.actions) - minibatch.log_probs)
        if isinstance(self.objective, Unclipped | FixedKL | AdaptiveKL):
            _, d_log_prob = clipped_surrogate_loss(ratio, minibatch, np.inf)
        else:
            _, d_log_prob = self.objective.loss(ratio, minibatch)
        d_eta = d_log_prob[:, None] * new.grad_log_prob(minibatch.actions)
        if old is not None:
            d_eta = d_eta + kl_to_old_policy(old, new, minibatch.weight, state.beta)[1]
        if float(self.entropy_coefficient) > 0:
            d_eta = d_eta + entropy_bonus(new, minibatch, float(self.entropy_coefficient))[1]
        if state.penalty is not None:
            d_eta = d_eta + state.penalty.loss(new, minibatch)[1]
        gradient, norm = clip_by_norm(policy.vjp(cache, d_eta), self.max_gradient_norm)
        optimizer, theta = self.optimizer.step(
            state.optimizer, policy.parameters, gradient, float(self.learning_rate)
        )
        clip_fraction = 0.0
        if isinstance(self.objective, Clipped):
            low, high = self.objective.bounds
            outside = (ratio < 1 - low) | (ratio > 1 + high)
            clip_fraction = np.count_nonzero(outside) / len(ratio)
        state = replace(state, policy=policy.with_parameters(theta), optimizer=optimizer)
        return state, norm, clip_fraction

    def update(
        self, state: PPOState, batch: Batch, rng: np.random.Generator
    ) -> tuple[PPOState, dict[str, float]]:
        """`epochs` passes of minibatch steps over one batch."""
        # (1) the advantages
        if self.normalize_advantages:
            batch = batch.with_normalized_advantages()
        # (2) the old policy, which ratios and KL refer to
        old = state.policy(batch.observations)
        norms, clip_fractions, epochs = [], [], 0
        for _ in range(self.epochs):
            # (3) one epoch of minibatch steps
            for rows, minibatch in batch.minibatches(self.minibatch_size, rng):
                old_rows = state.policy.distribution(old.eta[rows]) if state.beta > 0 else None
                state, norm, clip_fraction = self.step(state, minibatch, old_rows)
                norms.append(norm)
                clip_fractions.append(clip_fraction)
            epochs += 1
            # (4) stop early if the policy has moved too far
            if self.target_kl is not None:
                new = state.policy(batch.observations)
                if float(batch.mean_weight @ old.kl(new)) > self.target_kl:
                    break
        # (5) the effect of all epochs
        new = state.policy(batch.observations)
        # Forward passes that decide something count: the old policy's for a penalty, the stop's.
        forwards = (state.beta > 0) + epochs * (self.target_kl is not None)
        metrics = {
            **step_report(old, new, batch),
            "clip_fraction": float(np.mean(clip_fractions)),
            "kl_coefficient": state.beta,
            "epochs": float(epochs),
            "gradient_norm": float(np.mean(norms)),
            "gradient_equivalents": (epochs + forwards / 3) * len(batch),
        }
        if isinstance(self.objective, AdaptiveKL):
            state = replace(state, beta=self.objective.next_beta(state.beta, metrics["kl"]))
        return state, metrics


check_arguments(__name__, often=("clipped_surrogate_loss", "kl_to_old_policy", "PPO.step"))
