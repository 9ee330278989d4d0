"""Dynamic sampling: groups whose returns are all equal are replaced by new ones, as in DAPO."""

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import numpy as np

from minirl.advantages import group_deviations
from minirl.batch import PER_STEP, Rollout
from minirl.rollout import EndlessError
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count

MOST_ROLLOUTS = 100


def collect_mixed_groups(
    collect_groups: Callable[[], Rollout], groups: int, *, most_rollouts: int = MOST_ROLLOUTS
) -> Rollout:
    """Collect rollouts until `groups` groups have returns that are not all equal.

    Groups of equal returns have advantages of 0 for every group-relative estimator. Replacing them
    by groups of *new* first observations keeps the direction of the expected update, and divides it
    by the probability that a group is kept.

    Source: dynamic sampling of DAPO (arXiv:2503.14476).

    Parameters
    ----------
    collect_groups : callable
        Returns a rollout of whole episodes with groups, such as that of `collect_episodes`.
    groups : int
        Number of groups to return.
    most_rollouts : int
        Number of rollouts after which to give up.

    Returns
    -------
    Rollout
        The first `groups` groups of different returns. `episode_returns` and `episode_lengths` also
        list the episodes of the groups that were dropped, since they were sampled too.

    Raises
    ------
    EndlessError
        If there are still too few such groups after `most_rollouts` rollouts.
    """
    require_count("groups", groups)
    require_count("most_rollouts", most_rollouts)
    kept: list[Rollout] = []
    sampled: list[Rollout] = []
    found = 0
    while found < groups:
        if len(sampled) == most_rollouts:
            raise EndlessError(
                f"only {found} of {groups} groups had different returns in {most_rollouts} "
                "rollouts: the policy answers always rightly or always wrongly; use "
                "mixed_groups=False, a larger group_size, or prompts of another difficulty"
            )
        rollout = collect_groups()
        sampled.append(rollout)
        group = cast(np.ndarray, rollout.group)
        spread = np.bincount(group, group_deviations(rollout))
        mixed = np.flatnonzero(spread > 0)[: groups - found]
        kept.append(_columns_of(rollout, np.isin(group, mixed)))
        found += len(mixed)
    merged = _side_by_side(kept)
    steps = int(merged.valid.sum())
    returns = np.concatenate([rollout.episode_returns for rollout in sampled])
    return replace(
        merged,
        episode_ends=np.full(len(returns), steps),
        episode_returns=returns,
        episode_lengths=np.concatenate([rollout.episode_lengths for rollout in sampled]),
    )


def _columns_of(rollout: Rollout, selected: np.ndarray) -> Rollout:
    """The columns of a rollout where `selected` (E,) is True."""
    per_step = {name: getattr(rollout, name)[:, selected] for name in PER_STEP}
    return replace(rollout, **per_step, group=cast(np.ndarray, rollout.group)[selected])


def _side_by_side(rollouts: list[Rollout]) -> Rollout:
    """One rollout of the columns of several; short ones end with invalid rows."""
    rows = max(len(rollout.rewards) for rollout in rollouts)
    per_step = {}
    for name in PER_STEP:
        columns = []
        for rollout in rollouts:
            column = getattr(rollout, name)
            missing = rows - len(column)
            # The last row again: valid observations and actions, in rows that `valid` leaves out.
            rest = np.repeat(column[-1:], missing, axis=0)
            columns.append(
                np.concatenate([column, np.zeros_like(rest) if name == "valid" else rest])
            )
        per_step[name] = np.concatenate(columns, axis=1)
    per_step["rewards"] = np.where(per_step["valid"], per_step["rewards"], 0.0)
    groups, first = [], 0
    for rollout in rollouts:
        numbers = np.unique(cast(np.ndarray, rollout.group), return_inverse=True)[1]
        groups.append(first + numbers)
        first += len(np.unique(numbers))
    return replace(rollouts[0], **per_step, group=np.concatenate(groups))


check_arguments(__name__)
