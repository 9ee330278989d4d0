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
    GroupCentered,
    GroupNormalized,
    LeaveOneOut,
    PassAtK,
    RewardToGo,
    SuccessNormalized,
    discounted_sums,
    gae,
    td_errors,
)
from minirl.envs.chain import Chain
from minirl.exact.pass_at_k import centred_gradient_weights
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
    of_one_step = loop_gae(*trajectory, discount, 0.0)
    assert np.allclose(td_errors(*trajectory[:4], discount), of_one_step, atol=1e-12)


def test_the_endless_chain_under_a_time_limit_has_value_one_over_one_minus_discount():
    """V = 1 + discount V, through the environment, autoreset, `collect` and a table critic."""
    discount = 0.9
    envs = SyncVectorEnv([lambda: TimeLimit(Chain(length=2, endless=True), 7)] * 3)
    rng = np.random.default_rng(0)

    def fitted(estimate):
        policy = make_policy(envs.single_observation_space, envs.single_action_space, rng)
        critic = make_critic(envs.single_observation_space, rng)
        position = reset(envs, seed=0)
        for _ in range(60):
            rollout, position = collect(envs, policy, critic, position, rng, steps=11)
            assert not rollout.terminated.any()
            returns = estimate(rollout)[rollout.valid]
            states = rollout.observations[rollout.valid]
            visits = np.maximum(np.bincount(states, minlength=2), 1)
            critic = critic.with_parameters(np.bincount(states, returns, 2) / visits)
        return critic.parameters

    estimator = GAE(discount, 0.5)
    assert np.allclose(fitted(lambda rollout: estimator(rollout)[1]), 10, atol=0.05)
    # a limit that is mistaken for a termination costs more than a tenth
    confused = fitted(lambda r: estimator(replace(r, terminated=r.truncated))[1])
    assert (confused < 9).all()


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
    ("make", "name", "value"),
    [
        (GAE, "discount", 1.1),
        (GAE, "lam", 1.1),
        (RewardToGo, "discount", 1.1),
        (RewardToGo, "baseline", "mean"),
    ],
)
def test_bad_settings_of_an_estimator_are_named(make, name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        make(**{name: value})


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


@pytest.mark.parametrize(
    ("estimator", "by_episode"),
    [
        # 1 - 4, 4 - 1; 6 - (0 + 3)/2, 0 - (6 + 3)/2, 3 - (6 + 0)/2
        (LeaveOneOut(), [-3.0, 3.0, 4.5, -4.5, 0.0]),
        # means 2.5 and 3; variances 1.5^2 and (3^2 + 3^2 + 0)/3
        (GroupNormalized(), [-1.0, 1.0, 3 / np.sqrt(6), -3 / np.sqrt(6), 0.0]),
        # sample variances 2 * 1.5^2 and (3^2 + 3^2) / 2; epsilon is added to the deviations
        (
            GroupNormalized(sample=True, epsilon=0.5),
            [-1.5 / (1.5 * np.sqrt(2) + 0.5), 1.5 / (1.5 * np.sqrt(2) + 0.5), 3 / 3.5, -3 / 3.5, 0],
        ),
        (GroupCentered(), [-1.5, 1.5, 3.0, -3.0, 0.0]),
    ],
    ids=repr,
)
def test_group_estimators_by_hand(estimator, by_episode):
    rollout = two_groups()
    advantages, returns = estimator(rollout)
    expected = np.broadcast_to(by_episode, advantages.shape)[rollout.valid]
    np.testing.assert_allclose(advantages[rollout.valid], expected, atol=1e-14)
    to_go = [[1.0, 4.0, 6.0, 0.0, 3.0], [1.0, 3.0, 0.0, 0.0, 2.0], [0.0, 0.0, 0.0, 2.0, 0.0]]
    assert (returns * rollout.valid).tolist() == to_go
    assert estimator.discount == 1.0


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


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, -3.3, 1e-9, 1e9])
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
    np.testing.assert_allclose(LeaveOneOut()(rollout)[0][0, :3] / max(value, 1), 0.0, atol=1e-14)


@pytest.mark.parametrize(("roundings", "size"), [(7.5, 0.0), (8.5, 1.0)])
def test_a_spread_of_eight_roundings_per_row_counts_as_none(roundings, size):
    """Of the group's largest return; the second row of all episodes is invalid."""
    spread = roundings * 2 * np.finfo(float).eps
    rewards = [[1.0, 1 - 2 * spread, 1e6, 0.0], [9.0, 9.0, 9.0, 9.0]]
    advantages, _ = GroupNormalized()(whole_episodes(rewards, [1] * 4, [0, 0, 1, 1]))
    np.testing.assert_allclose(advantages[0], [size, -size, 1, -1], rtol=1e-6)


@pytest.mark.parametrize("other", [-1e9, -1e-9, 1e100])
def test_a_group_is_judged_by_its_own_returns_only(other):
    rewards = np.array([[0.1, 0.2, 0.3, 0.4, other, 0.0]])
    advantages, _ = GroupNormalized()(whole_episodes(rewards, [1] * 6, [0, 0, 0, 0, 1, 1]))
    first = np.array([-1.341641, -0.447214, 0.447214, 1.341641])
    np.testing.assert_allclose(advantages[0, :4], first, rtol=1e-6)
    np.testing.assert_allclose(np.abs(advantages[0, 4:]), [1, 1], rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_group_normalized_knows_no_unit_of_reward(unit):
    rollout = two_groups()
    scaled, _ = GroupNormalized()(replace(rollout, rewards=unit * rollout.rewards))
    np.testing.assert_allclose(scaled, GroupNormalized()(rollout)[0], atol=1e-12)


def test_success_normalized_by_hand():
    """Groups with one of two, none of two and three of four right."""
    returns = [0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0]
    rollout = whole_episodes([returns], [1] * 8, [0, 0, 1, 1, 2, 2, 2, 2])
    third = 1 / 3  # (1 - 3/4) / (3/4)
    expected = [-1.0, 1.0, 0.0, 0.0, third, third, -1.0, third]
    np.testing.assert_allclose(SuccessNormalized()(rollout)[0], [expected], rtol=1e-15)
    wrong = whole_episodes([[0.0, 0.5]], [1, 1], [0, 0])
    with pytest.raises(
        ValueError, match="returns for SuccessNormalized must be 0 or 1, got 0.5; use .* verifier"
    ):
        SuccessNormalized()(wrong)


def test_pass_at_k_by_hand():
    """The first right answer of a group counts most: k C(wrong, k - 1) / C(others, k - 1)."""
    returns = [0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    rollout = whole_episodes([returns], [1] * 8, [0, 0, 0, 0, 1, 1, 1, 1])
    # k = 2: 1 wrong of 3 others, then 3 wrong of 3 others
    expected = [0.0, 2 / 3, 2 / 3, 2 / 3, 2.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(PassAtK(2)(rollout)[0], [expected], rtol=1e-15)
    # k = 3: C(1, 2) = 0 in the first group, where any 3 answers contain a right one
    expected = [0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(PassAtK(3)(rollout)[0], [expected], rtol=1e-15)


@pytest.mark.parametrize("group_size", [3, 5])
def test_pass_at_k_is_the_centred_weight_of_its_estimate(group_size):
    for right in range(group_size + 1):
        returns = (np.arange(group_size) < right).astype(float)
        rollout = whole_episodes([returns], [1] * group_size, [0] * group_size)
        weights = centred_gradient_weights(group_size, 3)[returns.astype(int), right]
        advantages = PassAtK(3)(rollout)[0]
        np.testing.assert_allclose(advantages, [group_size * weights], atol=1e-15)


def test_pass_at_k_needs_verdicts_and_large_groups():
    with pytest.raises(ValueError, match="returns for PassAtK must be 0 or 1, got 0.5; use .*"):
        PassAtK(2)(whole_episodes([[0.0, 0.5]], [1, 1], [0, 0]))
    with pytest.raises(ValueError, match=r"PassAtK\(3\) needs groups of at least k, got one of 2"):
        PassAtK(3)(whole_episodes([[0.0, 1.0]], [1, 1], [0, 0]))
    with pytest.raises(ValueError, match=r"k must be at least 2, got 1; .* use LeaveOneOut\(\)"):
        PassAtK(1)


@pytest.mark.parametrize(
    "estimator",
    [LeaveOneOut(), GroupNormalized(), GroupCentered(), SuccessNormalized(), PassAtK(2)],
    ids=repr,
)
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


def _arrays():
    rng = np.random.default_rng(0)
    names = ("rewards", "values", "next_values", "terminated", "truncated")
    arrays = (*rng.normal(size=(3, 4, 2)), *(rng.random((2, 4, 2)) < 0.3))
    return dict(zip(names, arrays, strict=True))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        *(
            (name, lambda array: array[:, :1], r"have the shape of rewards, \(4, 2\), got")
            for name in ("values", "next_values", "terminated", "truncated")
        ),
        # ~0 is -1 and ~1 is -2: the trace would go on with the wrong sign
        *(
            (name, lambda array: array.astype(int), "be an array of bool, got int64")
            for name in ("terminated", "truncated")
        ),
    ],
)
def test_arrays_of_another_shape_or_kind_are_named(name, change, message):
    arrays = _arrays()
    arrays[name] = change(arrays[name])
    with pytest.raises(ValueError, match=f"{name} must {message}"):
        gae(**arrays, discount=0.9, lam=0.5)


def test_sums_and_errors_check_their_arrays():
    arrays = _arrays()
    del arrays["truncated"]
    rewards, done = arrays["rewards"], arrays["terminated"]
    for message, terms, wrong in (
        ("done must be an array of bool", rewards, np.zeros((4, 2))),
        ("done must have the shape of terms", rewards, done[:, :1]),
        (r"terms must be an array \(T, E\)", np.array(1.0), np.array(True)),
    ):
        with pytest.raises(ValueError, match=message):
            discounted_sums(terms, wrong, 0.5)
    with pytest.raises(ValueError, match="terminated must have the shape of rewards"):
        td_errors(**arrays | {"terminated": done[:, :1]}, discount=0.5)
    for decay in (1.1, -0.1, np.nan, None):
        with pytest.raises(ValueError, match="decay must lie in"):
            discounted_sums(rewards, done, decay)
        with pytest.raises(ValueError, match="discount must lie in"):
            td_errors(**arrays, discount=decay)
        with pytest.raises(ValueError, match="lam must lie in"):
            gae(**_arrays(), discount=0.9, lam=decay)
