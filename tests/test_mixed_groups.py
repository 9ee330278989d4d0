"""Dynamic sampling: which groups are kept, and what remains of the others."""

import itertools

import numpy as np
import pytest

from minirl.batch import Rollout
from minirl.mixed_groups import collect_mixed_groups
from minirl.rollout import EndlessError


def whole_episodes(returns, lengths, first):
    """One rollout of groups of two; observations are numbered from `first` on."""
    returns, lengths = np.array(returns, dtype=float), np.array(lengths)
    rows, columns = max(lengths), len(lengths)
    valid = np.arange(rows)[:, None] < lengths
    last = np.arange(rows)[:, None] == lengths - 1
    numbers = first + np.arange(rows * columns).reshape(rows, columns)
    return Rollout(
        observations=numbers,
        actions=numbers,
        log_probs=-numbers * 0.5,
        rewards=np.where(last, returns, 0.0),
        values=numbers * 2.0,
        next_values=numbers * 3.0,
        terminated=last,
        truncated=np.zeros_like(last),
        valid=valid,
        time=np.where(valid, np.arange(rows)[:, None], 0),
        episode_ends=np.full(columns, valid.sum()),
        episode_returns=returns,
        episode_lengths=lengths,
        group=np.arange(columns) // 2,
    )


ROLLOUTS = [
    whole_episodes([1, 1, 0, 1, 0, 0], [1, 2, 2, 1, 1, 1], first=0),  # the second group is mixed
    whole_episodes([0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], first=100),  # none
    whole_episodes([1, 0, 0, 1, 1, 0], [3, 1, 1, 1, 2, 2], first=200),  # all three
]


def test_mixed_groups_are_collected_until_there_are_enough():
    rollouts = iter(ROLLOUTS)
    merged = collect_mixed_groups(lambda: next(rollouts), 3)
    assert merged.rewards.shape == (3, 6)
    np.testing.assert_array_equal(merged.group, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(merged.valid.sum(axis=0), [2, 1, 3, 1, 1, 1])
    returns = (merged.rewards * merged.valid).sum(axis=0)
    np.testing.assert_array_equal(returns, [0, 1, 1, 0, 0, 1])
    columns = [(ROLLOUTS[0], 2), (ROLLOUTS[0], 3), *((ROLLOUTS[2], column) for column in range(4))]
    for column, (rollout, original) in enumerate(columns):
        for name in ("observations", "actions", "log_probs", "values", "next_values", "time"):
            kept = getattr(merged, name)[:, column][merged.valid[:, column]]
            expected = getattr(rollout, name)[:, original][rollout.valid[:, original]]
            np.testing.assert_array_equal(kept, expected, err_msg=name)
    assert not merged.rewards[~merged.valid].any()


def test_dropped_episodes_count_as_sampled():
    rollouts = iter(ROLLOUTS)
    merged = collect_mixed_groups(lambda: next(rollouts), 2)
    assert merged.rewards.shape[1] == 4  # two groups of two
    assert len(merged.episode_returns) == len(merged.episode_lengths) == 18
    np.testing.assert_array_equal(
        merged.episode_returns, [value for rollout in ROLLOUTS for value in rollout.episode_returns]
    )
    np.testing.assert_array_equal(merged.episode_ends, merged.valid.sum())


def test_equal_groups_for_ever_are_one_clear_error():
    rollouts = itertools.repeat(ROLLOUTS[1])
    message = "only 0 of 3 groups had different returns in 7 rollouts.*mixed_groups=False"
    with pytest.raises(EndlessError, match=message):
        collect_mixed_groups(lambda: next(rollouts), 3, most_rollouts=7)
