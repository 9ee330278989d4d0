"""Expectations over groups, against the enumeration of all groups and the figures of the papers."""

import itertools

import numpy as np
import pytest

from minirl.exact.groups import normalized_weight, silent_share


def enumerated_weight(p, group_size, divide):
    """Expected advantage times score, per unit of grad p, over all 2^K groups of rewards."""
    total = 0.0
    for rewards in itertools.product([0.0, 1.0], repeat=group_size):
        rewards = np.array(rewards)
        probability = np.prod(np.where(rewards == 1, p, 1 - p))
        advantages = rewards - rewards.mean()
        if divide and advantages.any():
            advantages = advantages / rewards.std()
        score = np.where(rewards == 1, 1 / p, -1 / (1 - p))  # d log P(reward) / dp
        total += probability * np.mean(advantages * score)
    return total


@pytest.mark.parametrize("p", [0.02, 0.3, 0.9])
@pytest.mark.parametrize("group_size", [2, 3, 5, 8])
def test_weight_is_the_sum_over_all_groups(p, group_size):
    weight = normalized_weight(p, group_size)
    np.testing.assert_allclose(weight, enumerated_weight(p, group_size, divide=True), rtol=1e-12)
    plain = enumerated_weight(p, group_size, divide=False)
    np.testing.assert_allclose(plain, 1 - 1 / group_size, rtol=1e-12)
    if group_size > 3:
        assert abs(weight - plain) > 0.1


def test_small_groups_weigh_all_prompts_alike():
    p = np.array([0.01, 0.2, 0.5, 0.97])
    np.testing.assert_allclose(normalized_weight(p, 2), 1, rtol=1e-12)
    np.testing.assert_allclose(normalized_weight(p, 3), np.sqrt(2), rtol=1e-12)
    assert np.ptp(normalized_weight(p, 4)) > 0.01


def test_limits():
    np.testing.assert_allclose(normalized_weight(1e-9, 10), np.sqrt(9), rtol=1e-6)
    p = np.array([0.1, 0.5])
    np.testing.assert_allclose(normalized_weight(p, 100_000), (p * (1 - p)) ** -0.5, rtol=1e-4)


def test_silent_share_is_the_probability_of_equal_rewards():
    p, group_size = 0.3, 4
    equal = sum(
        np.prod(np.where(np.array(rewards) == 1, p, 1 - p))
        for rewards in itertools.product([0, 1], repeat=group_size)
        if len(set(rewards)) == 1
    )
    np.testing.assert_allclose(silent_share(p, group_size), equal, rtol=1e-12)


@pytest.mark.parametrize("function", [normalized_weight, silent_share])
def test_arguments_outside_their_range_are_named(function):
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\), got 1.0"):
        function(1.0, 4)
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\), got nan"):
        function(float("nan"), 4)
    with pytest.raises(ValueError, match="group_size must be at least 2, got 1"):
        function(0.5, 1)
