"""Trust region policy optimisation (Schulman, Levine, Moritz, Jordan and Abbeel 2015)::

    maximise  L_old(theta) = sum_i w_i A_i pi(a_i|s_i) / pi_old(a_i|s_i)
    subject to mean KL(pi_old || pi) <= max_kl                                         (1)

    x = (F + damping I)^-1 g,   g = grad L_old(theta_old)                              (2)
    full step = sqrt(2 max_kl / x^T F x) x,   since mean KL is about step^T F step / 2   (3)
    step = the longest of 1, shrink, shrink^2, ... times (3) that keeps (1) exactly and
    improves L_old; if there is none, the parameters do not change                    (4)

F is the Fisher matrix of the mean KL, used in products only: see `natural_gradient`. The mean KL
and F are weighted by the batch's `mean_weight`, the surrogate and g by `weight`.
"""

from dataclasses import dataclass, replace

import numpy as np

from minirl.algorithms.natural_gradient import natural_direction
from minirl.algorithms.policy_gradient import policy_gradient_loss, step_report, surrogate
from minirl.batch import Batch
from minirl.distributions import Distribution
from minirl.policy import Policy
from minirl.solvers import ConjugateGradientResult, LineSearchResult, backtracking_line_search
from minirl.support.arguments import check_arguments
from minirl.support.fields import Flag, NonNegative, Positive, Repetitions, check_fields


@dataclass(frozen=True, eq=False)
class TRPOState:
    """The policy; a TRPO update needs no other memory."""

    policy: Policy


def full_step(solution: ConjugateGradientResult, damping: float, max_kl: float) -> np.ndarray:
    """sqrt(2 max_kl / x^T F x) x (P,), equation (3): the quadratic model of the KL equals max_kl.

    x^T F x comes from the solver's (F + damping I) x, without another product. All zeros if F sees
    no change of the policy along x.
    """
    x = solution.x
    curvature = float(x @ solution.product) - damping * float(x @ x)
    if not curvature > 0:
        return np.zeros_like(x)
    return x * (2 * max_kl / curvature) ** 0.5


def trust_region_search(
    policy: Policy,
    old: Distribution,
    batch: Batch,
    step: np.ndarray,
    *,
    max_kl: float,
    shrink: float,
    tries: int,
) -> LineSearchResult:
    """How much of `step` (P,) satisfies mean KL <= max_kl and improves L_old, equation (4).

    The fractions 1, shrink, shrink^2, ... are tried in this order, `tries` of them at most. The
    fraction of the result is 0 if none of them is accepted. The log-probabilities of the batch must
    be those of `policy`, which is the case if it collected the batch.
    """
    before = float(batch.weight @ batch.advantages)  # L_old at the old policy: all ratios are 1

    def reason_to_reject(fraction: float) -> str | None:
        new = policy.with_parameters(policy.parameters + fraction * step)(batch.observations)
        # Written so that a NaN is rejected.
        if not float(batch.mean_weight @ old.kl(new)) <= max_kl:
            return "KL above max_kl"
        ratio = np.exp(new.log_prob(batch.actions) - batch.log_probs)
        if not surrogate(ratio, batch) > before:
            return "surrogate not improved"
        return None

    return backtracking_line_search(reason_to_reject, shrink=shrink, tries=tries)


@dataclass(frozen=True, kw_only=True)
class TRPO:
    """One trust-region step per batch.

    Parameters
    ----------
    max_kl : float
        Bound on the mean KL(old || new), in nats (per sentence where weights are per sentence).
    damping : float
        Added to F's diagonal in (2); not part of the step length (3).
    cg_iterations : int
        Largest number of conjugate-gradient iterations.
    line_search_shrink : float
        Factor between tries, in (0, 1).
    line_search_tries : int
        Largest number of fractions tried. If all are rejected, the parameters do not change.
    normalize_advantages : bool
        Whiten the batch's advantages; the step is the same for any positive scale.
    """

    max_kl: Positive = 0.01
    damping: NonNegative = 0.1
    cg_iterations: Repetitions = 10
    line_search_shrink: float = 0.7
    line_search_tries: Repetitions = 10
    normalize_advantages: Flag = False

    def __post_init__(self) -> None:
        check_fields(self)
        if not 0 < self.line_search_shrink < 1:
            raise ValueError(
                f"line_search_shrink must lie in (0, 1), got {self.line_search_shrink!r}"
            )

    def init(self, policy: Policy) -> TRPOState:
        """The state before the first update."""
        return TRPOState(policy)

    def update(
        self, state: TRPOState, batch: Batch, rng: np.random.Generator
    ) -> tuple[TRPOState, dict[str, float]]:
        """One trust-region step; deterministic, so `rng` is not drawn from."""
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
            replace(batch, weight=batch.mean_weight),
            gradient,
            damping=self.damping,
            iterations=self.cg_iterations,
        )
        # (4) the full step and how much of it is accepted
        step = full_step(solution, self.damping, self.max_kl)
        search = trust_region_search(
            policy,
            old,
            batch,
            step,
            max_kl=self.max_kl,
            shrink=self.line_search_shrink,
            tries=self.line_search_tries,
        )
        if search.fraction > 0:
            policy = policy.with_parameters(policy.parameters + search.fraction * step)
        # (5) the effect of the step
        new = policy(batch.observations)
        products = len(solution.residual_norms) - 1
        tries = len(search.rejections) + (search.fraction > 0)
        return replace(state, policy=policy), {
            **step_report(old, new, batch),
            "expected_improvement": search.fraction * float(gradient @ step),
            "accepted_fraction": search.fraction,
            "gradient_norm": solution.residual_norms[0],
            "cg_iterations": float(products),
            "cg_residual": solution.relative_residual,
            "gradient_equivalents": len(batch) * (1 + products * 4 / 3 + tries / 3),
        }


check_arguments(__name__)
