"""Checks for your own code: is this derivative right, is this estimate unbiased?

Each check raises AssertionError with the numbers that disagree, and returns what it measured.
"""

from collections.abc import Callable

import numpy as np

from minirl.batch import Batch
from minirl.distributions import Distribution
from minirl.networks import Network
from minirl.policy import Policy
from minirl.support.arguments import check_arguments


def finite_difference(
    function: Callable[[np.ndarray], np.ndarray | float],
    x: np.ndarray,
    direction: np.ndarray,
    step: float = 1e-6,
) -> np.ndarray:
    """Central difference (f(x + h d) - f(x - h d)) / 2h along a direction d.

    In float64 its error is of order h^2, and 1e-16 / h from rounding: about 1e-10 at h = 1e-6.

    >>> bool(np.isclose(finite_difference(lambda x: x @ x, np.ones(2), np.ones(2)), 4.0))
    True
    """
    return np.asarray(
        (function(x + step * direction) - function(x - step * direction)) / (2 * step)
    )


def _require_close(name: str, value: np.ndarray, truth: np.ndarray, tolerance: float) -> float:
    error = float(np.max(np.abs(value - truth)) / max(1.0, float(np.max(np.abs(truth)))))
    if not error <= tolerance:
        raise AssertionError(f"{name} is off by {error:.2e} (tolerance {tolerance:.0e})")
    return error


def enumerated_batch(policy: Policy, visitation: np.ndarray, action_values: np.ndarray) -> Batch:
    """Every state-action pair of a finite MDP as one batch, each weighted by d(s) pi(a|s).

    Sums over its rows are exact expectations: fed with it, an algorithm's `update` takes the step
    that samples can only estimate.

    Parameters
    ----------
    policy : Policy
        For states numbered 0 .. S-1 and A actions.
    visitation : ndarray (S,)
        d(s), from `exact.tabular.state_visitation`.
    action_values : ndarray (S, A)
        Q(s, a), from `exact.tabular.action_values`.
    """
    states, actions = (index.ravel() for index in np.indices(action_values.shape))
    distribution = policy(states)
    log_probs = distribution.log_prob(actions)
    probs = np.exp(log_probs)
    values = (probs.reshape(action_values.shape) * action_values).sum(axis=1)[states]
    return Batch(
        observations=states,
        actions=actions,
        log_probs=log_probs,
        values=values,
        advantages=action_values.ravel() - values,
        returns=action_values.ravel(),
        weight=visitation[states] * probs,
    )


def check_jvp(
    network: Network,
    theta: np.ndarray,
    x: np.ndarray,
    rng: np.random.Generator,
    tolerance: float = 1e-7,
) -> float:
    """Compare `jvp` with central differences along a random direction; the largest error.

    Use float64: in float32 differences are noise.
    """
    direction = rng.standard_normal(theta.shape)
    _, cache = network.forward(theta, x)
    truth = finite_difference(
        lambda parameters: network.forward(parameters, x)[0], theta, direction
    )
    return _require_close("jvp", network.jvp(cache, direction), truth, tolerance)


def check_vjp(
    network: Network,
    theta: np.ndarray,
    x: np.ndarray,
    rng: np.random.Generator,
    tolerance: float = 1e-7,
) -> float:
    """Compare `vjp` with central differences of dy^T y in every parameter; the largest error.

    Takes two forward passes a parameter: meant for small networks, in float64.
    """
    y, cache = network.forward(theta, x)
    dy = rng.standard_normal(y.shape)

    def weighted_output(parameters: np.ndarray) -> float:
        return float((network.forward(parameters, x)[0] * dy).sum())

    truth = np.array(
        [finite_difference(weighted_output, theta, unit) for unit in np.eye(len(theta))]
    )
    return _require_close("vjp", network.vjp(cache, dy), truth, tolerance)


def check_fisher_product(
    distribution: Callable[[np.ndarray], Distribution],
    eta: np.ndarray,
    rng: np.random.Generator,
    tolerance: float = 1e-6,
) -> float:
    """Compare `fisher_product` with the derivative of grad KL(old || new) at new = old.

    The Fisher matrix is the Hessian of the divergence; the largest error.
    """
    old = distribution(eta)
    direction = rng.standard_normal(eta.shape)
    truth = finite_difference(
        lambda new: old.grad_kl(distribution(new), wrt="other"), eta, direction, step=1e-5
    )
    return _require_close("fisher_product", old.fisher_product(direction), truth, tolerance)


def three_sigma(samples: np.ndarray, truth: float | np.ndarray, sigmas: float = 3.0) -> np.ndarray:
    """Whether the mean of independent samples (n, ...) agrees with the truth; its z-scores (...).

    Raises AssertionError where the mean is more than `sigmas` standard errors from the truth. With
    many entries or many checks, allow more than three: one entry in 370 is beyond three by chance.
    """
    samples = np.asarray(samples)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    difference = samples.mean(axis=0) - truth
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.where(difference == 0, 0.0, difference / error)
    worst = float(np.max(np.abs(z)))
    if not worst <= sigmas:
        raise AssertionError(f"the mean is {worst:.1f} standard errors from the truth")
    return np.asarray(z)


check_arguments(__name__)
