"""Policy gradient: follow the gradient of the expected return::

    grad J = E[ grad log pi(a|s) A(s, a) ]                                        (1)
    loss(theta) = - sum_i w_i A_i log pi(a_i|s_i)                                 (2)
    L_old(theta) = sum_i w_i A_i pi(a_i|s_i) / pi_old(a_i|s_i)                    (3)

The gradients of -(2) and of the surrogate (3) at theta_old both estimate (1). REINFORCE (Williams
1992) and the vanilla policy gradient (Sutton et al. 2000) are settings: `RewardToGo(discount)`
gives the first, `GAE(discount, lam)` the second, as in Schulman et al. 2016.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minirl.batch import Batch
from minirl.distributions import DiagonalGaussian, Distribution
from minirl.optimizers import (
    Adam,
    CheckedOptimizer,
    NonNegativeSchedule,
    PositiveSchedule,
    clip_by_norm,
)
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.fields import Flag, PositiveOrNone, check_fields


@dataclass(frozen=True, eq=False)
class PolicyGradientState:
    """The policy and its optimizer's state."""

    policy: Policy
    optimizer: Any


def policy_gradient_loss(distribution: Distribution, batch: Batch) -> tuple[float, np.ndarray]:
    """L = - sum_i w_i A_i log pi(a_i|s_i), equation (2), and its derivative dL/deta (N, d).

    Only the gradient is meaningful; the value does not measure performance. Both are sums over rows
    times `weight`, as the gradient of the discounted return requires, never divided by the
    weights' sum.
    """
    weighted = batch.weight * batch.advantages
    loss = -float(weighted @ distribution.log_prob(batch.actions))
    return loss, -weighted[:, None] * distribution.grad_log_prob(batch.actions)


def surrogate(ratio: np.ndarray, batch: Batch) -> float:
    """L_old = sum_i w_i A_i ratio_i, equation (3), from ratio = pi(a|s) / pi_old(a|s) (N,).

    A ratio of infinity counts as the largest number, so that an advantage of 0 contributes 0.
    """
    return float((batch.weight * batch.advantages) @ np.minimum(ratio, np.finfo(ratio.dtype).max))


def entropy_bonus(
    distribution: Distribution, batch: Batch, coefficient: float
) -> tuple[float, np.ndarray]:
    """-coefficient * sum_i w_i H(pi(.|s_i)) and its derivative with respect to eta (N, d)."""
    weighted = coefficient * batch.weight
    loss = -float(weighted @ distribution.entropy())
    return loss, -weighted[:, None] * distribution.grad_entropy()


def step_report(old: Distribution, new: Distribution, batch: Batch) -> dict[str, float]:
    """The effect of a step on the policy: `surrogate_improvement`, `kl` and `entropy`.

    The improvement is a sum over rows times `weight`, as the surrogate is. KL and entropy are means
    sum_i u_i KL(old_i || new_i) and sum_i u_i H(new_i) with u the batch's `mean_weight`.
    A Gaussian policy also reports its `smallest_std`.
    """
    ratio = np.exp(new.log_prob(batch.actions) - old.log_prob(batch.actions))
    before = float(batch.weight @ batch.advantages)
    report = {
        "surrogate_improvement": surrogate(ratio, batch) - before,
        "kl": float(batch.mean_weight @ old.kl(new)),
        "entropy": float(batch.mean_weight @ new.entropy()),
    }
    if isinstance(new, DiagonalGaussian):
        report["smallest_std"] = float(np.exp(new.log_std.min()))
    return report


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """One gradient step per batch.

    Parameters
    ----------
    learning_rate : float or LinearSchedule
        Of the optimizer.
    normalize_advantages : bool
        Whiten the batch's advantages: makes the rate independent of the reward's scale.
    entropy_coefficient : float or LinearSchedule
        Weight of the entropy bonus, in units of advantage per nat.
    max_gradient_norm : float, optional
        Longer gradients are shortened to this Euclidean norm.
    optimizer : Optimizer
        Turns the gradient into a step.
    """

    learning_rate: PositiveSchedule = 1e-2
    normalize_advantages: Flag = False
    entropy_coefficient: NonNegativeSchedule = 0.0
    max_gradient_norm: PositiveOrNone = None
    optimizer: CheckedOptimizer = Adam()

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, policy: Policy) -> PolicyGradientState:
        """The state before the first update."""
        return PolicyGradientState(policy, self.optimizer.init(policy.parameters))

    def update(
        self, state: PolicyGradientState, batch: Batch, rng: np.random.Generator
    ) -> tuple[PolicyGradientState, dict[str, float]]:
        """One optimizer step down the gradient of loss (2); `rng` is not used."""
        policy = state.policy
        # (1) the advantages
        if self.normalize_advantages:
            batch = batch.with_normalized_advantages()
        # (2) the loss and its gradient
        old, cache = policy.forward(batch.observations)
        loss, d_eta = policy_gradient_loss(old, batch)
        if float(self.entropy_coefficient) > 0:
            d_eta = d_eta + entropy_bonus(old, batch, float(self.entropy_coefficient))[1]
        gradient, norm = clip_by_norm(policy.vjp(cache, d_eta), self.max_gradient_norm)
        # (3) the step
        optimizer, theta = self.optimizer.step(
            state.optimizer, policy.parameters, gradient, float(self.learning_rate)
        )
        policy = policy.with_parameters(theta)
        # (4) the effect of the step
        new = policy(batch.observations)
        return replace(state, policy=policy, optimizer=optimizer), {
            **step_report(old, new, batch),
            "policy_loss": loss,
            "gradient_norm": norm,
            "gradient_equivalents": float(len(batch)),
        }


check_arguments(__name__, often=("surrogate", "entropy_bonus", "policy_gradient_loss"))
