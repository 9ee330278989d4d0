import importlib
import importlib.util

import environments
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import (
    FlattenObservation,
    NormalizeObservation,
    NormalizeReward,
    TimeLimit,
    vector,
)
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from minirl.distributions import Categorical, DiagonalGaussian
from minirl.envs.chain import LEFT, LEFT_PRIZE, RIGHT, RIGHT_PRIZE, Chain
from minirl.experiments.evaluation import Evaluation, evaluate
from minirl.networks import MLP, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.policy import Policy
from minirl.vector_env import step_limit

HAS_PYGAME = importlib.util.find_spec("pygame") is not None


def certain_chain(num_envs):
    """Five states, no slipping: everything is deterministic."""
    return gym.make_vec("minirl/Chain-v0", num_envs=num_envs, slip=0.0)


def one_state(num_envs):
    """One decision: left ends with 0.1, right with 1."""
    return SyncVectorEnv([lambda: Chain(length=1, slip=0.0)] * num_envs)


def always(action, states=5):
    logits = np.zeros((states, 2))
    logits[:, action] = 50.0
    return Policy(Table(states, 2), Categorical, logits.ravel())


@pytest.mark.parametrize(
    ("action", "value", "length"), [(RIGHT, RIGHT_PRIZE, 5), (LEFT, LEFT_PRIZE, 1)]
)
def test_the_mean_is_exact_where_nothing_is_random(action, value, length):
    found = evaluate(certain_chain, always(action), episodes=7)
    np.testing.assert_array_equal(found.returns, np.full(7, value))
    np.testing.assert_array_equal(found.lengths, np.full(7, length))
    assert found.mean == pytest.approx(value, rel=1e-15)
    assert found.cut == 0
    assert found.interval() == pytest.approx((value, value), rel=1e-12)


def test_greedy_takes_the_mode_and_sampled_the_probabilities():
    policy = Policy(Table(1, 2), Categorical, np.log([0.25, 0.75]))
    greedy = evaluate(one_state, policy, episodes=50)
    assert set(greedy.returns) == {RIGHT_PRIZE}
    n = 2000
    sampled = evaluate(one_state, policy, episodes=n, greedy=False, seed=3)
    assert set(sampled.returns) == {LEFT_PRIZE, RIGHT_PRIZE}
    share = (sampled.returns == LEFT_PRIZE).mean()
    assert abs(share - 0.25) < 3 * np.sqrt(0.25 * 0.75 / n)


def test_a_greedy_gaussian_takes_its_mean():
    network = WithLogStd(MLP((3, 1), dtype="float64"), 1, 0.0)
    theta = np.zeros(network.size)
    quiet, loud = (
        Policy(network, DiagonalGaussian, np.append(theta[:-1], log_std)) for log_std in (-9, 3)
    )
    same = [evaluate("Pendulum-v1", policy, episodes=3).returns for policy in (quiet, loud)]
    np.testing.assert_array_equal(*same)
    noisy = evaluate("Pendulum-v1", loud, episodes=3, greedy=False).returns
    assert not np.allclose(noisy, same[0])


def test_seeds_decide_episodes_and_sampled_actions():
    policy = Policy(MLP((4, 2)), Categorical, np.zeros(10, np.float32))
    first, again, other = (
        evaluate("CartPole-v1", policy, episodes=5, seed=seed, greedy=False).returns
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_episode_that_ends_early_earns_nothing_more():
    # mean episode lengths differ, so finished environments step on until the last one ends
    policy = Policy(MLP((4, 2)), Categorical, np.zeros(10, np.float32))
    found = evaluate("CartPole-v1", policy, episodes=20, greedy=False)
    assert len(set(found.lengths)) > 3
    np.testing.assert_array_equal(found.returns, found.lengths)  # CartPole pays 1 a step


def test_without_a_time_limit_episodes_are_cut_at_a_thousand_steps_and_counted():
    policy = Policy(MLP((1, 2)), Categorical, np.array([0, 0, 0, 1], np.float32))
    found = evaluate(environments.endless, policy, episodes=3)
    np.testing.assert_array_equal(found.lengths, [1000] * 3)
    np.testing.assert_array_equal(found.returns, [1000.0] * 3)
    assert found.cut == 3
    assert evaluate(environments.steady, policy, episodes=3).cut == 0


STAYS = Policy(MLP((1, 2)), Categorical, np.array([0, 0, 0, 1], np.float32))


def limited_inside(num_envs):
    return SyncVectorEnv([lambda: TimeLimit(forever(), 1600)] * num_envs)


def limited_by_make(num_envs):
    return gym.make_vec("Forever-v0", num_envs=num_envs, max_episode_steps=1600)


def limited_below_other_wrappers(num_envs):
    return RecordEpisodeStatistics(
        SyncVectorEnv([lambda: FlattenObservation(TimeLimit(forever(), 1600))] * num_envs)
    )


def forever():
    return environments.Steady(length=0)


@pytest.fixture
def forever_v0():
    gym.register("Forever-v0", forever, max_episode_steps=1200)
    yield
    del gym.registry["Forever-v0"]


@pytest.mark.parametrize(
    "env", [limited_inside, limited_by_make, limited_below_other_wrappers, "limited"]
)
def test_the_environments_own_time_limit_is_honoured(env, forever_v0):
    env = getattr(environments, env) if isinstance(env, str) else env
    found = evaluate(env, STAYS, episodes=2)
    np.testing.assert_array_equal(found.lengths, [1600, 1600])
    assert found.cut == 0


def test_a_registered_limit_that_was_taken_off_is_none(forever_v0):
    def unwrapped(num_envs):
        return SyncVectorEnv([lambda: gym.make("Forever-v0").unwrapped] * num_envs)

    assert evaluate("Forever-v0", STAYS, episodes=1).lengths.tolist() == [1200]
    found = evaluate(unwrapped, STAYS, episodes=1)
    assert (found.lengths.tolist(), found.cut) == ([1000], 1)


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda: gym.make_vec("CartPole-v1", num_envs=2), 500),
        (lambda: gym.make_vec("CartPole-v1", num_envs=2, max_episode_steps=1600), 1600),
        (lambda: CartPoleVectorEnv(2, max_episode_steps=1600), 1600),
        (lambda: RecordEpisodeStatistics(CartPoleVectorEnv(2, max_episode_steps=1600)), 1600),
        (lambda: gym.make_vec("minirl/TokenGeneration-v0", num_envs=2), 1000),
        (lambda: gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="async"), 200),
    ],
)
def test_the_limit_of_environments_with_and_without_a_vector_entry_point(make, limit):
    envs = make()
    try:
        assert step_limit(envs) == limit
    finally:
        envs.close()


def test_max_steps_overrides_the_limit_either_way():
    found = evaluate(environments.endless, STAYS, episodes=2, max_steps=1100)
    assert (found.lengths.tolist(), found.cut) == ([1100, 1100], 2)
    found = evaluate(environments.steady, STAYS, episodes=2, max_steps=3)
    assert (found.lengths.tolist(), found.cut) == ([3, 3], 2)
    with pytest.raises(ValueError, match="max_steps must be a whole number of at least 1, got 0"):
        evaluate(environments.endless, STAYS, max_steps=0)


def test_a_function_that_ignores_its_argument_is_refused():
    with pytest.raises(ValueError, match=r"got 4 from env\(3\)"):
        evaluate(environments.four, STAYS, episodes=3)


def test_the_observation_statistics_are_used_as_they_stand():
    # logits (0, x) for a shown 5.0: raw it acts 1, standardised with mean 7 it acts 0
    network = MLP((1, 2), dtype="float64")
    raw = Policy(network, Categorical, np.array([0.0, 1.0, 0.0, 0.0]))
    # one sample more would move this mean halfway, two of them beyond 5
    barely = RunningMoments(1, np.array([7.0]), np.array([1.0]))
    shifted = raw.with_observation_statistics(barely)
    assert evaluate(environments.steady, raw, episodes=2).mean == 5.0
    assert evaluate(environments.steady, shifted, episodes=2).mean == 0.0
    assert shifted.observation_statistics is barely
    assert (barely.count, barely.mean[0], barely.variance[0]) == (1, 7.0, 1.0)


def test_the_interval_holds_the_mean_and_narrows():
    rng = np.random.default_rng(0)
    few, many = (Evaluation(rng.normal(10.0, 2.0, n), np.ones(n, int), 0) for n in (25, 2500))
    for found in (few, many):
        low, high = found.interval()
        n = len(found.returns)
        normal = 1.96 * found.returns.std() / np.sqrt(n)  # the bootstrap's large-sample limit
        assert low < found.mean < high
        assert (high - low) / 2 == pytest.approx(normal, rel=0.15)
        assert found.interval() == (low, high)  # reproducible
    narrow_low, narrow_high = many.interval(confidence=0.5)
    assert low < narrow_low < narrow_high < high


def test_a_single_episode_has_no_interval():
    low, high = Evaluation(np.array([3.0]), np.array([1]), 0).interval()
    assert np.isnan(low)
    assert np.isnan(high)


@pytest.mark.parametrize(("name", "value"), [("episodes", 0), ("episodes", 1.5), ("seed", -1)])
def test_wrong_numbers_are_named(name, value):
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        evaluate(certain_chain, always(RIGHT), **{"episodes": 2, name: value})


@pytest.mark.parametrize(
    ("policy", "env"),
    [
        (Policy(MLP((4, 2)), Categorical, np.zeros(10, np.float32)), "Pendulum-v1"),
        (Policy(MLP((4, 2)), Categorical, np.zeros(10, np.float32)), "FrozenLake-v1"),
        (always(RIGHT), "CartPole-v1"),
        (Policy(Table(16, 9), Categorical, np.arange(144.0)), "FrozenLake-v1"),
        (Policy(Table(500, 4), Categorical, np.zeros(2000)), "FrozenLake-v1"),
    ],
)
def test_a_policy_of_other_spaces_is_refused_in_plain_words(policy, env):
    with pytest.raises(ValueError, match=r"(?i)policy.*space|space.*policy"):
        evaluate(env, policy, episodes=2)


def normalised(num_envs):
    make = environments.Steady
    return SyncVectorEnv([lambda: TimeLimit(NormalizeObservation(make()), 9)] * num_envs)


def normalised_in_processes(num_envs):
    make = environments.Steady
    return AsyncVectorEnv([lambda: NormalizeObservation(make())] * num_envs)


def normalised_together(num_envs):
    environment = environments.steady(num_envs)
    return RecordEpisodeStatistics(vector.NormalizeObservation(environment))


def scaled(num_envs):
    make = environments.Steady
    return SyncVectorEnv([lambda: NormalizeReward(make())] * num_envs)


def scaled_together(num_envs):
    return vector.NormalizeReward(environments.steady(num_envs))


def frozen(num_envs):
    envs = normalised(num_envs)
    envs.set_attr("update_running_mean", False)
    return envs


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (normalised, r"NormalizeObservation.*Settings\(normalize_observations=True\)"),
        (normalised_in_processes, r"NormalizeObservation.*Settings\(normalize_observations=True\)"),
        (normalised_together, r"NormalizeObservation.*Settings\(normalize_observations=True\)"),
        (scaled, r"NormalizeReward.*ReturnScaling\(discount\)"),
        (scaled_together, r"NormalizeReward.*ReturnScaling\(discount\)"),
    ],
)
def test_statistics_that_start_fresh_are_warned_of_once(env, words):
    with pytest.warns(RuntimeWarning, match=words) as caught:
        evaluate(env, STAYS, episodes=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize("env", [frozen, "steady"])
def test_statistics_that_are_frozen_or_absent_are_not_warned_of(env):
    env = getattr(environments, env) if isinstance(env, str) else env
    assert evaluate(env, STAYS, episodes=2).cut == 0
