"""Groups of K responses to one prompt with rewards 0 and 1: exact expectations over all groups.

A response is right with probability p, independently of the others in its group. The number of
right responses is m ~ Binomial(K, p), and their share is f = m / K.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom

from minirl.support.arguments import check_arguments

Array = NDArray[np.float64]


def _checked(p: ArrayLike, group_size: int) -> Array:
    """`p` as an array of numbers in (0, 1), once `group_size` is known to be at least 2."""
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size!r}")
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values > 0) & (values < 1)):
        raise ValueError(f"p must lie in (0, 1), got {p!r}")
    return values


def normalized_weight(p: ArrayLike, group_size: int) -> Array:
    """Weight that division by the group's standard deviation gives to a prompt (GRPO).

    The expected update of the prompt is ``w(p, K) grad p`` with
    ``w(p, K) = E[sqrt(f (1 - f))] / (p (1 - p))``, if tokens are summed, the ratio is 1, and the
    standard deviation divides by K and has no epsilon. A group without signal contributes 0.
    Without the division, the weight is ``1 - 1/K`` for every p. The limits are ``sqrt(K - 1)`` for
    p -> 0 and ``1 / sqrt(p (1 - p))`` for K -> infinity.

    Parameters
    ----------
    p : array_like of float
        Probability of a right response, between 0 and 1, both excluded.
    group_size : int
        K, the number of responses per prompt, at least 2.

    Returns
    -------
    ndarray of float64
        The weight, of the shape of `p`.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1, or `group_size` is below 2.

    Examples
    --------
    >>> normalized_weight([0.02, 0.1, 0.5], 8).round(2)
    array([2.57, 2.33, 1.86])
    """
    values = _checked(p, group_size)
    right = np.arange(group_size + 1)
    share = right / group_size
    deviation = np.sqrt(share * (1 - share))
    expected = binom.pmf(right, group_size, values[..., None]) @ deviation
    return expected / (values * (1 - values))


def silent_share(p: ArrayLike, group_size: int) -> Array:
    """Probability that a group contains no signal, because all its rewards are equal.

    It is ``p^K + (1 - p)^K``.

    Parameters
    ----------
    p : array_like of float
        Probability of a right response, between 0 and 1, both excluded.
    group_size : int
        K, the number of responses per prompt, at least 2.

    Returns
    -------
    ndarray of float64
        The probability, of the shape of `p`.

    Raises
    ------
    ValueError
        If `p` is not between 0 and 1, or `group_size` is below 2.

    Examples
    --------
    >>> silent_share(0.02, 8).round(2)
    np.float64(0.85)
    """
    values = _checked(p, group_size)
    return values**group_size + (1 - values) ** group_size


check_arguments(__name__)
