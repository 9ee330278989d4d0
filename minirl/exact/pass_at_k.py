"""pass@k, the probability that at least one of k responses is right: values and gradients.

With p the probability of a right response to a prompt, ``pass@k = 1 - (1 - p)^k``. For n sampled
responses with c right ones, ``rho(n, c, k) = 1 - C(n - c, k) / C(n, k)`` is an unbiased estimate:
it is the share of all subsets of k of the n responses that contain a right one.

Sources: the estimate is from Chen et al. 2021 (arXiv:2107.03374), its gradient from Walder and
Karkhanis 2025 (arXiv:2505.15201).
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirl.exact.sequences import expected_reward, policy_gradient, response_log_probs
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_verdicts

Array = NDArray[np.float64]


def pass_at_k(p: ArrayLike, k: ArrayLike) -> Array:
    """``1 - (1 - p)^k``, elementwise.

    Parameters
    ----------
    p : array_like of float
        Probability of a right response, in [0, 1].
    k : array_like of int
        Number of responses, at least 1; `p` and `k` are broadcast.

    Raises
    ------
    ValueError
        If `p` is outside [0, 1], or `k` is below 1 or not whole.

    Examples
    --------
    >>> pass_at_k(0.1, [1, 4, 64]).round(4)
    array([0.1   , 0.3439, 0.9988])
    """
    values, counts = np.asarray(p, np.float64), np.asarray(k)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError(f"p must lie in [0, 1], got {p!r}")
    if not np.all(counts >= 1):
        raise ValueError(f"k must be at least 1, got {k!r}")
    if np.any(counts % 1):
        raise ValueError(f"k must be a whole number, got {k!r}")
    return np.asarray(1 - (1 - values) ** counts)


def pass_at_k_gradient(log_policy: Array, rewards: Array, k: int) -> Array:
    """Gradient (X, C, V) of the mean pass@k over prompts, ``k (1 - p)^(k - 1) grad p``.

    Parameters
    ----------
    log_policy : ndarray (X, C, V)
        Log-probabilities of the next token; the gradient is with respect to the logits.
    rewards : ndarray (X, N)
        1 for a right response, else 0.
    k : int
        Number of responses, at least 1.

    Raises
    ------
    ValueError
        For rewards other than 0 and 1, or a `k` below 1.
    """
    _require_k(k)
    require_verdicts("rewards", rewards)
    gradient = policy_gradient(log_policy, log_policy, rewards, 0.0)
    log_probs = response_log_probs(log_policy)
    for x in range(len(gradient)):
        p = min(expected_reward(log_probs[x : x + 1], rewards[x : x + 1]), 1.0)
        gradient[x] *= k * (1 - p) ** (k - 1)
    return gradient


def pass_at_k_estimate(n: int, c: ArrayLike, k: int) -> Array:
    """``rho(n, c, k) = 1 - C(n - c, k) / C(n, k)``, unbiased for pass@k.

    The ratio of the binomial coefficients is the product over i < k of ``(n - c - i) / (n - i)``,
    in which nothing overflows. The estimate ``1 - (1 - c / n)^k`` is biased: it is too small on
    average.

    Parameters
    ----------
    n : int
        Number of sampled responses to one prompt.
    c : array_like of int
        Number of right ones among them, from 0 to n.
    k : int
        From 0 to n. With more, no unbiased estimate exists.

    Raises
    ------
    ValueError
        If `k` is above `n`, `c` is outside 0 .. n, or a number is not whole.

    Examples
    --------
    >>> pass_at_k_estimate(4, [0, 1, 2, 4], 2).round(4)
    array([0.    , 0.5   , 0.8333, 1.    ])
    """
    right = np.asarray(c)
    for name, count in (("n", n), ("c", right), ("k", k)):
        if np.any(np.asarray(count) % 1):
            raise ValueError(f"{name} must be a whole number, got {count}")
    if not 0 <= k <= n:
        raise ValueError(
            f"k must be from 0 to n, {n}, got {k}; n responses contain no subset of more, so "
            "sample at least k responses per prompt"
        )
    if not np.all((right >= 0) & (right <= n)):
        raise ValueError(f"c must be from 0 to n, {n}, got {c!r}")
    drawn = np.arange(k)
    factors = np.maximum(n - right[..., None] - drawn, 0) / (n - drawn)
    return np.asarray(1 - factors.prod(axis=-1))


def gradient_weights(n: int, k: int) -> Array:
    """Weights (2, n + 1) whose sum of ``weight_i grad log pi(y_i)`` is unbiased for grad pass@k.

    Column c is for c right responses among n. A wrong response (row 0) has the weight
    ``(k / n) rho(n - 1, c, k - 1)`` and a right one (row 1) ``k / n``.

    Source: Walder and Karkhanis 2025 (arXiv:2505.15201).

    Raises
    ------
    ValueError
        If `k` is below 1 or above `n`.
    """
    _require_k(k, n)
    weights = np.full((2, n + 1), k / n)
    weights[0, :n] *= pass_at_k_estimate(n - 1, np.arange(n), k - 1)
    weights[0, n] = weights[1, 0] = 0.0  # there is no such response
    return weights


def centred_gradient_weights(n: int, k: int) -> Array:
    """`gradient_weights` minus a baseline: ``(k / n) C(n - c, k - 1) / C(n - 1, k - 1)``, or 0.

    The baseline of a response is ``(k / n) rho(n - 1, c', k - 1)``, where c' is the number of right
    ones among the n - 1 others. It does not depend on the response, so the weights stay unbiased. A
    wrong response then has the weight 0. For k = 1 the baseline is 0.

    Source: Walder and Karkhanis 2025 (arXiv:2505.15201), the leave-one-out baseline of k - 1
    samples. `minirl.advantages.PassAtK` is n times these weights.

    Raises
    ------
    ValueError
        If `k` is below 1 or above `n`.
    """
    weights = gradient_weights(n, k)
    others = (k / n) * pass_at_k_estimate(n - 1, np.arange(n), k - 1)
    weights[0, :n] -= others
    weights[1, 1:] -= others
    return weights


def _require_k(k: int, n: int | None = None) -> None:
    if k % 1:
        raise ValueError(f"k must be a whole number, got {k}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if n is not None and k > n:
        raise ValueError(
            f"k must be at most the number of responses per prompt, {n}, got {k}; sample more"
        )


check_arguments(__name__)
