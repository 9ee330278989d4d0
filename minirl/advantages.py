"""Advantage estimators: which actions did better than expected, from rewards and a critic.

An estimator is called with a `Rollout`. It returns advantages and the regression targets of the
critic, both (T, E). Two different masks separate episodes:

* `terminated` stops the *bootstrap*: after a terminal state no more reward can follow;
* `terminated | truncated` stops the *trace*: the next row belongs to another episode. After a
  time limit the task would have gone on, so V(final observation) still counts.
"""

from dataclasses import dataclass, field
from typing import Literal, Protocol, cast

import numpy as np
from scipy.special import comb

from minirl.batch import Rollout
from minirl.support.arguments import check_arguments
from minirl.support.fields import Count, Flag, Fraction, NonNegative, check_fields
from minirl.support.validation import require_fraction, require_verdicts

NO_PENALTY = ", without a KL penalty in them (beta=None)"


class AdvantageEstimator(Protocol):
    """The interface of an advantage estimator that `train` can use."""

    @property
    def discount(self) -> float: ...
    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]: ...


_MASKS = ("terminated", "truncated", "done")


def _require_alike(**arrays: np.ndarray) -> None:
    """Raise ValueError unless all are arrays of the first one's shape, and masks are of bool.

    Shapes that differ would broadcast, and `~` of a mask of 0 and 1 is -1 and -2.
    """
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or not array.ndim:
            raise ValueError(f"{name} must be an array (T, E), got {array!r:.60}")
    (first, expected), *_ = arrays.items()
    for name, array in arrays.items():
        if array.shape != expected.shape:
            raise ValueError(
                f"{name} must have the shape of {first}, {expected.shape}, got {array.shape}"
            )
        if name in _MASKS and array.dtype != bool:
            raise ValueError(f"{name} must be an array of bool, got {array.dtype}")


def td_errors(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    discount: float,
) -> np.ndarray:
    """delta_t = r_t + discount (1 - terminated_t) V(s_{t+1}) - V(s_t), all (T, E).

    Source: Schulman et al. 2016 (GAE), the TD residual.

    Raises
    ------
    ValueError
        If the shapes differ, `terminated` is not an array of bool, or the discount is outside
        [0, 1].
    """
    require_fraction("discount", discount)
    _require_alike(rewards=rewards, values=values, next_values=next_values, terminated=terminated)
    return rewards + discount * np.where(terminated, 0.0, next_values) - values


def discounted_sums(terms: np.ndarray, done: np.ndarray, decay: float) -> np.ndarray:
    """y_t = x_t + decay (1 - done_t) y_{t+1} for x = `terms` (T, E), from the last row back.

    >>> ones, done = np.ones((3, 1)), np.array([[False], [True], [False]])
    >>> discounted_sums(ones, done, 0.5).ravel()
    array([1.5, 1. , 1. ])

    Raises
    ------
    ValueError
        If the shapes differ, `done` is not an array of bool, or `decay` is outside [0, 1].
    """
    require_fraction("decay", decay)
    _require_alike(terms=terms, done=done)
    sums = np.array(terms, dtype=np.float64)
    keep = decay * ~done[:-1]
    for t in range(len(sums) - 2, -1, -1):
        sums[t] += keep[t] * sums[t + 1]
    return sums


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    truncated: np.ndarray,
    *,
    discount: float,
    lam: float,
) -> np.ndarray:
    """Generalised advantage estimation: A_t = sum_l (discount lam)^l delta_{t+l}, (T, E).

    lam = 0 is the TD error (low variance, biased if the critic is wrong); lam = 1 is return minus
    value (unbiased). The sum ends with the episode or with the rollout.

    Source: Schulman et al. 2016, the estimator GAE(gamma, lambda), for episodes that end in either
    way.

    Raises
    ------
    ValueError
        If the shapes differ, a mask is not an array of bool, or `discount` or `lam` is outside
        [0, 1].

    Examples
    --------
    Two rewards, then the end; with lam = 1 and no critic, advantages are returns to go:

    >>> zeros, end = np.zeros((2, 1)), np.array([[False], [True]])
    >>> gae(np.ones((2, 1)), zeros, zeros, end, ~end & False, discount=0.5, lam=1.0).ravel()
    array([1.5, 1. ])
    """
    require_fraction("lam", lam)
    _require_alike(rewards=rewards, terminated=terminated, truncated=truncated)
    deltas = td_errors(rewards, values, next_values, terminated, discount)
    return discounted_sums(deltas, terminated | truncated, discount * lam)


@dataclass(frozen=True)
class GAE:
    """`gae` as an estimator; the critic's targets are advantages + values.

    Parameters
    ----------
    discount : float
        In [0, 1]; gamma in the papers.
    lam : float
        In [0, 1]; how far the trace reaches.
    """

    discount: Fraction = 0.99
    lam: Fraction = 0.95

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows."""
        advantages = gae(
            rollout.rewards,
            rollout.values,
            rollout.next_values,
            rollout.terminated,
            rollout.truncated,
            discount=self.discount,
            lam=self.lam,
        )
        return advantages, advantages + rollout.values


@dataclass(frozen=True)
class RewardToGo:
    """REINFORCE's estimator: the discounted return from each step on, minus a baseline.

    Where a rollout or a time limit cuts an episode, the critic's value replaces what is missing.

    Parameters
    ----------
    discount : float
        In [0, 1].
    baseline : {None, "batch", "critic"}
        What is subtracted: nothing, the mean return of the rollout's valid rows (which holds each
        row's own return, a bias of order 1/N), or V(s_t).
    """

    discount: Fraction = 0.99
    baseline: Literal["batch", "critic"] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.baseline not in (None, "batch", "critic"):
            raise ValueError(f'baseline must be None, "batch" or "critic", got {self.baseline!r}')

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows."""
        cut = rollout.truncated & ~rollout.terminated
        cut[-1] |= ~rollout.terminated[-1]
        rest = np.where(cut, rollout.next_values, 0.0)
        returns = discounted_sums(
            rollout.rewards + self.discount * rest, rollout.done, self.discount
        )
        if self.baseline == "critic":
            return returns - rollout.values, returns
        if self.baseline == "batch":
            return returns - returns[rollout.valid].mean(), returns
        return returns, returns


def group_returns(rollout: Rollout) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Undiscounted return of each episode, and the mean return and size of its group, all (E,).

    Raises
    ------
    ValueError
        If the rollout has no groups, a group has one episode only, or an episode has not ended.
    """
    if rollout.group is None:
        raise ValueError(
            "this estimator compares episodes that begin alike: it needs a rollout with groups, "
            "Settings(whole_episodes=True, group_size=4) for example"
        )
    if not (rollout.done & rollout.valid).any(axis=0).all():
        raise ValueError(
            "group estimators need whole episodes, but some had not ended; raise rollout_steps"
        )
    returns = np.where(rollout.valid, rollout.rewards, 0.0).sum(axis=0)
    sizes = np.bincount(rollout.group)[rollout.group]
    if sizes.min() < 2:
        raise ValueError("a group must have at least 2 episodes to compare, got one of 1")
    means = np.bincount(rollout.group, returns)[rollout.group] / sizes
    return returns, means, sizes


def group_deviations(rollout: Rollout) -> np.ndarray:
    """Standard deviation ``sqrt(sum (R - mean)^2 / k)`` of each episode's group of k, (E,).

    It is 0 where the returns of a group are equal up to the rounding of their rewards' sums:
    dividing by it would otherwise blow this rounding up to advantages of 1.

    Raises ValueError as `group_returns`.
    """
    returns, means, sizes = group_returns(rollout)
    group = cast(np.ndarray, rollout.group)
    spread = np.sqrt(np.bincount(group, (returns - means) ** 2)[group] / sizes)
    added = np.where(rollout.valid, np.abs(rollout.rewards), 0.0).sum(axis=0)
    largest = np.zeros(len(returns))
    np.maximum.at(largest, group, added)
    rounding = 8 * np.finfo(np.float64).eps * len(rollout.rewards) * largest[group]
    return np.where(spread > rounding, spread, 0.0)


@dataclass(frozen=True)
class LeaveOneOut:
    """RLOO: an episode's return minus the mean return of the others in its group, at every step.

    R_i - (sum of the k - 1 other returns) / (k - 1) = (R_i - mean) k / (k - 1), with the mean over
    all k returns of the group. The baseline does not depend on the episode's own actions, so the
    gradient stays unbiased. With the plain group mean it would be (k - 1)/k of the truth.

    Source: Kool, van Hoof and Welling 2019; Ahmadian et al. 2024 (RLOO). Episodes are not
    discounted.
    """

    discount: float = field(default=1.0, init=False)

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows."""
        returns, means, sizes = group_returns(rollout)
        advantages = (returns - means) * sizes / (sizes - 1)
        shape = rollout.rewards.shape
        return np.broadcast_to(advantages, shape), _returns_to_go(rollout)


@dataclass(frozen=True)
class GroupCentered:
    """Dr. GRPO's estimator: an episode's return minus the mean of its group, at every step.

    It is 1 - 1/k times `LeaveOneOut`, for groups of k.

    Source: Liu et al. 2025 (Dr. GRPO, arXiv:2503.20783). Episodes are not discounted.
    """

    discount: float = field(default=1.0, init=False)

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows."""
        returns, means, _ = group_returns(rollout)
        shape = rollout.rewards.shape
        return np.broadcast_to(returns - means, shape), _returns_to_go(rollout)


@dataclass(frozen=True)
class GroupNormalized:
    """GRPO's estimator: an episode's return, whitened within its group, at every step.

    (R - mean) / (std + epsilon) of the group; 0 where all returns of a group are equal, up to the
    rounding of its own rewards' sums. Dividing multiplies the update of a prompt with success
    probability p by w(p, K), which from K = 4 on is smallest at p = 1/2. The update is then no
    longer the gradient of the expected return (`minirl.exact.groups.normalized_weight`).

    Source: Shao et al. 2024 (DeepSeekMath), outcome supervision. Episodes are not discounted.

    Parameters
    ----------
    sample : bool
        Whether the variance divides by k - 1, as PyTorch's and TRL's does, instead of k.
    epsilon : float
        Added to the standard deviation, in units of reward. TRL adds 1e-4.
    """

    discount: float = field(default=1.0, init=False)
    sample: Flag = False
    epsilon: NonNegative = 0.0

    def __post_init__(self) -> None:
        check_fields(self)

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows."""
        returns, means, sizes = group_returns(rollout)
        spread = group_deviations(rollout)
        scale = np.sqrt(sizes / (sizes - 1)) if self.sample else 1.0
        advantages = np.divide(
            returns - means,
            spread * scale + self.epsilon,
            out=np.zeros_like(returns),
            where=spread > 0,
        )
        shape = rollout.rewards.shape
        return np.broadcast_to(advantages, shape), _returns_to_go(rollout)


@dataclass(frozen=True)
class SuccessNormalized:
    """MaxRL's estimator: (R - mean) / mean of the group at every step, and 0 without a success.

    The returns must be 0 or 1. For groups of k, the expected update is the gradient of
    ``- sum over j from 1 to k - 1 of (1 - p)^j / j``, the first k - 1 terms of the series of
    log p, where p is the probability of a success.

    Source: arXiv:2602.02710. Episodes are not discounted.
    """

    discount: float = field(default=1.0, init=False)

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows.

        Raises
        ------
        ValueError
            If a return is neither 0 nor 1.
        """
        returns, means, _ = group_returns(rollout)
        require_verdicts("returns for SuccessNormalized", returns, NO_PENALTY)
        advantages = np.divide(returns - means, means, out=np.zeros_like(returns), where=means > 0)
        shape = rollout.rewards.shape
        return np.broadcast_to(advantages, shape), _returns_to_go(rollout)


@dataclass(frozen=True)
class PassAtK:
    """Advantages whose expected update is the gradient of pass@k, ``1 - (1 - p)^k``.

    With m right episodes in a group of K, a right one has the advantage
    ``k C(K - m, k - 1) / C(K - 1, k - 1)`` at every step, and a wrong one 0. This is K times the
    unbiased weight of the estimate of pass@k, minus a baseline of the other episodes
    (`minirl.exact.pass_at_k.centred_gradient_weights`). The returns must be 0 or 1.

    Source: Walder and Karkhanis 2025 (arXiv:2505.15201). Episodes are not discounted.

    Parameters
    ----------
    k : int
        At least 2, and at most the size of the groups. For k = 1 use `LeaveOneOut`.
    """

    k: Count
    discount: float = field(default=1.0, init=False)

    def __post_init__(self) -> None:
        check_fields(self)
        if self.k < 2:
            raise ValueError("k must be at least 2, got 1; pass@1 is the mean: use LeaveOneOut()")

    def __call__(self, rollout: Rollout) -> tuple[np.ndarray, np.ndarray]:
        """Advantages and critic targets (T, E); meaningless on invalid rows.

        Raises
        ------
        ValueError
            If a return is neither 0 nor 1, or a group is smaller than k.
        """
        returns, means, sizes = group_returns(rollout)
        require_verdicts("returns for PassAtK", returns, NO_PENALTY)
        if sizes.min() < self.k:
            raise ValueError(
                f"PassAtK({self.k}) needs groups of at least k, got one of {sizes.min()}; raise "
                "group_size"
            )
        wrong = np.rint(sizes * (1 - means))
        share = comb(wrong, self.k - 1) / comb(sizes - 1, self.k - 1)
        advantages = np.where(returns == 1, self.k * share, 0.0)
        shape = rollout.rewards.shape
        return np.broadcast_to(advantages, shape), _returns_to_go(rollout)


def _returns_to_go(rollout: Rollout) -> np.ndarray:
    return discounted_sums(rollout.rewards, rollout.done, 1.0)


check_arguments(__name__)
