"""Natural policy gradient: steepest ascent, with distance measured between policies by the KL::

    F = sum_i w_i J_i^T M_i J_i     J = d eta / d theta,  M = Fisher matrix of the distribution  (1)
    F v = vjp(w M jvp(v))                                                              (2)
    theta + step_size * x,   (F + damping I) x = g                                     (3)

Kakade 2001; with conjugate gradient and Fisher-vector products as in Schulman et al. 2015 (TRPO),
whose direction this is. F is exact for the batch: an expectation over actions, not a sample of it.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from minirl.algorithms.policy_gradient import policy_gradient_loss, step_report
from minirl.batch import Batch
from minirl.distributions import Distribution
from minirl.optimizers import PositiveSchedule
from minirl.policy import Policy
from minirl.solvers import ConjugateGradientResult, conjugate_gradient
from minirl.support.arguments import check_arguments
from minirl.support.fields import Flag, NonNegative, Repetitions, check_fields


@dataclass(frozen=True, eq=False)
class NaturalGradientState:
    """The policy; a natural-gradient update needs no other memory."""

    policy: Policy


def fisher_vector_product(
    policy: Policy, cache: Any, distribution: Distribution, weight: np.ndarray, vector: np.ndarray
) -> np.ndarray:
    """F v = sum_i w_i J_i^T M_i J_i v (P,), equation (2), exact and without forming F.

    F is also the Hessian of the mean KL(old || new) at new = old.

    Parameters
    ----------
    cache, distribution
        From `policy.forward` on the batch's observations.
    weight : ndarray (N,)
    vector : ndarray (P,)
    """
    d_eta = distribution.fisher_product(policy.jvp(cache, vector))
    return policy.vjp(cache, weight[:, None] * d_eta)


def natural_direction(
    policy: Policy,
    cache: Any,
    distribution: Distribution,
    batch: Batch,
    gradient: np.ndarray,
    *,
    damping: float,
    iterations: int,
) -> ConjugateGradientResult:
    """Solve (F + damping I) x = g for x by conjugate gradient, equation (3).

    F is weighted by the batch's `weight`, as g is, so that a factor on all weights cancels where
    damping is 0. Damping keeps the system well conditioned: directions in which the batch says
    nothing about the policy (F v near 0) would otherwise get huge steps.
    """

    def product(vector: np.ndarray) -> np.ndarray:
        fisher = fisher_vector_product(policy, cache, distribution, batch.weight, vector)
        return fisher + damping * vector

    return conjugate_gradient(product, gradient, iterations=iterations)


@dataclass(frozen=True, kw_only=True)
class NaturalGradient:
    """One natural-gradient step of fixed size per batch.

    Parameters
    ----------
    step_size : float or LinearSchedule
        Factor on the natural direction; unlike TRPO's, its step shrinks with the gradient.
    damping : float
        Added to F's diagonal.
    cg_iterations : int
        Largest number of conjugate-gradient iterations.
    normalize_advantages : bool
        Whiten the batch's advantages: makes the step independent of the reward's scale.
    """

    step_size: PositiveSchedule = 0.1
    damping: NonNegative = 0.1
    cg_iterations: Repetitions = 10
    normalize_advantages: Flag = False

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, policy: Policy) -> NaturalGradientState:
        """The state before the first update."""
        return NaturalGradientState(policy)

    def update(
        self, state: NaturalGradientState, batch: Batch, rng: np.random.Generator
    ) -> tuple[NaturalGradientState, dict[str, float]]:
        """One step theta + step_size * x, with x from (F + damping I) x = g; `rng` is not used."""
        policy = state.policy
        # (1) the advantages
        if self.normalize_advantages:
            batch = batch.with_normalized_advantages()
        # (2) the gradient of the surrogate at the old policy
        old, cache = policy.forward(batch.observations)
        _, d_eta = policy_gradient_loss(old, batch)
        gradient = -policy.vjp(cache, d_eta)
        # (3) the natural direction
        solution = natural_direction(
            policy,
            cache,
            old,
            batch,
            gradient,
            damping=self.damping,
            iterations=self.cg_iterations,
        )
        # (4) the step
        step = float(self.step_size) * solution.x
        policy = policy.with_parameters(policy.parameters + step)
        # (5) the effect of the step
        new = policy(batch.observations)
        products = len(solution.residual_norms) - 1
        return replace(state, policy=policy), {
            **step_report(old, new, batch),
            "expected_improvement": float(gradient @ step),
            "gradient_norm": solution.residual_norms[0],
            "cg_iterations": float(products),
            "cg_residual": solution.relative_residual,
            "gradient_equivalents": len(batch) * (1 + products * 4 / 3),
        }


check_arguments(__name__, often=("fisher_vector_product",))
