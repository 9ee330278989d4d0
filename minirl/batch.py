"""The two records that pass through the loop: a `Rollout` (T, E) and a `Batch` (N,)."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import pairwise
from operator import attrgetter
from typing import Any, Literal, get_args

import numpy as np

from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    require_count,
    require_finite_numbers,
    require_float_type,
    require_fraction,
    require_selection,
    require_shape,
)

# What a loss is a mean over: see `flatten`.
Per = Literal["transition", "episode", "response", "group", "tokens"]


@dataclass(frozen=True, eq=False)
class Rollout:
    """T rows of E parallel environments, as they happened.

    Row t holds the observation s_t, the action a_t chosen there and what followed. Under
    Gymnasium's NEXT_STEP autoreset the row after an episode's end is the *reset row*: its
    observation is the episode's final one, its action is ignored, `valid` is False.

    Parameters
    ----------
    observations : ndarray (T, E, ...)
        Raw, never normalised.
    actions : ndarray (T, E, ...)
        As sampled, never clipped.
    log_probs : ndarray (T, E)
        log pi(a_t | s_t) of the policy that acted, in nats.
    rewards : ndarray (T, E)
        Reward received after a_t.
    values, next_values : ndarray (T, E)
        The critic's value of s_t and of s_{t+1}; the latter also at an episode's end, where
        s_{t+1} is the final observation.
    terminated, truncated : ndarray (T, E) of bool
        Whether the episode ended after a_t: in a terminal state, or by a time limit.
    valid : ndarray (T, E) of bool
        Whether the row is a transition to learn from.
    time : ndarray (T, E) of int
        Environment steps since the episode began; 0 at its first row.
    episode_ends, episode_returns, episode_lengths : ndarray (K,)
        The episodes that ended here, in the order of their ends: valid transitions of the rollout
        up to and including the row of the end, undiscounted sum of raw rewards, and steps. Whole
        episodes are listed column by column, see `collect_episodes`.
    group : ndarray (E,) of int, optional
        Columns with the same number share their first observation (same prompt). Only if each
        column is one episode.
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    rewards: np.ndarray
    values: np.ndarray
    next_values: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    valid: np.ndarray
    time: np.ndarray
    episode_ends: np.ndarray
    episode_returns: np.ndarray
    episode_lengths: np.ndarray
    group: np.ndarray | None = None

    def __post_init__(self) -> None:
        steps_and_environments = self.rewards.shape
        for name in PER_STEP:
            shape = np.shape(getattr(self, name))
            if len(steps_and_environments) != 2 or shape[:2] != steps_and_environments:
                raise ValueError(
                    f"{name} must have the shape (T, E) of the rewards, {steps_and_environments}, "
                    f"or (T, E, ...) for observations and actions, got {shape}"
                )
            if name not in ("observations", "actions") and len(shape) != 2:
                raise ValueError(f"{name} must have shape (T, E), got {shape}")
        count = np.shape(self.episode_ends)
        for name in ("episode_returns", "episode_lengths"):
            require_shape(name, getattr(self, name), count)
        if self.group is not None:
            require_shape("group", self.group, steps_and_environments[1:])

    @property
    def done(self) -> np.ndarray:
        """Whether the episode ended after a_t, for either reason, (T, E)."""
        return self.terminated | self.truncated


@dataclass(frozen=True, eq=False)
class Batch:
    """N valid transitions to learn from; all an algorithm's `update` sees.

    Every loss is the sum over rows times `weight`, which need not sum to one. Every mean that is
    reported or bounded (KL, entropy, `max_kl`, `target_kl`) is the sum over rows times
    `mean_weight`, whose sum does not depend on a state discount.

    Parameters
    ----------
    observations, actions : ndarray (N, ...)
    log_probs : ndarray (N,)
        log pi_old(a | s), in nats.
    values : ndarray (N,)
        The critic's values before it is fitted to this batch.
    advantages, returns : ndarray (N,)
        The estimator's advantages, and the critic's regression targets.
    weight : ndarray (N,)
        1/N each for control, 1/(number of episodes) each for whole episodes, d(s) pi(a|s) for
        exact work; with a state discount, times discount^time.
    episodes : ndarray (N,) of int, optional
        The episode 0 .. E-1 of each row, if the weights are per episode: minibatches then keep
        episodes whole.
    """

    observations: np.ndarray
    actions: np.ndarray
    log_probs: np.ndarray
    values: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    weight: np.ndarray
    episodes: np.ndarray | None = None

    def __post_init__(self) -> None:
        shape = self.weight.shape
        right = (
            len(shape) == 1
            and shape == self.log_probs.shape == self.values.shape
            and shape == self.advantages.shape == self.returns.shape
            and shape == self.observations.shape[:1] == self.actions.shape[:1]
            and (self.episodes is None or shape == self.episodes.shape)
        )
        if not right:
            shapes = {name: np.shape(getattr(self, name)) for name in _COLUMNS}
            raise ValueError(
                "each field must have one entry per transition, (N,), observations and actions one "
                f"row, (N, ...), got the shapes {shapes}"
            )

    def __len__(self) -> int:
        return len(self.weight)

    @cached_property
    def mean_weight(self) -> np.ndarray:
        """`weight` (N,) rescaled for means over states: its sum is 1, or N/E with `episodes`.

        N/E is the mean number of rows per episode: a mean is then one per episode (summed over its
        states, averaged over E episodes). Weights that have this sum already, up to rounding, are
        returned as they are, and so are weights that are all 0.
        """
        total = float(self.weight.sum(dtype=np.float64))
        wanted = 1.0
        if self.episodes is not None:
            wanted = len(self) / np.count_nonzero(np.bincount(self.episodes))
        dtype = np.result_type(self.weight, np.float32)
        rounding = 32 * np.finfo(dtype).eps
        if total == 0 or abs(total - wanted) <= rounding * wanted:
            return self.weight
        return (self.weight * (wanted / total)).astype(dtype)

    def rows(self, selection: np.ndarray | slice) -> "Batch":
        """The rows selected by indices, a mask (N,) or a slice, with unchanged weights."""
        require_selection("selection", selection)
        selected: Any = (None if column is None else column[selection] for column in _columns(self))
        return Batch(*selected)

    def minibatches(
        self, size: int, rng: np.random.Generator
    ) -> Iterator[tuple[np.ndarray, "Batch"]]:
        """One epoch: every row once, in random order, in equal parts of about `size` units.

        A unit is a row or, where weights are per episode, a whole episode: a part then holds equal
        numbers of episodes, not of rows. The number of parts is units / size, rounded, so that no
        part is much smaller than the others. Weights are scaled by units over units in the part, so
        that each minibatch estimates the sum over the whole batch. A single part is the batch.

        Yields
        ------
        (rows, minibatch) : the row numbers (n,) in this batch, and the `Batch` of them.
        """
        require_count("size", size)
        units = len(self) if self.episodes is None else int(self.episodes.max()) + 1
        parts = max(1, round(units / size))
        if parts == 1:  # no order to shuffle: a sum over all rows
            yield np.arange(len(self)), self
            return
        order = rng.permutation(units)
        bounds = [units * part // parts for part in range(parts + 1)]
        cuts = bounds
        if self.episodes is not None:
            place = np.empty(units, dtype=np.int64)
            place[order] = np.arange(units)
            order = np.argsort(place[self.episodes], kind="stable")
            cuts = np.searchsorted(place[self.episodes][order], bounds).tolist()
        shuffled = self.rows(order)
        scale = np.repeat(units / np.diff(bounds), np.diff(cuts))
        dtype = np.result_type(self.weight, np.float32)
        shuffled = replace(shuffled, weight=shuffled.weight * scale.astype(dtype))
        for start, end in pairwise(cuts):
            yield order[start:end], shuffled.rows(slice(start, end))

    def with_normalized_advantages(self) -> "Batch":
        """The batch with advantages (A - mean(A)) / std(A), whose mean is 0 and whose spread is 1.

        They are all 0 where A is constant, that is, where its standard deviation is no larger than
        the rounding of its values.
        """
        advantages = self.advantages.astype(np.float64)  # squares of small float32 are 0
        centred = advantages - advantages.mean()
        spread = centred.std()
        dtype = np.result_type(self.advantages, np.float32)
        rounding = 8 * np.finfo(dtype).eps * np.abs(advantages).max()
        if spread <= rounding:  # dividing would blow the rounding up to full steps
            return replace(self, advantages=np.zeros(len(self), dtype))
        return replace(self, advantages=(centred / spread).astype(dtype))


_COLUMNS = [field.name for field in fields(Batch)]
_columns = attrgetter(*_COLUMNS)
PER_STEP = [
    *("observations", "actions", "log_probs", "rewards", "values", "next_values"),
    *("terminated", "truncated", "valid", "time"),
]


def flatten(
    rollout: Rollout,
    advantages: np.ndarray,
    returns: np.ndarray,
    *,
    per: Per = "transition",
    state_discount: float = 1.0,
    dtype: str = "float32",
) -> Batch:
    """Keep the valid rows of a rollout, in order of time, as a `Batch`.

    Parameters
    ----------
    advantages, returns : ndarray (T, E)
        From an advantage estimator.
    per : {"transition", "episode", "response", "group", "tokens"}
        What a loss is a mean over. "transition": weights are 1/N per valid transition. The others
        need whole episodes, one per column. "episode": 1/E, so that losses and KL are sums over an
        episode, averaged over episodes. "response": 1/(E length of the episode), so that they are
        means over an episode, averaged over episodes. "group": 1/(G tokens of the episode's group),
        averaged over the G groups. "tokens": 1/N, and the batch knows its episodes.
    state_discount : float
        Each weight is multiplied by state_discount^time. 1 is common practice. With the discount
        of the task, per="episode" and advantages whose error has mean zero, the policy gradient is
        unbiased for the gradient of the discounted return. per="transition" divides the same sum
        by the number of transitions instead of episodes: the estimate has the gradient's direction
        and tends to 1/(mean episode length) times its length.
    dtype : str
        Of the learning signals; observations and actions stay as they are.

    Raises
    ------
    ValueError
        For another `per`, "group" without groups, no valid transition, shapes that are not the
        rollout's, a valid entry that is NaN or infinite, or a `state_discount` outside [0, 1].
    """
    if per not in get_args(Per):
        choices = ", ".join(f'"{name}"' for name in get_args(Per))
        raise ValueError(f"per must be one of {choices}, got {per!r}")
    valid = rollout.valid
    count = int(valid.sum())
    if count == 0:
        raise ValueError("the rollout has no valid transition to learn from")
    require_shape("advantages", advantages, valid.shape)
    require_shape("returns", returns, valid.shape)
    require_finite_numbers("advantages", advantages[valid])
    require_finite_numbers("returns", returns[valid])
    require_fraction("state_discount", state_discount)
    require_float_type(dtype)
    share = _share(rollout, per)
    weight = share * state_discount ** rollout.time[valid].astype(float)
    return Batch(
        observations=rollout.observations[valid],
        actions=rollout.actions[valid],
        log_probs=rollout.log_probs[valid].astype(dtype),
        values=rollout.values[valid].astype(dtype),
        advantages=advantages[valid].astype(dtype),
        returns=returns[valid].astype(dtype),
        weight=weight.astype(dtype),
        episodes=np.nonzero(valid)[1] if per != "transition" else None,
    )


def _share(rollout: Rollout, per: Per) -> float | np.ndarray:
    """The weight of each valid row (N,), or of all of them, before a state discount."""
    valid = rollout.valid
    columns = valid.shape[1]
    if per in ("transition", "tokens"):
        return 1 / int(valid.sum())
    if per == "episode":
        return 1 / columns
    lengths = valid.sum(axis=0)
    if per == "response":
        return 1 / (columns * np.broadcast_to(lengths, valid.shape)[valid])
    if rollout.group is None:
        raise ValueError('per="group" needs a rollout with groups: settings with a group_size')
    tokens = np.bincount(rollout.group, lengths)
    share = 1 / (np.count_nonzero(tokens) * tokens[rollout.group])
    return np.asarray(np.broadcast_to(share, valid.shape)[valid])


check_arguments(__name__, often=("Batch.rows",))
