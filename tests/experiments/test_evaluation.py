import importlib
import importlib.util

import environments
import gymnasium as gym
import numpy as np
import pytest
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

HAS_PYGAME = importlib.util.find_spec("pygame") is not None


def certain_chain(num_envs):
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
    assert found.returns.tolist() == [value] * 7
    assert found.lengths.tolist() == [length] * 7
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


UNDECIDED = Policy(MLP((4, 2)), Categorical, np.zeros(10, np.float32))
STAYS = Policy(MLP((1, 2)), Categorical, np.array([0, 0, 0, 1], np.float32))


def test_seeds_decide_episodes_and_sampled_actions():
    first, again, other = (
        evaluate("CartPole-v1", UNDECIDED, episodes=5, seed=seed, greedy=False).returns
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_episode_that_ends_early_earns_nothing_more():
    # mean episode lengths differ, so finished environments step on until the last one ends
    found = evaluate("CartPole-v1", UNDECIDED, episodes=20, greedy=False)
    assert len(set(found.lengths)) > 3
    np.testing.assert_array_equal(found.returns, found.lengths)  # CartPole pays 1 a step


def limited(make=lambda: TimeLimit(forever(), 1600)):
    return lambda num_envs: SyncVectorEnv([make] * num_envs)


def forever():
    return environments.Steady(length=0)


@pytest.fixture
def forever_v0():
    gym.register("Forever-v0", forever, max_episode_steps=1200)
    yield
    del gym.registry["Forever-v0"]


OF_MAKE = {"id": "Forever-v0", "max_episode_steps": 1600}


@pytest.mark.parametrize(
    ("env", "max_steps", "length", "cut"),
    [
        # the environment's own limit is honoured, wherever it is
        (limited(), None, 1600, 0),
        (lambda num_envs: gym.make_vec(**OF_MAKE, num_envs=num_envs), None, 1600, 0),
        (
            lambda num_envs: RecordEpisodeStatistics(
                limited(lambda: FlattenObservation(TimeLimit(forever(), 1600)))(num_envs)
            ),
            None,
            1600,
            0,
        ),
        (environments.limited, None, 1600, 0),
        ("Forever-v0", None, 1200, 0),
        # a registered limit that was taken off is none
        (limited(lambda: gym.make("Forever-v0").unwrapped), None, 1000, 2),
        # without a limit, episodes are cut at a thousand steps and counted
        (environments.endless, None, 1000, 2),
        (environments.steady, None, 5, 0),
        # max_steps overrides the limit either way
        (environments.endless, 1100, 1100, 2),
        (environments.steady, 3, 3, 2),
    ],
)
def test_episodes_end_at_a_limit_and_are_cut_without_one(env, max_steps, length, cut, forever_v0):
    found = evaluate(env, STAYS, episodes=2, max_steps=max_steps)
    assert (found.lengths.tolist(), found.cut) == ([length] * 2, cut)
    assert found.returns.tolist() == [length] * 2


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
    for n in (25, 2500):
        found = Evaluation(rng.normal(10.0, 2.0, n), np.ones(n, int), 0)
        low, high = found.interval()
        normal = 1.96 * found.returns.std() / np.sqrt(n)  # the bootstrap's large-sample limit
        assert low < found.mean < high
        assert (high - low) / 2 == pytest.approx(normal, rel=0.15)
        assert found.interval() == (low, high)  # reproducible
    narrow_low, narrow_high = found.interval(confidence=0.5)
    assert low < narrow_low < narrow_high < high
    assert np.isnan(Evaluation(np.array([3.0]), np.array([1]), 0).interval()).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"episodes": 0}, "episodes.*0"),
        ({"episodes": 1.5}, "episodes.*1.5"),
        ({"seed": -1}, "seed.*-1"),
        ({"max_steps": 0}, "max_steps must be a whole number of at least 1, got 0"),
        ({"env": environments.four, "episodes": 3}, r"got 4 from env\(3\)"),
    ],
)
def test_wrong_arguments_are_named(changes, words):
    with pytest.raises(ValueError, match=words):
        evaluate(**{"env": certain_chain, "policy": always(RIGHT), "episodes": 2} | changes)


@pytest.mark.parametrize(
    ("policy", "env"),
    [
        (UNDECIDED, "Pendulum-v1"),
        (UNDECIDED, "FrozenLake-v1"),
        (always(RIGHT), "CartPole-v1"),
        (Policy(Table(16, 9), Categorical, np.arange(144.0)), "FrozenLake-v1"),
        (Policy(Table(500, 4), Categorical, np.zeros(2000)), "FrozenLake-v1"),
    ],
)
def test_a_policy_of_other_spaces_is_refused_in_plain_words(policy, env):
    with pytest.raises(ValueError, match=r"(?i)policy.*space|space.*policy"):
        evaluate(env, policy, episodes=2)


def normalised(num_envs):
    return limited(lambda: TimeLimit(NormalizeObservation(environments.Steady()), 9))(num_envs)


def in_processes(num_envs):
    return AsyncVectorEnv([lambda: NormalizeObservation(environments.Steady())] * num_envs)


def together(num_envs):
    return RecordEpisodeStatistics(vector.NormalizeObservation(environments.steady(num_envs)))


def frozen(num_envs):
    envs = normalised(num_envs)
    envs.set_attr("update_running_mean", False)
    return envs


OBSERVATIONS = r"NormalizeObservation.*Settings\(normalize_observations=True\)"
REWARDS = r"NormalizeReward.*ReturnScaling\(discount\)"


@pytest.mark.parametrize(
    ("env", "words"),
    [
        (normalised, OBSERVATIONS),
        (in_processes, OBSERVATIONS),
        (together, OBSERVATIONS),
        (limited(lambda: NormalizeReward(environments.Steady())), REWARDS),
        (lambda num_envs: vector.NormalizeReward(environments.steady(num_envs)), REWARDS),
    ],
)
def test_statistics_that_start_fresh_are_warned_of_once(env, words):
    with pytest.warns(RuntimeWarning, match=words) as caught:
        evaluate(env, STAYS, episodes=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_statistics_that_are_frozen_are_not_warned_of():
    assert evaluate(frozen, STAYS, episodes=2).cut == 0
