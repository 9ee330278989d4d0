"""Return scaling against a loop over single environments, one reward at a time."""

import math

import helpers
import numpy as np
import pytest

from minirl.distributions import Categorical
from minirl.networks import Table
from minirl.policy import Policy
from minirl.reward_transforms import ReturnScaling

POLICY = Policy(Table(1, 2), Categorical, np.zeros(2))


def make_rollout(rewards, done, valid, truncated=False):
    truncated = done & truncated
    ends = {"terminated": done & ~truncated, "truncated": truncated}
    return helpers.make_rollout(rewards.shape, rewards=rewards, valid=valid, **ends)


def random_stream(rng, steps, columns):
    """Rewards, ends of both kinds, and the reset rows that follow them (with a reward of 99)."""
    done = rng.random((steps, columns)) < 0.25
    valid = np.ones((steps, columns), dtype=bool)
    for t in range(1, steps):
        valid[t] = ~(done[t - 1] & valid[t - 1])
        done[t] &= valid[t]
    truncated = done & (rng.random((steps, columns)) < 0.5)
    rewards = np.where(valid, 3 * rng.normal(size=(steps, columns)) + 1, 99.0)
    return rewards, done, valid, truncated


def looped_scales(rewards, done, valid, discount, lengths):
    """sqrt(variance of all discounted sums so far) after each rollout, column by column."""
    sums_by_time = [[] for _ in rewards]
    for column in range(rewards.shape[1]):
        running = 0.0
        for t in range(len(rewards)):
            if not valid[t, column]:
                assert running == 0.0
                continue
            running = discount * running + rewards[t, column]
            sums_by_time[t].append(running)
            if done[t, column]:
                running = 0.0
    ends = np.cumsum(lengths)
    return [math.sqrt(np.var(np.concatenate(sums_by_time[:end]))) for end in ends]


def test_equals_the_loop_over_rollouts_that_continue_each_other():
    rng = np.random.default_rng(0)
    rewards, done, valid, truncated = random_stream(rng, 60, 3)
    # The second rollout begins with a reset row in one column and not in another.
    second = int(np.argwhere(~valid)[3, 0])
    lengths = [second, 20, 40 - second]
    bounds = np.cumsum([0, *lengths])
    assert not valid[second].all()
    assert valid[second].any()
    scaling = ReturnScaling(discount=0.9)
    state = scaling.init(3)
    truths = looped_scales(rewards, done, valid, 0.9, lengths)
    for start, end, truth in zip(bounds[:-1], bounds[1:], truths, strict=True):
        cut = slice(start, end)
        rollout = make_rollout(rewards[cut], done[cut], valid[cut], truncated[cut])
        state, scaled, metrics = scaling.transform(state, rollout, POLICY)
        np.testing.assert_allclose(metrics["reward_scale"], truth, rtol=1e-12)
        expected = np.clip(rewards[cut] / truth, -10, 10)
        np.testing.assert_allclose(scaled[valid[cut]], expected[valid[cut]], rtol=1e-12)
        assert set(metrics) == {"reward_scale"}
    assert state.moments.count == valid.sum()


@pytest.mark.parametrize("truncated", [False, True])
def test_an_end_in_the_last_row_starts_the_next_rollout_afresh(truncated):
    """Also where no reset row follows, as between rollouts of whole episodes."""
    yes = np.ones((1, 1), dtype=bool)
    rollout = make_rollout(np.array([[8.0]]), yes, yes, truncated)
    scaling = ReturnScaling(discount=0.5)
    state, _, _ = scaling.transform(scaling.init(1), rollout, POLICY)
    np.testing.assert_array_equal(state.sums, [0.0])
    state, _, _ = scaling.transform(state, make_rollout(np.array([[2.0]]), ~yes, yes), POLICY)
    np.testing.assert_array_equal(state.sums, [2.0])
    np.testing.assert_allclose(state.moments.mean, 5.0)  # the sums were 8 and 2, not 8 and 6


def test_scaled_rewards_are_clipped_at_ten():
    rewards = np.zeros((1000, 1))
    rewards[[300, 600], 0] = 1e3, -1e3
    no, yes = np.zeros((1000, 1), dtype=bool), np.ones((1000, 1), dtype=bool)
    scaling = ReturnScaling(discount=0.0)
    _, scaled, _ = scaling.transform(scaling.init(1), make_rollout(rewards, no, yes), POLICY)
    assert scaled.max() == 10.0
    assert scaled.min() == -10.0
    assert (scaled != 0).sum() == 2


def test_state_and_rollout_stay_as_they_were():
    rng = np.random.default_rng(2)
    rewards, done, valid, truncated = random_stream(rng, 20, 2)
    rollout = make_rollout(rewards, done, valid, truncated)
    scaling = ReturnScaling()
    first, _, _ = scaling.transform(scaling.init(2), rollout, POLICY)
    sums, count, before = first.sums.copy(), first.moments.count, rewards.copy()
    _, once, _ = scaling.transform(first, rollout, POLICY)
    _, twice, _ = scaling.transform(first, rollout, POLICY)
    np.testing.assert_array_equal(once, twice)
    np.testing.assert_array_equal(first.sums, sums)
    assert first.moments.count == count
    np.testing.assert_array_equal(rewards, before)


def test_a_rollout_of_reset_rows_alone_is_survived():
    """One environment, one row, right after an end: no sums yet, nothing scaled."""
    no = np.zeros((1, 1), dtype=bool)
    scaling = ReturnScaling()
    state, scaled, metrics = scaling.transform(
        scaling.init(1), make_rollout(np.zeros((1, 1)), no, no), POLICY
    )
    assert state.moments.count == 0
    assert np.isfinite(scaled).all()
    np.testing.assert_allclose(metrics["reward_scale"], 1.0)


@pytest.mark.parametrize("value", [3.0, 1e-6])
def test_a_single_reward_says_nothing_about_the_scale_and_stays_what_it_is(value):
    no, yes = np.zeros((1, 1), dtype=bool), np.ones((1, 1), dtype=bool)
    scaling = ReturnScaling()
    rollout = make_rollout(np.full((1, 1), value), no, yes)
    _, scaled, metrics = scaling.transform(scaling.init(1), rollout, POLICY)
    assert scaled == value
    assert metrics["reward_scale"] == 1.0


@pytest.mark.parametrize("discount", [-0.1, 1.1, math.nan])
def test_an_impossible_discount_is_named(discount):
    with pytest.raises(ValueError, match=f"discount must .*got {discount}"):
        ReturnScaling(discount)


@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1e-6, 1e30])
def test_scaled_rewards_do_not_depend_on_the_unit(unit):
    rewards, done, valid, truncated = random_stream(np.random.default_rng(4), 40, 2)
    scaled = [
        ReturnScaling().transform(
            ReturnScaling().init(2), make_rollout(factor * rewards, done, valid, truncated), POLICY
        )[1]
        for factor in (1.0, unit)
    ]
    np.testing.assert_allclose(scaled[1][valid], scaled[0][valid], rtol=1e-9)
