"""Advantage estimators against hand-worked numbers, a plain loop, and identities."""

from dataclasses import replace

import helpers
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import TimeLimit
from hypothesis import given, settings
from hypothesis import strategies as st

from minirl.advantages import (
    GAE,
    GroupNormalized,
    LeaveOneOut,
    RewardToGo,
    discounted_sums,
    gae,
    td_errors,
)
from minirl.envs.chain import Chain
from minirl.policy import make_critic, make_policy
from minirl.rollout import collect, reset


def make_rollout(rewards, values, next_values, terminated, truncated, **columns):
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    arrays = map(np.asarray, (rewards, values, next_values, terminated, truncated))
    columns |= dict(zip(names, arrays, strict=True))
    return helpers.make_rollout(np.shape(rewards), **columns)


def loop_gae(rewards, values, next_values, terminated, truncated, discount, lam):
    """The definition, term by term: sum_l (discount lam)^l delta_{t+l} until the episode ends."""
    steps, envs = rewards.shape
    advantages = np.zeros((steps, envs))
    for e in range(envs):
        for t in range(steps):
            factor = 1.0
            for k in range(t, steps):
                bootstrap = 0.0 if terminated[k, e] else next_values[k, e]
                advantages[t, e] += factor * (rewards[k, e] + discount * bootstrap - values[k, e])
                if terminated[k, e] or truncated[k, e]:
                    break
                factor *= discount * lam
    return advantages


@st.composite
def trajectories(draw):
    steps, envs = draw(st.integers(1, 7)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    rewards, values, next_values = rng.standard_normal((3, steps, envs))
    terminated, truncated = rng.random((2, steps, envs)) < draw(st.sampled_from([0, 0.2, 0.9]))
    return rewards, values, next_values, terminated, truncated


@settings(max_examples=60, derandomize=True, deadline=None)
@given(trajectories(), st.floats(0, 1), st.floats(0, 1))
def test_gae_equals_the_plain_loop(trajectory, discount, lam):
    truth = loop_gae(*trajectory, discount, lam)
    assert np.allclose(gae(*trajectory, discount=discount, lam=lam), truth, atol=1e-12)
    advantages, returns = GAE(discount, lam)(make_rollout(*trajectory))
    assert np.allclose(advantages, truth, atol=1e-12)
    assert np.array_equal(returns, advantages + trajectory[1])


def test_five_numbers_worked_by_hand():
    # One column: two steps and a termination, then one step and a truncation, then one open step.
    # discount 1/2, lambda 1/2, so the trace decays by 1/4.
    rewards = np.array([[1.0], [2.0], [4.0], [8.0], [3.0]])
    values = np.array([[2.0], [4.0], [6.0], [2.0], [1.0]])
    next_values = np.array([[4.0], [6.0], [9.0], [10.0], [2.0]])
    terminated = np.array([[0], [0], [1], [0], [0]], bool)
    truncated = np.array([[0], [0], [0], [1], [0]], bool)
    # deltas: 1+2-2=1, 2+3-4=1, 4+0-6=-2, 8+5-2=11, 3+1-1=3
    advantages = gae(
        rewards, values, next_values, terminated, truncated, discount=0.5, lam=0.5
    ).ravel()
    assert advantages.tolist() == [1 + 0.25 * (1 + 0.25 * -2), 1 + 0.25 * -2, -2, 11, 3]


@settings(max_examples=30, derandomize=True, deadline=None)
@given(trajectories())
def test_lambda_zero_is_the_td_error(trajectory):
    found = gae(*trajectory, discount=0.9, lam=0.0)
    assert np.allclose(found, td_errors(*trajectory[:4], 0.9))


def test_lambda_one_is_return_minus_value():
    rng = np.random.default_rng(0)
    rewards, values = rng.standard_normal((2, 6, 2))
    next_values = np.vstack([values[1:], values[:1]])
    terminated = np.zeros((6, 2), bool)
    terminated[-1] = True
    found = gae(
        rewards, values, next_values, terminated, np.zeros_like(terminated), discount=0.9, lam=1.0
    )
    powers = 0.9 ** np.arange(6)
    returns = np.array([powers[: 6 - t] @ rewards[t:] for t in range(6)])
    assert np.allclose(found, returns - values, atol=1e-12)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(trajectories(), trajectories())
def test_concatenated_episodes_equal_separate_ones(first, second):
    first = [array[:, :1] for array in first]
    second = [array[:, :1] for array in second]
    first[4][-1] = True  # a time limit separates them
    together = gae(
        *(np.vstack(pair) for pair in zip(first, second, strict=True)), discount=0.9, lam=0.8
    )
    separate = np.vstack([gae(*part, discount=0.9, lam=0.8) for part in (first, second)])
    assert np.allclose(together, separate, atol=1e-12)


def test_ending_both_ways_at_once_bootstraps_nothing():
    ones, end = np.ones((1, 1)), np.ones((1, 1), bool)
    assert gae(ones, 0 * ones, 100 * ones, end, end, discount=0.9, lam=0.9) == 1.0


def test_endless_chain_under_a_time_limit_has_value_one_over_one_minus_discount():
    """V = 1 + discount V: regression on the estimator's own targets converges to 1/(1-discount)."""
    discount, steps = 0.9, 20

    def fixed_point(terminated_at_limit: bool) -> float:
        value = 0.0
        limit = np.zeros((steps, 1), bool)
        limit[-1] = True
        for _ in range(400):
            values = np.full((steps, 1), value)
            ends = (limit, ~limit & limit) if terminated_at_limit else (~limit & limit, limit)
            rollout = make_rollout(np.ones((steps, 1)), values, values, *ends)
            value = GAE(discount, 0.95)(rollout)[1].mean()
        return value

    assert abs(fixed_point(terminated_at_limit=False) - 10) < 1e-9
    assert fixed_point(terminated_at_limit=True) < 9  # the confusion costs more than a tenth


def test_the_endless_chain_itself_under_its_time_limit():
    """The same through the environment, autoreset and `collect`, with a fitted table critic."""
    discount = 0.9
    envs = SyncVectorEnv([lambda: TimeLimit(Chain(length=2, endless=True), 7)] * 3)
    rng = np.random.default_rng(0)
    policy = make_policy(envs.single_observation_space, envs.single_action_space, rng)
    critic = make_critic(envs.single_observation_space, rng)
    position = reset(envs, seed=0)
    for _ in range(60):
        rollout, position = collect(envs, policy, critic, position, rng, steps=11)
        assert not rollout.terminated.any()
        returns = GAE(discount, 0.5)(rollout)[1][rollout.valid]
        states = rollout.observations[rollout.valid]
        means = np.bincount(states, returns, 2) / np.maximum(np.bincount(states, minlength=2), 1)
        critic = critic.with_parameters(means)
    assert np.allclose(critic.parameters, 1 / (1 - discount), atol=0.05)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(trajectories())
def test_reward_to_go_is_gae_one_plus_the_baseline(trajectory):
    """Identity: with lambda = 1 the values telescope away, where next_values continue values."""
    rewards, values, next_values, terminated, truncated = trajectory
    inner = ~(terminated | truncated)[:-1]
    next_values[:-1][inner] = values[1:][inner]
    rollout = make_rollout(rewards, values, next_values, terminated, truncated)
    expected = gae(*(trajectory), discount=0.9, lam=1.0) + values
    advantages, returns = RewardToGo(0.9)(rollout)
    assert np.allclose(returns, expected, atol=1e-12)
    assert np.allclose(advantages, returns)
    assert np.allclose(RewardToGo(0.9, baseline="critic")(rollout)[0], expected - values)


def test_batch_baseline_is_the_mean_return_of_valid_rows():
    valid = np.array([[True], [True], [False]])
    end = np.array([[False], [True], [False]])
    rollout = make_rollout(
        [[1.0], [1.0], [50.0]], np.zeros((3, 1)), np.zeros((3, 1)), end, ~end & False, valid=valid
    )
    advantages, _ = RewardToGo(1.0, baseline="batch")(rollout)
    assert advantages[valid].tolist() == [0.5, -0.5]


def test_discounted_sums_do_not_change_their_input():
    terms = np.ones((3, 1))
    discounted_sums(terms, np.zeros((3, 1), bool), 0.9)
    assert np.array_equal(terms, np.ones((3, 1)))


def test_float32_rewards_are_summed_in_float64():
    """2^24 + 1 is no float32."""
    terms = np.array([[1.0], [2.0**24]], dtype="float32")
    sums = discounted_sums(terms, np.zeros((2, 1), dtype=bool), 1.0)
    assert sums.dtype == np.float64
    assert sums[0] == 2**24 + 1


@pytest.mark.parametrize(
    ("make", "name"), [(GAE, "discount"), (GAE, "lam"), (RewardToGo, "discount")]
)
def test_bad_discounts_and_lambdas_are_refused(make, name):
    with pytest.raises(ValueError, match=f"^{name} must lie in"):
        make(**{name: 1.1})


def test_unknown_baseline_is_refused():
    with pytest.raises(ValueError, match="baseline"):
        RewardToGo(0.9, baseline="mean")


# ------------------------------------------------------------ episodes that begin alike


def whole_episodes(rewards, lengths, group=None):
    """Column e ends in its row lengths[e] - 1; the rows after it are invalid."""
    rewards = np.asarray(rewards, float)
    row = np.arange(len(rewards))[:, None]
    no_value = np.zeros(rewards.shape)
    ends = row == np.array(lengths) - 1
    rollout = make_rollout(
        rewards, no_value, no_value, ends, np.zeros_like(ends), valid=row < np.array(lengths)
    )
    return replace(rollout, group=None if group is None else np.array(group))


def two_groups():
    """Returns 1 and 4 (two steps each), and 6, 0, 3 (one, three, two); 99 after the ends."""
    rewards = [
        [0.0, 1.0, 6.0, 0.0, 1.0],
        [1.0, 3.0, 99.0, -2.0, 2.0],
        [99.0, 99.0, 99.0, 2.0, 99.0],
    ]
    return whole_episodes(rewards, [2, 2, 1, 3, 2], [0, 0, 1, 1, 1])


def assert_per_episode(rollout, estimator, by_episode):
    advantages, returns = estimator(rollout)
    expected = np.broadcast_to(by_episode, advantages.shape)[rollout.valid]
    np.testing.assert_allclose(advantages[rollout.valid], expected, atol=1e-14)
    to_go = [[1.0, 4.0, 6.0, 0.0, 3.0], [1.0, 3.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 2.0, 0.0]]
    assert (returns * rollout.valid).tolist() == to_go
    assert estimator.discount == 1.0


def test_leave_one_out_by_hand():
    """1 - 4, 4 - 1; 6 - (0 + 3)/2, 0 - (6 + 3)/2, 3 - (6 + 0)/2."""
    assert_per_episode(two_groups(), LeaveOneOut(), [-3.0, 3.0, 4.5, -4.5, 0.0])


def test_group_normalized_by_hand():
    """Means 2.5 and 3; variances 1.5^2 and (3^2 + 3^2 + 0)/3."""
    by_episode = [-1.0, 1.0, 3 / np.sqrt(6), -3 / np.sqrt(6), 0.0]
    assert_per_episode(two_groups(), GroupNormalized(), by_episode)


def loop_groups(rollout, normalized):
    """One advantage per episode: its return against those of its group, one group at a time."""
    returns = (rollout.rewards * rollout.valid).sum(axis=0)
    advantages = []
    for e, own in enumerate(rollout.group):
        of_group = returns[rollout.group == own]
        if normalized:
            advantages.append((returns[e] - of_group.mean()) / of_group.std())
        else:
            others = of_group.sum() - returns[e]
            advantages.append(returns[e] - others / (len(of_group) - 1))
    return np.array(advantages)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(st.lists(st.integers(2, 5), min_size=1, max_size=4), st.integers(0, 2**31))
def test_group_estimators_equal_the_plain_loop(sizes, seed):
    """Groups of unequal sizes, their columns in any order, numbers left out."""
    rng = np.random.default_rng(seed)
    group = rng.permutation(np.repeat(2 * np.arange(len(sizes)) + 1, sizes))
    rewards = rng.standard_normal((6, len(group)))
    rollout = whole_episodes(rewards, rng.integers(1, 7, len(group)), group)
    for estimator, normalized in ((LeaveOneOut(), False), (GroupNormalized(), True)):
        advantages, _ = estimator(rollout)
        truth = np.broadcast_to(loop_groups(rollout, normalized), rewards.shape)
        np.testing.assert_allclose(advantages[rollout.valid], truth[rollout.valid], rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3])
def test_a_group_of_equal_returns_teaches_nothing(value):
    """Also where sums in another order round differently, and beside a group that differs."""
    rewards = np.zeros((3, 6))
    rewards[:, :3] = value * np.array([[0.1, 0.7, 0.2], [0.2, 0.1, 0.7], [0.7, 0.2, 0.1]])
    rewards[0, 3:] = [1.0, 2.0, 3.0]
    rollout = whole_episodes(rewards, [3] * 6, [0, 0, 0, 1, 1, 1])
    advantages, _ = GroupNormalized()(rollout)
    assert (advantages[:, :3] == 0).all()
    root = 1.5**0.5
    np.testing.assert_allclose(advantages[0, 3:], [-root, 0.0, root], atol=1e-14)
    np.testing.assert_allclose(LeaveOneOut()(rollout)[0][0, :3], 0.0, atol=1e-14)


@pytest.mark.parametrize("other", [-1e9, -1e-9, 1e100])
def test_a_group_is_judged_by_its_own_returns_only(other):
    rewards = np.array([[0.1, 0.2, 0.3, 0.4, other, 0.0]])
    advantages, _ = GroupNormalized()(whole_episodes(rewards, [1] * 6, [0, 0, 0, 0, 1, 1]))
    first = np.array([-1.341641, -0.447214, 0.447214, 1.341641])
    np.testing.assert_allclose(advantages[0, :4], first, rtol=1e-6)
    np.testing.assert_allclose(np.abs(advantages[0, 4:]), [1, 1], rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_group_normalized_knows_no_unit_of_reward(unit):
    """Nor does the rounding of equal returns: in any unit, it is nothing."""
    rollout = two_groups()
    scaled, _ = GroupNormalized()(replace(rollout, rewards=unit * rollout.rewards))
    expected, _ = GroupNormalized()(rollout)
    np.testing.assert_allclose(scaled, expected, atol=1e-12)
    equal = unit * np.array([[0.1, 0.7, 0.2], [0.2, 0.1, 0.7], [0.7, 0.2, 0.1]])
    advantages, _ = GroupNormalized()(whole_episodes(equal, [3] * 3, [0, 0, 0]))
    assert (advantages == 0).all()


@pytest.mark.parametrize("estimator", [LeaveOneOut(), GroupNormalized()], ids=repr)
def test_group_estimators_need_groups_of_whole_episodes(estimator):
    ones = np.ones((2, 4))
    with pytest.raises(ValueError, match="needs a rollout with groups.*group_size"):
        estimator(whole_episodes(ones, [2] * 4))
    with pytest.raises(ValueError, match="at least 2 episodes to compare, got one of 1"):
        estimator(whole_episodes(ones, [2] * 4, [0, 0, 0, 1]))
    with pytest.raises(ValueError, match="some had not ended; raise rollout_steps"):
        estimator(whole_episodes(ones, [2, 2, 2, 3], [0, 0, 1, 1]))
    late = whole_episodes(ones, [2, 1, 2, 2], [0, 0, 1, 1])
    late.valid[1, 0] = False  # an end on an invalid row is no end of this episode
    with pytest.raises(ValueError, match="some had not ended"):
        estimator(late)


@pytest.mark.parametrize(
    "estimator",
    [
        GAE(0.9, 0.8),
        RewardToGo(0.9),
        RewardToGo(0.9, baseline="batch"),
        RewardToGo(0.9, baseline="critic"),
        LeaveOneOut(),
        GroupNormalized(),
    ],
    ids=repr,
)
@pytest.mark.parametrize("ends", ["terminated", "truncated"])
def test_what_stands_in_invalid_rows_never_matters(estimator, ends):
    rng = np.random.default_rng(3)
    rollout = whole_episodes(rng.standard_normal((5, 6)), [2, 5, 1, 4, 5, 3], [0, 0, 1, 1, 2, 2])
    values, next_values = rng.standard_normal((2, 5, 6))
    rollout = replace(rollout, values=values, next_values=next_values)
    if ends == "truncated":
        rollout = replace(rollout, terminated=rollout.truncated, truncated=rollout.terminated)
    valid = rollout.valid

    def littered(column, litter):
        return np.where(valid, column, litter)

    other = replace(
        rollout,
        rewards=littered(rollout.rewards, 1e3),
        values=littered(values, -1e4),
        next_values=littered(next_values, 1e5),
        terminated=littered(rollout.terminated, True),
    )
    for found, expected in zip(estimator(other), estimator(rollout), strict=True):
        assert np.array_equal(found[valid], expected[valid])


# ------------------------------------------------------------ arrays of other shapes and kinds


def _arrays():
    rng = np.random.default_rng(0)
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    arrays = (*rng.normal(size=(3, 4, 2)), *(rng.random((2, 4, 2)) < 0.3))
    return dict(zip(names, arrays, strict=True))


@pytest.mark.parametrize("name", ["values", "next_values", "terminated", "truncated"])
def test_arrays_of_another_shape_do_not_broadcast(name):
    arrays = _arrays()
    arrays[name] = arrays[name][:, :1]
    with pytest.raises(ValueError, match=rf"{name} must have the shape of rewards, \(4, 2\), got"):
        gae(**arrays, discount=0.9, lam=0.5)


@pytest.mark.parametrize("name", ["terminated", "truncated"])
def test_a_mask_of_numbers_is_refused(name):
    """~0 is -1 and ~1 is -2: the trace would go on with the wrong sign."""
    arrays = _arrays()
    arrays[name] = arrays[name].astype(int)
    with pytest.raises(ValueError, match=f"{name} must be an array of bool, got int64"):
        gae(**arrays, discount=0.9, lam=0.5)


def test_sums_and_errors_check_their_arrays():
    arrays = _arrays()
    del arrays["truncated"]
    with pytest.raises(ValueError, match="done must be an array of bool"):
        discounted_sums(arrays["rewards"], np.zeros((4, 2)), 0.5)
    with pytest.raises(ValueError, match="done must have the shape of terms"):
        discounted_sums(arrays["rewards"], np.zeros((4, 1), bool), 0.5)
    for decay in (1.1, -0.1, np.nan, None):
        with pytest.raises(ValueError, match="decay must lie in"):
            discounted_sums(arrays["rewards"], np.zeros((4, 2), bool), decay)
        with pytest.raises(ValueError, match="discount must lie in"):
            td_errors(**arrays, discount=decay)
        with pytest.raises(ValueError, match="lam must lie in"):
            gae(**_arrays(), discount=0.9, lam=decay)
