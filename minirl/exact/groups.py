"""Groups of K responses to one prompt with rewards 0 and 1: exact expectations over all groups.

A response is right with probability p, independently of the others in its group. The number of
right responses is m ~ Binomial(K, p), and their share is f = m / K.

`expected_update` is the expectation of a whole group-relative update over all responses and all
groups. A group enters it only by the number of right responses and, for some averagings, by the
total number of tokens. The joint distribution of the two is computed exactly.

Token trees, `log_policy` (X, C, V) and `rewards` (X, N) are as in `minirl.exact.sequences`.
"""

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import binom

from minirl.exact.sequences import response_log_probs, tree_sums
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_verdicts

Array = NDArray[np.float64]
Advantage = Literal["centred", "leave-one-out", "normalized", "sample-normalized", "success"]
Averaging = Literal["sum", "response", "group", "tokens"]
# gate(ratio, positive) -> d objective / d log pi, per unit of advantage, of a token or a response.
# `positive` says whether the advantage is above 0.
Gate = Callable[[Array, bool], Array]
AVERAGINGS = ("sum", "response", "group", "tokens")
# The square of a larger ratio is beyond the range of float64.
LARGEST_LOG_RATIO = 350.0


def _checked(p: ArrayLike, group_size: int) -> Array:
    """`p` as an array of numbers in (0, 1), once `group_size` is known to be at least 2."""
    _require_group_size(group_size)
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values > 0) & (values < 1)):
        raise ValueError(f"p must lie in (0, 1), got {p!r}")
    return values


def _require_group_size(group_size: int) -> None:
    if group_size % 1:
        raise ValueError(f"group_size must be a whole number, got {group_size!r}")
    if group_size < 2:
        raise ValueError(f"group_size must be at least 2, got {group_size!r}")


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


# ---------------------------------------------------------------- gates


def clipped_gate(low: float, high: float) -> Gate:
    """PPO's: the ratio, or 0 once it has left [1 - low, 1 + high] in the advantage's direction."""
    return lambda ratio, positive: np.where(
        ratio <= 1 + high if positive else ratio >= 1 - low, ratio, 0.0
    )


def constant_weight_gate(high: float) -> Gate:
    """CISPO's: ``min(ratio, 1 + high)``."""
    return lambda ratio, positive: np.minimum(ratio, 1 + high)


def soft_gate(tau_positive: float, tau_negative: float) -> Gate:
    """SAPO's: ``4 ratio sigmoid(u) sigmoid(-u)`` with ``u = tau (ratio - 1)``."""

    def gate(ratio: Array, positive: bool) -> Array:
        capped = np.minimum(ratio, 1e300)  # infinity times sigmoid(-infinity) would be nan
        u = (tau_positive if positive else tau_negative) * (capped - 1)
        return 4 * capped * expit(u) * expit(-u)

    return gate


def plain_gate(ratio: Array, positive: bool) -> Array:
    """The importance sampling ratio itself."""
    return ratio


def likelihood_ratios(log_ratios: Array) -> Array:
    """``exp(log_ratios)``, elementwise.

    Raises
    ------
    ValueError
        If a log-ratio is above 350, or is no number.
    """
    largest = float(log_ratios.max())
    if not largest <= LARGEST_LOG_RATIO:
        raise ValueError(
            f"log_sampling must give log-ratios of at most {LARGEST_LOG_RATIO:g}, got "
            f"{largest:.6g} as the largest; sample from a policy nearer to log_policy"
        )
    return np.exp(log_ratios)


# ---------------------------------------------------------------- the expected update


def advantages(kind: Advantage, group_size: int, epsilon: float = 0.0) -> Array:
    """The advantage (2, K + 1) of a wrong (row 0) and of a right response (row 1) among m right.

    The column is m, the number of right responses in the group. "centred" is ``r - f`` with
    f = m / K, "leave-one-out" K / (K - 1) times it, "normalized" divides by
    ``sqrt(f (1 - f)) + epsilon``, "sample-normalized" by ``sqrt(K f (1 - f) / (K - 1)) + epsilon``,
    and "success" by f. Where all rewards are equal, all of them are 0.
    """
    _require_group_size(group_size)
    if not 0 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be a finite number of at least 0, got {epsilon!r}")
    share = np.arange(group_size + 1) / group_size
    centred = np.array([[0.0], [1.0]]) - share
    deviation = np.sqrt(share * (1 - share))
    divisor = {
        "centred": np.ones_like(share),
        "leave-one-out": np.full_like(share, 1 - 1 / group_size),
        "normalized": deviation + epsilon,
        "sample-normalized": deviation * math.sqrt(group_size / (group_size - 1)) + epsilon,
        "success": share,
    }
    table = np.zeros_like(centred)
    table[:, 1:-1] = centred[:, 1:-1] / divisor[kind][1:-1]
    return table


def response_lengths(log_policy: Array) -> NDArray[np.int64]:
    """The number of tokens (N,) of each response, EOS included."""
    ones = np.ones(log_policy.shape[1:])
    depth = response_log_probs(np.log(ones / ones.sum(axis=1, keepdims=True))[None])[0]
    return np.rint(-depth / math.log(log_policy.shape[2])).astype(np.int64)


def others_in_group(
    probs: Array, right: NDArray[np.bool_], lengths: NDArray[np.int64], others: int
) -> Array:
    """P(m, T): m right responses and T tokens in total among `others` independent responses.

    Parameters
    ----------
    probs, right, lengths : ndarray (N,)
        Of the responses to one prompt.

    Returns
    -------
    ndarray (others + 1, others max(lengths) + 1)
    """
    longest = int(lengths.max())
    one = np.zeros((2, longest + 1))
    np.add.at(one, (right.astype(int), lengths), probs)
    # The distribution of a sum of independent pairs: a product of Fourier transforms.
    shape = others + 1, others * longest + 1
    transformed = np.fft.fft2(one, shape) ** others
    return np.maximum(np.fft.ifft2(transformed).real, 0.0)


def mean_coefficients(
    probs: Array,
    right: NDArray[np.bool_],
    lengths: NDArray[np.int64],
    table: Array,
    averaging: Averaging,
    rest: Array | None = None,
) -> Array:
    """Expected advantage, times its share of the mean, of each response (N,) to one prompt.

    The expectation is over the K - 1 other responses of its group and, with `rest`, over the tokens
    of the other groups of the batch.

    Parameters
    ----------
    table : ndarray (2, K + 1)
        From `advantages`.
    rest : ndarray (T,), optional
        For "tokens": P(number of tokens in all other groups), and the number of groups is
        ``rest_groups + 1``.
    """
    group_size = table.shape[1] - 1
    if averaging in ("sum", "response"):
        p = float(probs[right].sum())
        others = binom.pmf(np.arange(group_size), group_size - 1, min(p, 1.0))
        wrong_mean, right_mean = others @ table[0, :-1], others @ table[1, 1:]
        means = np.where(right, right_mean, wrong_mean)
        return means / lengths if averaging == "response" else means
    joint = others_in_group(probs, right, lengths, group_size - 1)
    if rest is not None:
        joint = np.array([np.convolve(row, rest) for row in joint])
    totals = np.arange(joint.shape[1])
    longest = int(lengths.max())
    by_length = np.zeros((2, longest + 1))
    for length in range(1, longest + 1):
        expected = joint @ (1 / (length + totals))
        by_length[0, length] = expected @ table[0, :-1]
        by_length[1, length] = expected @ table[1, 1:]
    return group_size * by_length[right.astype(int), lengths]


def expected_update(
    log_policy: Array,
    rewards: Array,
    group_size: int,
    *,
    advantage: Advantage | Array = "normalized",
    epsilon: float = 0.0,
    averaging: Averaging = "sum",
    log_sampling: Array | None = None,
    token_gate: Gate | None = None,
    response_gate: Gate | None = None,
    length_root: bool = False,
    keep: Literal["all", "redraw", "resample"] = "all",
    groups: int = 1,
) -> Array:
    """The exact expectation of a group-relative update, with respect to the logits (X, C, V).

    With a prompt x drawn uniformly and K responses y_i from the sampling policy, it is::

        E[ sum over i and t of A_i(group) share_i gate(ratio_it) grad log pi(y_it | x, y_i,<t) ]

    It is the direction in which the objective rises: minus the gradient of the loss.

    Parameters
    ----------
    log_policy : ndarray (X, C, V)
        The current policy, at which the gradient is taken.
    rewards : ndarray (X, N)
        0 or 1.
    group_size : int
        K.
    advantage, epsilon
        See `advantages`. An array (2, K + 1) is used as it is: the advantages of a wrong and of a
        right response among m right ones, such as K times `pass_at_k.gradient_weights`.
    averaging : {"sum", "response", "group", "tokens"}
        share_i is 1/K, 1/(K length_i), 1/(tokens of the group), or 1/(tokens of the batch) times
        the number of groups.
    log_sampling : ndarray (X, C, V), optional
        The policy that sampled. Default: the current one.
    token_gate, response_gate : callable, optional
        gate(ratio, positive): the derivative of the objective with respect to log pi of a token,
        per unit of advantage, for the ratio of this token, or for that of the whole response.
        `positive` says whether the advantage is above 0.
    length_root : bool
        Whether the response gate receives the ratio to the power of 1/length, as in GSPO.
    keep : {"all", "redraw", "resample"}
        What happens to groups of equal rewards. "all": nothing. "redraw": they are replaced by
        groups of new prompts. "resample": by new groups of the same prompt.
    groups : int
        Number of groups in the batch; needed for "tokens" only.

    Raises
    ------
    ValueError
        For rewards other than 0 and 1, an argument outside its range, a log-ratio above 350 that a
        gate would receive, or a prompt whose groups can never have different rewards, with
        keep="resample".
    """
    rewards = np.asarray(rewards, dtype=np.float64)
    require_verdicts("rewards", rewards)
    if token_gate is not None and response_gate is not None:
        raise ValueError("give token_gate or response_gate, not both")
    if averaging not in AVERAGINGS:
        raise ValueError(f"averaging must be one of {', '.join(AVERAGINGS)}, got {averaging!r}")
    if groups < 1 or groups % 1:
        raise ValueError(f"groups must be a whole number of at least 1, got {groups!r}")
    log_sampling = log_policy if log_sampling is None else log_sampling
    if log_sampling.shape != log_policy.shape:
        raise ValueError(
            f"log_sampling must have the shape of log_policy, {log_policy.shape}, got "
            f"{log_sampling.shape}"
        )
    log_probs = response_log_probs(log_sampling)
    table = _advantage_table(advantage, group_size, epsilon)
    lengths = response_lengths(log_policy)
    right = rewards == 1
    rest = None
    if averaging == "tokens":
        rest = _tokens_of(np.exp(log_probs), lengths, group_size, groups - 1)
    kept = _kept(np.exp(log_probs), right, group_size, keep)
    if response_gate is not None:
        log_ratios = response_log_probs(log_policy) - log_probs
        ratios = likelihood_ratios(log_ratios / lengths if length_root else log_ratios)
    if token_gate is not None:
        token_ratios = likelihood_ratios(log_policy - log_sampling)
    update = np.empty(log_policy.shape)
    for x in range(len(update)):
        probs = np.exp(log_probs[x])
        scale = groups if averaging == "tokens" else 1
        masses = np.zeros(log_policy.shape[1:])
        # A gate depends on the sign of the advantage, and the advantage on the group.
        for positive in (False, True):
            signed = np.where((table > 0) == positive, table, 0.0)
            part = probs * scale / kept[x]
            part *= mean_coefficients(probs, right[x], lengths, signed, averaging, rest)
            if response_gate is not None:
                part *= response_gate(ratios[x], positive)
            token_masses = tree_sums(part, log_policy.shape[2] - 1)
            if token_gate is not None:
                token_masses *= token_gate(token_ratios[x], positive)
            masses += token_masses
        update[x] = masses - np.exp(log_policy[x]) * masses.sum(axis=1, keepdims=True)
    return update / len(update)


def reference_gradient(
    log_policy: Array,
    log_reference: Array,
    group_size: int,
    *,
    estimator: Literal["k1", "k2", "k3"] = "k3",
    averaging: Averaging = "sum",
    importance_weighted: bool = False,
    groups: int = 1,
) -> Array:
    """The exact expectation of a KL to the reference as a loss per token, as (X, C, V).

    With ``u = log pi(a|s) - log ref(a|s)`` of each token of responses of the current policy, and
    k(u) = u, ``u^2 / 2`` or ``exp(-u) - 1 + u``, the expected gradient of the logits is::

        E[ sum over i and t of share_i k'(u_it) grad log pi(y_it | x, y_i,<t) ]

    Its visits are frozen: a token's effect on later penalties is left out. Subtract beta times this
    from `expected_update`, which is the direction in which the objective rises.

    Parameters
    ----------
    log_policy, log_reference : ndarray (X, C, V)
    group_size, averaging, groups
        As for `expected_update`.
    estimator : {"k1", "k2", "k3"}
        k.
    importance_weighted : bool
        Whether the ratio multiplies k and is differentiated too: k + k' in place of k'.
    """
    differences = log_policy - log_reference
    estimate, slope = {
        "k1": (differences, np.ones_like(differences)),
        "k2": (differences**2 / 2, differences),
        "k3": (np.expm1(-differences) + differences, -np.expm1(-differences)),
    }[estimator]
    if importance_weighted:
        slope = slope + estimate
    log_probs = response_log_probs(log_policy)
    lengths = response_lengths(log_policy)
    rest = None
    if averaging == "tokens":
        rest = _tokens_of(np.exp(log_probs), lengths, group_size, groups - 1)
    scale = groups if averaging == "tokens" else 1
    ones, none_right = np.ones((2, group_size + 1)), np.zeros(len(lengths), dtype=bool)
    gradient = np.empty(log_policy.shape)
    for x, log_row in enumerate(log_probs):
        probs = np.exp(log_row)
        shares = mean_coefficients(probs, none_right, lengths, ones, averaging, rest)
        masses = tree_sums(scale * probs * shares, log_policy.shape[2] - 1) * slope[x]
        gradient[x] = masses - np.exp(log_policy[x]) * masses.sum(axis=1, keepdims=True)
    return gradient / len(gradient)


def _advantage_table(advantage: Advantage | Array, group_size: int, epsilon: float) -> Array:
    if isinstance(advantage, str):
        return advantages(advantage, group_size, epsilon)
    if advantage.shape != (2, group_size + 1):
        raise ValueError(
            f"advantage must have the shape (2, group_size + 1), {(2, group_size + 1)}, got "
            f"{advantage.shape}"
        )
    return advantage


def _kept(probs: Array, right: NDArray[np.bool_], group_size: int, keep: str) -> Array:
    """By which probability the update of each prompt is divided, (X,)."""
    if keep not in ("all", "redraw", "resample"):
        raise ValueError(f'keep must be "all", "redraw" or "resample", got {keep!r}')
    p = (probs * right).sum(axis=1).clip(0, 1)
    if keep == "all":
        return np.ones_like(p)
    mixed = 1 - p**group_size - (1 - p) ** group_size
    if keep == "redraw":
        mixed = np.full_like(p, mixed.mean())
    if not (mixed > 0).all():
        raise ValueError(
            f"keep={keep!r} never ends: the success probabilities {p} give no group with "
            "different rewards"
        )
    return mixed


def _tokens_of(probs: Array, lengths: NDArray[np.int64], group_size: int, groups: int) -> Array:
    """P(T tokens in `groups` groups of prompts drawn uniformly), (T + 1,)."""
    longest = int(lengths.max())
    size = groups * group_size * longest + 1
    transformed = np.zeros(size, dtype=complex)
    for row in probs:
        one = np.bincount(lengths, row, longest + 1)
        transformed += np.fft.fft(np.pad(one, (0, max(0, size - len(one)))), size) ** group_size
    return np.maximum(np.fft.ifft((transformed / len(probs)) ** groups).real, 0.0)


check_arguments(__name__)
