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
    LinearSchedule,
    Optimizer,
    clip_by_norm,
    require_optimizer,
    scheduled,
)
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    require_flag,
    require_non_negative,
    require_positive,
    require_positive_or_none,
)


@dataclass(frozen=True, eq=False)
class PolicyGradientState:
    """The policy and its optimizer's state."""

    policy: Policy
    optimizer: Any


def policy_gradient_loss(
    distribution: Distribution, batch: Batch, advantages: np.ndarray
) -> tuple[float, np.ndarray]:
    """Equation (2) and its derivative dL/deta (N, d).

    Only the gradient is meaningful; the value does not measure performance. Both are sums over rows
    times `weight`, as the gradient of the discounted return requires, never divided by the
    weights' sum.
    """
    weighted = batch.weight * advantages
    loss = -float(weighted @ distribution.log_prob(batch.actions))
    return loss, -weighted[:, None] * distribution.grad_log_prob(batch.actions)


def surrogate(ratio: np.ndarray, batch: Batch, advantages: np.ndarray) -> float:
    """Equation (3), from ratio = pi(a|s) / pi_old(a|s) (N,).

    A ratio of infinity counts as the largest number, so that an advantage of 0 contributes 0.
    """
    return float((batch.weight * advantages) @ np.minimum(ratio, np.finfo(ratio.dtype).max))


def entropy_bonus(
    distribution: Distribution, batch: Batch, coefficient: float
) -> tuple[float, np.ndarray]:
    """- coefficient * sum_i w_i H(pi(.|s_i)) and its derivative in eta (N, d)."""
    weighted = coefficient * batch.weight
    loss = -float(weighted @ distribution.entropy())
    return loss, -weighted[:, None] * distribution.grad_entropy()


def step_report(
    old: Distribution, new: Distribution, batch: Batch, advantages: np.ndarray
) -> dict[str, float]:
    """What a step did to the policy: `surrogate_improvement`, `kl` and `entropy` (see metrics).

    The improvement is a sum over rows times `weight`, as the surrogate is. KL and entropy are means
    sum_i u_i KL(old_i || new_i) and sum_i u_i H(new_i) with u the batch's `mean_weight`.
    A Gaussian policy also reports its `smallest_std`.
    """
    ratio = np.exp(new.log_prob(batch.actions) - old.log_prob(batch.actions))
    before = float(batch.weight @ advantages)
    report = {
        "surrogate_improvement": surrogate(ratio, batch, advantages) - before,
        "kl": float(batch.mean_weight @ old.kl(new)),
        "entropy": float(batch.mean_weight @ new.entropy()),
    }
    if isinstance(new, DiagonalGaussian):
        report["smallest_std"] = float(np.exp(new.log_std.min()))
    return report


@dataclass(frozen=True, kw_only=True)
class PolicyGradient:
    """One gradient step a batch.

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

    learning_rate: float | LinearSchedule = 1e-2
    normalize_advantages: bool = False
    entropy_coefficient: float | LinearSchedule = 0.0
    max_gradient_norm: float | None = None
    optimizer: Optimizer = Adam()

    def __post_init__(self) -> None:
        require_flag("normalize_advantages", self.normalize_advantages)
        require_positive("learning_rate", scheduled(self.learning_rate, 0.0))
        require_non_negative("entropy_coefficient", scheduled(self.entropy_coefficient, 0.0))
        require_positive_or_none("max_gradient_norm", self.max_gradient_norm)
        require_optimizer(self.optimizer)

    def init(self, policy: Policy) -> PolicyGradientState:
        """The state before the first update."""
        return PolicyGradientState(policy, self.optimizer.init(policy.parameters))

    def update(
        self, state: PolicyGradientState, batch: Batch, rng: np.random.Generator, progress: float
    ) -> tuple[PolicyGradientState, dict[str, float]]:
        """One step up the gradient; `progress` in [0, 1) of training drives schedules."""
        policy = state.policy
        # (1) the advantages
        advantages = batch.advantages
        if self.normalize_advantages:
            advantages = batch.normalized_advantages()
        # (2) the loss and its gradient
        old, cache = policy.forward(batch.observations)
        loss, d_eta = policy_gradient_loss(old, batch, advantages)
        coefficient = scheduled(self.entropy_coefficient, progress)
        if coefficient > 0:
            d_eta = d_eta + entropy_bonus(old, batch, coefficient)[1]
        gradient, norm = clip_by_norm(policy.vjp(cache, d_eta), self.max_gradient_norm)
        # (3) the step
        optimizer, theta = self.optimizer.step(
            state.optimizer, policy.parameters, gradient, scheduled(self.learning_rate, progress)
        )
        policy = policy.with_parameters(theta)
        # (4) what the step did
        new, _ = policy.forward(batch.observations)
        return replace(state, policy=policy, optimizer=optimizer), {
            **step_report(old, new, batch, advantages),
            "policy_loss": loss,
            "gradient_norm": norm,
            "gradient_equivalents": float(len(batch)),
        }


check_arguments(__name__, often=("surrogate", "entropy_bonus", "policy_gradient_loss"))
