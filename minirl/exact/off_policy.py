"""Samples from an older policy, gradient wanted at the current one: exact bias and variance.

One response y to a uniform prompt x is sampled from the policy mu. The estimate of the gradient at
the policy pi, with respect to the logits of a full-prefix table, is::

    g(x, y) = (R(x, y) - b(x)) sum over t of w_t grad log pi(y_t | x, y_<t)

The corrections differ in the weight w_t of a token:

* no correction: 1;
* token ratios: ``pi(y_t|s_t) / mu(y_t|s_t)``, clipped or not;
* the sequence ratio: the product of all ratios of the response, the same for each of its tokens;
* GSPO's: its length-th root, divided by the length.

Only the sequence ratio makes the expectation of g the gradient of the expected reward at pi, for
every reward and baseline. The expectation with plain token ratios is the sum over s and a of
``d_mu(s) pi(a|s) grad log pi(a|s) Q_mu(s, a)``: the visits and the values remain those of mu.

Source: importance sampling; Precup, Sutton and Singh 2000 for products of ratios. Token trees,
`log_policy` (X, C, V) and `rewards` (X, N) are as in `minirl.exact.sequences`, gates as in
`minirl.exact.groups`.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirl.exact.groups import Gate, likelihood_ratios, response_lengths
from minirl.exact.sequences import path_sums, policy_gradient, response_log_probs, tree_sums
from minirl.support.arguments import check_arguments

Array = NDArray[np.float64]


class UpdateMoments(NamedTuple):
    """Moments of the gradient estimate of one response, and how far its mean is from the truth.

    `mean` (X, C, V) is ``E[g]``, and `second_moment` is ``E[|g|^2]``. `variance` is
    ``E[|g - E[g]|^2]``, the trace of the covariance. `cosine` is that of ``E[g]`` with the gradient
    of the expected reward, and `relative_bias` is ``|E[g] - gradient| / |gradient|``. Both are nan
    where the gradient is 0 up to rounding, as with equal rewards.
    """

    mean: Array
    second_moment: float
    variance: float
    cosine: float
    relative_bias: float


def update_moments(
    log_policy: Array,
    rewards: Array,
    baseline: ArrayLike,
    *,
    log_sampling: Array,
    token_gate: Gate | None = None,
    response_gate: Gate | None = None,
    length_root: bool = False,
) -> UpdateMoments:
    """Exact moments of the gradient estimate from one response of an older policy.

    Parameters
    ----------
    log_policy : ndarray (X, C, V)
        The current policy, at which the gradient is wanted.
    rewards : ndarray (X, N)
        Any numbers.
    baseline : array_like, broadcast to (X,)
        Subtracted from the rewards of a prompt.
    log_sampling : ndarray (X, C, V)
        The policy that sampled; it must give a probability above 0 to what `log_policy` can do.
    token_gate, response_gate : callable, optional
        gate(ratio, positive): the weight for the ratio of a token, or of the whole response, and
        the sign of ``R - b``. With neither, the weight is 1.
    length_root : bool
        GSPO: the response gate receives the ratio to the power of 1/length, and the weight is
        divided by the length.

    Raises
    ------
    ValueError
        If both gates are given, shapes differ, a policy is not log-probabilities, or a log-ratio
        that a gate would receive is above 350.
    """
    if token_gate is not None and response_gate is not None:
        raise ValueError("give token_gate or response_gate, not both")
    log_probs = response_log_probs(log_sampling)
    log_ratios = response_log_probs(log_policy) - log_probs
    rewards = np.asarray(rewards, np.float64)
    if rewards.shape != log_probs.shape:
        raise ValueError(f"rewards must have shape {log_probs.shape}, got {rewards.shape}")
    if np.shape(baseline) not in ((), (1,), (len(rewards),)):
        raise ValueError(
            f"baseline must be a number or have shape ({len(rewards)},), got {np.shape(baseline)}"
        )
    gains = rewards - np.broadcast_to(baseline, len(rewards))[:, None]
    lengths, policy = response_lengths(log_policy), np.exp(log_policy)
    # |grad log pi(a|s)|^2 = 1 - 2 pi(a|s) + sum_b pi(b|s)^2. Contexts of a path differ, so that the
    # squares of its tokens add up.
    squares = 1 - 2 * policy + (policy**2).sum(axis=2, keepdims=True)
    if response_gate is not None:
        ratios = likelihood_ratios(log_ratios / lengths if length_root else log_ratios)
    if token_gate is not None:
        token_ratios = likelihood_ratios(log_policy - log_sampling)
    masses = np.zeros(log_policy.shape)
    second = 0.0
    for positive in (False, True):
        parts = np.where((gains > 0) == positive, gains, 0.0)
        chances = np.exp(log_probs)
        weighted = np.ones_like(parts)
        token_weight = np.ones_like(log_policy)
        if token_gate is not None:
            token_weight = token_gate(token_ratios, positive)
        if response_gate is not None:
            weighted = response_gate(ratios, positive)
        if length_root:
            weighted = weighted / lengths
        norms = path_sums(token_weight**2 * squares)
        second += float((chances * (parts * weighted) ** 2 * norms).sum())
        for x, coefficients in enumerate(chances * parts * weighted):
            masses[x] += tree_sums(coefficients, log_policy.shape[2] - 1) * token_weight[x]
    mean = (masses - policy * masses.sum(axis=2, keepdims=True)) / len(masses)
    second /= len(masses)
    truth = policy_gradient(log_policy, log_policy, rewards, 0.0)
    length = float(np.linalg.norm(truth))
    if length <= 1e-13 * np.abs(rewards).max():  # rounding
        length = np.nan
    return UpdateMoments(
        mean,
        second,
        second - float((mean**2).sum()),
        float((mean * truth).sum() / (np.linalg.norm(mean) * length)),
        float(np.linalg.norm(mean - truth)) / length,
    )


def effective_share(log_policy: Array, log_sampling: Array, largest: float | None = None) -> float:
    """Effective share of the samples, ``E[w]^2 / E[w^2]`` of the sequence ratio w.

    A weighted mean of n responses is about as precise as a plain mean of ``share n`` responses of
    the current policy. Expectations are over prompts and over responses of the sampling policy.

    Parameters
    ----------
    log_policy, log_sampling : ndarray (X, C, V)
        The current policy, and the policy that sampled.
    largest : float, optional
        The ratio is truncated at this number.

    Raises
    ------
    ValueError
        If a policy is not log-probabilities, or a log-ratio is above 350.
    """
    log_probs = response_log_probs(log_sampling)
    ratios = likelihood_ratios(response_log_probs(log_policy) - log_probs)
    ratios = np.minimum(ratios, np.inf if largest is None else largest)
    chances = np.exp(log_probs) / len(log_probs)
    return float((chances * ratios).sum() ** 2 / (chances * ratios**2).sum())


check_arguments(__name__)
