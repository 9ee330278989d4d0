"""The KL to a frozen reference as a term of the loss, and three estimators of it.

Let log_ratio = log pi(y) - log pi_ref(y), in nats, for a response y sampled from pi. The mean of
each of these numbers estimates KL(pi || pi_ref)::

    k1 = log_ratio                           unbiased; its sign varies                       (1)
    k2 = log_ratio^2 / 2                     biased; less so for more similar policies       (2)
    k3 = exp(-log_ratio) - 1 + log_ratio     unbiased, at least 0; heavy-tailed for
                                             very different policies                         (3)

Differentiated as a *loss* at fixed samples, they have other expectations: E[grad k1] = 0,
E[grad k2] is the gradient of KL(pi || pi_ref), and E[grad k3] is the gradient of KL(pi_ref || pi).
RLHF therefore subtracts the KL from the reward (`minirl.rlhf.ReferenceKL`). GRPO and REINFORCE++
with a baseline have it in the loss.

Source: Schulman, "Approximating KL divergence" (2020) for the names.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minirl.batch import Batch
from minirl.distributions import Distribution
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.fields import Flag, Positive, check_fields
from minirl.support.validation import require_instance


def k1(log_ratio: np.ndarray) -> np.ndarray:
    """The estimates k1 = log_ratio of the KL; the derivative with respect to log pi is 1."""
    return log_ratio


def k2(log_ratio: np.ndarray) -> np.ndarray:
    """The estimates k2 = log_ratio^2 / 2; the derivative with respect to log pi is log_ratio."""
    return log_ratio * log_ratio / 2


def k3(log_ratio: np.ndarray) -> np.ndarray:
    """The estimates k3 = exp(-log_ratio) - 1 + log_ratio of the KL; infinite where pi(y) is 0.

    The derivative with respect to log pi is 1 - exp(-log_ratio).

    >>> k3(np.array([0.0, np.log(2.0)])).round(4)  # ref/pi - 1 + log(pi/ref) = 1/2 - 1 + 0.6931
    array([0.    , 0.1931])
    """
    with np.errstate(invalid="ignore"):  # inf - inf where pi(y) = 0: the exponential dominates
        estimate = np.expm1(-log_ratio) + log_ratio
    return np.where(np.isneginf(log_ratio), np.inf, estimate)


@dataclass(frozen=True)
class ReferenceLoss:
    """A KL to the reference as a term of the loss: ``beta sum_i w_i k(log_ratio_i)``, for `PPO`.

    log_ratio_i = log pi(a_i|s_i) - log pi_ref(a_i|s_i) of the sampled token. The rewards then
    contain no KL. This is where GRPO's paper puts it, with k3. It is not the gradient of
    ``beta KL(pi || pi_ref)`` of whole responses: see the module's docstring, and note that a term
    per token leaves out that a token also decides which penalties come later.

    Parameters
    ----------
    estimator : {"k1", "k2", "k3"}
        Whose gradient at fixed samples is taken. Its expectation, for whole responses of the
        current policy, is 0 for k1, grad KL(pi || pi_ref) for k2, grad KL(pi_ref || pi) for k3.
    beta : float
        The coefficient, in units of advantage per nat, above 0.
    reference : Policy, optional
        pi_ref. Default: the policy at the start of training.
    importance_weighted : bool
        Whether each term is multiplied by the ratio of its token, which is differentiated too. The
        expectation of k1 and of k3 is then right: the gradient of the KL at the given contexts.
    """

    estimator: Literal["k1", "k2", "k3"] = "k3"
    beta: Positive = 0.04
    reference: Policy | None = None
    importance_weighted: Flag = False

    def __post_init__(self) -> None:
        check_fields(self)
        if self.estimator not in ("k1", "k2", "k3"):
            raise ValueError(f'estimator must be "k1", "k2" or "k3", got {self.estimator!r}')
        if self.reference is not None:
            require_instance("reference", self.reference, Policy)

    def init(self, policy: Policy) -> "ReferenceLoss":
        """This term with the initial policy as its reference, unless it has one."""
        return self if self.reference is not None else replace(self, reference=policy)

    def loss(self, new: Distribution, batch: Batch) -> tuple[float, np.ndarray]:
        """The term of the loss and its derivative with respect to eta (N, d).

        Raises
        ------
        ValueError
            If `reference` is None.
        """
        if self.reference is None:
            raise ValueError(
                "ReferenceLoss needs a reference: init(policy) returns one that has it"
            )
        log_probs = new.log_prob(batch.actions)
        log_ratio = log_probs - self.reference(batch.observations).log_prob(batch.actions)
        estimate, slope = {
            "k1": (k1(log_ratio), np.ones_like(log_ratio)),
            "k2": (k2(log_ratio), log_ratio),
            "k3": (k3(log_ratio), -np.expm1(-log_ratio)),
        }[self.estimator]
        if self.importance_weighted:
            ratio = np.exp(log_probs - batch.log_probs)
            estimate, slope = ratio * estimate, ratio * (estimate + slope)
        weighted = self.beta * batch.weight
        d_eta = (weighted * slope)[:, None] * new.grad_log_prob(batch.actions)
        return float(weighted @ estimate), d_eta


check_arguments(__name__, often=("ReferenceLoss.loss",))
