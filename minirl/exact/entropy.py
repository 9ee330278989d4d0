"""First-order change of a policy's entropy when its logits change: exact, on plain arrays.

Let the logits move by ``eta * direction``. The entropy of one softmax then changes by
``- eta Cov(log pi, direction)`` to first order, with the covariance under the softmax itself. The
directions of interest are:

* a natural gradient step: ``direction = A(s, a)``, the advantages of the tokens, in each state;
* a gradient step: ``direction = d(s) pi(a|s) A(s, a)``, with d the probability of visiting s.

The entropy of a whole response changes by ``- eta Cov(log pi(y|x), R(y) - J)`` in a natural
gradient step, where R is the reward and J its expectation. The entropy of the tokens, averaged over
states with the visits of the old policy, changes by another number, because the visits change too.

Source: Cui et al. 2025 (arXiv:2505.22617), Theorems 1 and 2, for single states.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirl.exact.sequences import path_sums, response_log_probs, visitation
from minirl.support.arguments import check_arguments

Array = NDArray[np.float64]


def entropy_slope(log_policy: ArrayLike, direction: ArrayLike) -> Array:
    """Derivative of each entropy, ``- Cov(log pi, direction)`` under pi, in nats per unit of eta.

    Parameters
    ----------
    log_policy : array_like (..., V)
        Log-probabilities; each row is one distribution.
    direction : array_like (..., V)
        The logits move by eta times it.

    Returns
    -------
    ndarray (...)

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    A likely action that is better than the others lowers the entropy; a rare one raises it:

    >>> log_policy = np.log([[0.9, 0.1], [0.9, 0.1]])
    >>> entropy_slope(log_policy, [[1.0, -9.0], [-1.0, 9.0]]).round(3)
    array([-1.978,  1.978])
    """
    logs, moves = np.asarray(log_policy, np.float64), np.asarray(direction, np.float64)
    if logs.shape != moves.shape:
        raise ValueError(f"direction must have shape {logs.shape}, got {moves.shape}")
    policy = np.exp(logs)
    centred = moves - (policy * moves).sum(axis=-1, keepdims=True)
    finite = np.where(policy > 0, logs, 0.0)
    return np.asarray(-(policy * finite * centred).sum(axis=-1))


def response_entropy_slope(log_policy: Array, direction: Array) -> float:
    """Derivative of the mean entropy of whole responses, in nats per unit of eta.

    With ``S(y) = sum_t [direction(s_t, a_t) - E_pi direction(s_t, .)]``, the derivative of
    log pi(y), it is the mean over prompts of ``- Cov(log pi(y|x), S(y))``. If `direction` holds the
    advantages of the tokens, S(y) is R(y) - J.

    Parameters
    ----------
    log_policy, direction : ndarray (X, C, V)
        A full-prefix table, and how its logits move.

    Raises
    ------
    ValueError
        If the shapes differ, or `log_policy` is not log-probabilities of a full tree.
    """
    log_probs = response_log_probs(log_policy)
    _require_alike(log_policy, direction)
    expected = (np.exp(log_policy) * direction).sum(axis=2, keepdims=True)
    return float(entropy_slope(log_probs, path_sums(direction - expected)).mean())


def frozen_entropy_slope(log_policy: Array, direction: Array) -> float:
    """`entropy_slope` summed over states with the visits of the old policy, a mean over prompts.

    It is ``sum_s d(s) (- Cov(log pi(.|s), direction(s, .)))``. It differs from
    `response_entropy_slope`, because it leaves out that the visits d(s) change as well. The sign of
    the two may differ.

    Parameters
    ----------
    log_policy, direction : ndarray (X, C, V)
        A full-prefix table, and how its logits move.

    Raises
    ------
    ValueError
        If the shapes differ, or `log_policy` is not log-probabilities of a full tree.
    """
    visits = visitation(log_policy)
    _require_alike(log_policy, direction)
    return float((visits * entropy_slope(log_policy, direction)).sum())


def _require_alike(log_policy: Array, direction: Array) -> None:
    if log_policy.shape != direction.shape:
        raise ValueError(f"direction must have shape {log_policy.shape}, got {direction.shape}")


check_arguments(__name__)
