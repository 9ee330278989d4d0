"""Rewards for single tokens: potential-based shaping, and the variance of the policy gradient.

A *potential* is a number Phi(s) for each context s. Shaping replaces the reward r of each token
by ``r + Phi(s') - Phi(s)``, where s' is what follows the token. The sum over a whole response is
its reward plus Phi after the last token minus Phi of the empty context. Shaping therefore keeps the
optimum of ``E[reward] - beta KL`` if the potential after the last token is one constant, for
responses that end with EOS and for those cut at the limit.

Letters and arrays are those of `minirl.exact.sequences`. Token rewards are (X, C, V).

Examples
--------
One prompt, one word, at most two of them; only "w w" has a reward:

>>> rewards, potential = np.array([[0.0, 0.0, 1.0]]), np.array([[0.5, 0.7]])
>>> shaped_rewards(rewards, potential).round(3)  # columns w, EOS
array([[[ 0.2, -0.5],
        [ 0.3, -0.7]]])
>>> path_sums(shaped_rewards(rewards, potential)).round(3)  # less 0.5 each
array([[-0.5, -0.5,  0.5]])
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from minirl.exact.sequences import (
    FloatArray,
    _fold,
    _levels,
    _mean,
    path_sums,
    visitation,
)
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_finite_numbers

__all__ = ["GradientMoments", "gradient_moments", "path_sums", "shaped_rewards"]


def _after_tokens(contexts: FloatArray, ends: FloatArray) -> FloatArray:
    """What follows each token (X, C, V): the entry of the next context (X, C) or end (X, N)."""
    prompts, num_contexts = contexts.shape
    nodes = np.concatenate([contexts, ends[:, num_contexts:]], axis=1)
    after_word = nodes[:, 1:].reshape(prompts, num_contexts, -1)
    return np.concatenate([after_word, ends[:, :num_contexts, None]], axis=2)


def shaped_rewards(
    rewards: FloatArray,
    potential: FloatArray,
    after_end: FloatArray | None = None,
    discount: float = 1.0,
) -> FloatArray:
    """The reward (X, C, V) of each token: ``r(s, a) + discount Phi(s') - Phi(s)``.

    r(s, a) is the reward of the response if the token ends it, and otherwise 0.

    Parameters
    ----------
    rewards : ndarray (X, N)
        The reward of each response.
    potential : ndarray (X, C)
        Phi of each context. With zeros, the result is the plain reward of each token.
    after_end : ndarray (X, N), optional
        Phi after the last token of each response. The default is 0. Shaping changes the optimum
        unless this is one constant per prompt.
    discount : float
        The factor of Phi(s'). Shaping changes the optimum of the undiscounted objective unless it
        is 1.

    Raises
    ------
    ValueError
        If the shapes do not belong to one tree, or a number is not finite.
    """
    rewards, potential = np.asarray(rewards, np.float64), np.asarray(potential, np.float64)
    prompts, responses = rewards.shape
    if potential.ndim != 2 or len(potential) != prompts or (responses - 1) % potential.shape[1]:
        raise ValueError(
            f"potential must have shape ({prompts}, C), one number per context of a tree of "
            f"{responses} responses, got {potential.shape}"
        )
    ends = np.zeros_like(rewards) if after_end is None else np.asarray(after_end, np.float64)
    if ends.shape != rewards.shape:
        raise ValueError(f"after_end must have shape {rewards.shape}, got {ends.shape}")
    for name, numbers in (("rewards", rewards), ("potential", potential), ("after_end", ends)):
        require_finite_numbers(name, numbers)
    plain = _after_tokens(np.zeros_like(potential), rewards)
    return plain + discount * _after_tokens(potential, ends) - potential[:, :, None]


class GradientMoments(NamedTuple):
    """Mean (X, C, V) and total variance of an estimate of the policy gradient from one response."""

    mean: FloatArray
    variance: float


def gradient_moments(
    log_policy: FloatArray, token_rewards: FloatArray, baseline: FloatArray
) -> GradientMoments:
    """Exact mean and variance of ``g = sum_t (G_t - b(s_t)) d log pi(a_t|s_t) / d logits``.

    The prompt is uniform and the response is sampled from the policy. G_t is the sum of the rewards
    of token t and of all later tokens. The variance is ``E ||g||^2 - ||E g||^2``. No context occurs
    twice in a response, so ``||g||^2 = sum_t (G_t - b(s_t))^2 ||e(a_t) - pi(s_t)||^2``.

    Parameters
    ----------
    log_policy : ndarray (X, C, V)
    token_rewards : ndarray (X, C, V)
        For example `shaped_rewards`. Subtract ``beta (log_policy - log_reference)`` for the
        objective with a KL.
    baseline : ndarray (X, C)
        b(s). It changes the variance and not the mean. Shaping with a potential that is 0 after the
        last token has the effect of using the potential as baseline, because G_t becomes
        ``G_t - Phi(s_t)``.

    Raises
    ------
    ValueError
        If the shapes do not belong to one tree, or a number is not finite.
    """
    visits = visitation(log_policy)
    token_rewards = np.asarray(token_rewards, np.float64)
    baseline = np.asarray(baseline, np.float64)
    for name, array, shape in (
        ("token_rewards", token_rewards, np.shape(log_policy)),
        ("baseline", baseline, visits.shape),
    ):
        if array.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {array.shape}")
        require_finite_numbers(name, array)
    probs, levels = np.exp(log_policy), _levels("log_policy", np.asarray(log_policy))
    no_more = np.zeros(1 + (probs.shape[2] - 1) * probs.shape[1])
    first, second = token_rewards.copy(), np.empty_like(token_rewards)
    for x, policy in enumerate(probs):
        _fold(levels, first[x], no_more, partial(_mean, policy))
        # (r + G')^2 = r^2 + 2 r G' + G'^2; the recursion adds the mean of G'^2.
        later = first[x] - token_rewards[x]
        second[x] = token_rewards[x] * (token_rewards[x] + 2 * later)
        _fold(levels, second[x], no_more, partial(_mean, policy))
    b = baseline[:, :, None]
    norms = 1 - 2 * probs + (probs**2).sum(axis=2, keepdims=True)
    squares = second - 2 * b * first + b**2
    total = float((visits[:, :, None] * probs * norms * squares).sum())
    advantages = first - b
    advantages -= (probs * advantages).sum(axis=2, keepdims=True)
    mean = visits[:, :, None] * probs * advantages
    return GradientMoments(mean, total - float((mean**2).sum()))


check_arguments(__name__)
