"""Collecting: reset rows, time, episode returns, continuation, and bad environments."""

import gymnasium as gym
import numpy as np
import pytest
from cat import describe_the_cat
from environments import steady
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.networks import Linear
from minirl.policy import Critic, make_policy
from minirl.rollout import (
    EnvironmentFailure,
    NonFiniteError,
    collect,
    collect_episodes,
    reset,
    reset_seed,
)
from minirl.vector_env import make_vector_env


class Scripted(gym.Env):
    """Observation (episode, time); reward time + 1; the episode ends after `length` steps."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float64)

    def __init__(self, length, how="terminated", bad_at=None, bad_value=np.nan, where="reward"):
        self.length, self.how = length, how
        self.bad_at, self.bad_value, self.where = bad_at, bad_value, where
        self.episode, self.time, self.steps, self.received = -1, 0, 0, []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.array([self.episode, 0.0]), {}

    def step(self, action):
        self.received.append(action.copy())
        self.time += 1
        self.steps += 1
        reward, observation = float(self.time), np.array([self.episode, float(self.time)])
        if self.steps == self.bad_at:
            if self.where == "reward":
                reward = self.bad_value
            else:
                observation[1] = self.bad_value
        over = self.time == self.length
        return (
            observation,
            reward,
            over and self.how != "truncated",
            over and self.how != "terminated",
            {},
        )


def scripted(*environments):
    return SyncVectorEnv(
        [lambda environment=environment: environment for environment in environments]
    )


def random_policy(envs):
    return make_policy(
        envs.single_observation_space,
        envs.single_action_space,
        np.random.default_rng(0),
        hidden_sizes=(),
        dtype="float64",
    )


# V(episode, time) = 10 episode + time
CRITIC = Critic(Linear(2, 1), np.array([10.0, 1.0]))


def collected(*environments, steps, critic=CRITIC, times=1):
    envs = scripted(*environments)
    rng, position, rollouts = np.random.default_rng(1), reset(envs, seed=0), []
    for _ in range(times):
        rollout, position = collect(envs, random_policy(envs), critic, position, rng, steps=steps)
        rollouts.append(rollout)
    return rollouts


def test_the_reset_row_after_an_end_is_invalid_and_holds_the_final_observation():
    (rollout,) = collected(Scripted(2), steps=6)
    assert rollout.valid[:, 0].tolist() == [True, True, False, True, True, False]
    assert rollout.observations[:, 0].tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert rollout.rewards[:, 0].tolist() == [1, 2, 0, 1, 2, 0]
    assert rollout.time[:, 0][rollout.valid[:, 0]].tolist() == [0, 1, 0, 1]


def test_next_values_are_the_values_of_what_followed_even_at_an_end():
    (rollout,) = collected(Scripted(2, "truncated"), steps=4)
    assert rollout.values[:, 0].tolist() == [0, 1, 2, 10]
    assert rollout.next_values[:, 0].tolist() == [1, 2, 10, 11]
    assert rollout.truncated[:, 0].tolist() == [False, True, False, False]
    assert not rollout.terminated.any()


@settings(derandomize=True, max_examples=30, deadline=None, database=None)
@given(st.integers(1, 6), st.integers(1, 4), st.lists(st.integers(1, 7), min_size=1, max_size=3))
def test_finished_episodes_equal_a_plain_loop_over_each_environment(steps, times, lengths):
    """Episodes go on in the next rollout; the row after an end is a reset row."""
    expected, steps_taken, ended = [], [0] * len(lengths), [False] * len(lengths)
    for _ in range(times):
        transitions, finished, time, valid = 0, [], [], []
        for _ in range(steps):
            time.append(
                [0 if over else taken for taken, over in zip(steps_taken, ended, strict=True)]
            )
            valid.append([not over for over in ended])
            transitions += sum(valid[-1])
            for e, length in enumerate(lengths):
                steps_taken[e] = 0 if ended[e] else steps_taken[e] + 1
                ended[e] = steps_taken[e] == length
                if ended[e]:
                    finished.append((transitions, length * (length + 1) / 2, length))
        expected.append((finished, time, valid))
    rollouts = collected(*(Scripted(length) for length in lengths), steps=steps, times=times)
    for rollout, (finished, time, valid) in zip(rollouts, expected, strict=True):
        columns = rollout.episode_ends, rollout.episode_returns, rollout.episode_lengths
        assert list(zip(*columns, strict=True)) == finished
        assert rollout.time.tolist() == time
        assert rollout.valid.tolist() == valid


def test_log_probs_are_those_of_the_stored_actions():
    envs = scripted(Scripted(3), Scripted(4))
    policy = random_policy(envs)
    rollout, _ = collect(envs, policy, None, reset(envs, seed=0), np.random.default_rng(2), steps=5)
    assert not rollout.values.any()  # without a critic
    assert not rollout.next_values.any()
    for t in range(5):
        distribution = policy(rollout.observations[t])
        assert np.allclose(rollout.log_probs[t], distribution.log_prob(rollout.actions[t]))


def test_actions_are_stored_as_sampled_and_clipped_only_for_the_environment():
    environment = Scripted(100)
    (rollout,) = collected(environment, steps=200)
    assert np.abs(rollout.actions).max() > 1
    assert np.array_equal(
        np.clip(rollout.actions[:, 0], -1, 1)[rollout.valid[:, 0]], np.array(environment.received)
    )


def test_the_environment_receives_actions_of_its_own_type():
    class Short(Scripted):
        action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)

    environment = Short(3)
    envs = scripted(environment)
    policy = random_policy(envs)  # in float64
    collect(envs, policy, None, reset(envs, seed=0), np.random.default_rng(0), steps=2)
    assert {action.dtype for action in environment.received} == {np.dtype("float32")}


def test_whole_episodes_one_a_column():
    envs = scripted(Scripted(2), Scripted(4, "truncated"))
    rollout = collect_episodes(
        envs, random_policy(envs), CRITIC, np.random.default_rng(0), max_steps=50
    )
    assert rollout.group is None
    assert rollout.valid.shape == (4, 2)  # stops when the longest has ended
    assert rollout.valid.sum(axis=0).tolist() == [2, 4]
    assert (rollout.rewards * rollout.valid).sum(axis=0).tolist() == [3, 10]
    assert rollout.episode_returns.tolist() == [3, 10]
    assert rollout.values[:, 1].tolist() == [0, 1, 2, 3]
    assert rollout.next_values[:, 1].tolist() == [1, 2, 3, 4]


def test_environments_are_asked_for_groups_only_where_there_are_some():
    asked = []

    class Asked(Scripted):
        def reset(self, *, seed=None, options=None):
            asked.append(options)
            return super().reset(seed=seed)

    for group_size in (1, 2):
        envs = scripted(Asked(2), Asked(2))
        rollout = collect_episodes(
            envs, random_policy(envs), None, None, max_steps=2, group_size=group_size
        )
        assert (rollout.group is None) == (group_size == 1)
    assert asked == [None, None, {"group_size": 2}, {"group_size": 2}]


@pytest.fixture
def sentences():
    return TokenGenerationVectorEnv(24, describe_the_cat())


def test_groups_begin_alike_and_go_their_own_ways(sentences):
    policy, rng = random_policy(sentences), np.random.default_rng(0)
    rollout = collect_episodes(sentences, policy, None, rng, max_steps=3, seed=1, group_size=4)
    assert rollout.group.tolist() == [column // 4 for column in range(24)]
    first = rollout.observations[0].reshape(6, 4)
    assert (first == first[:, :1]).all()
    assert len(set(first[:, 0])) == 2  # both prompts are asked
    assert any(len(set(actions)) > 1 for actions in rollout.actions[0].reshape(6, 4))
    assert (rollout.done & rollout.valid).sum(axis=0).tolist() == [1] * 24


def test_without_a_seed_the_next_episodes_are_others(sentences):
    def prompts(seed):
        rollout = collect_episodes(
            sentences, random_policy(sentences), None, None, max_steps=3, seed=seed, group_size=2
        )
        return rollout.observations[0].tolist()

    first, second, third, again = (prompts(seed) for seed in (5, None, None, 5))
    assert first == again
    assert first != second != third


def test_an_environment_that_knows_no_groups_is_refused():
    envs = make_vector_env("CartPole-v1", 4)
    with pytest.raises(ValueError, match='group_size 2 needs .* takes the option "group_size"'):
        collect_episodes(envs, random_policy(envs), None, None, max_steps=5, seed=0, group_size=2)


def test_an_environment_that_always_begins_alike_needs_no_option():
    envs = steady(6)
    rollout = collect_episodes(
        envs, random_policy(envs), None, None, max_steps=9, seed=0, group_size=3
    )
    assert rollout.group.tolist() == [0, 0, 0, 1, 1, 1]
    assert rollout.episode_lengths.tolist() == [5] * 6


def test_episodes_longer_than_max_steps_are_cut_without_an_end():
    envs = scripted(Scripted(10))
    rollout = collect_episodes(envs, random_policy(envs), None, None, max_steps=4)
    assert rollout.valid.sum() == 4
    assert not rollout.done.any()
    assert len(rollout.episode_returns) == 0


@pytest.mark.parametrize("where", ["reward", "observation"])
@pytest.mark.parametrize("bad_value", [np.nan, np.inf])
def test_non_finite_numbers_are_named_with_environment_and_step(where, bad_value):
    bad = Scripted(100, bad_at=7, bad_value=bad_value, where=where)
    with pytest.raises(NonFiniteError, match=f"environment 1 .* non-finite {where} .* step 6"):
        collected(Scripted(100), bad, steps=4, times=3)


def test_an_observation_that_is_not_finite_at_the_reset_is_named():
    class Lost(Scripted):
        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            return observation * np.nan, info

    message = r"environment 1 returned a non-finite observation \(.*nan.*\) at its step 0"
    with pytest.raises(NonFiniteError, match=message):
        reset(scripted(Scripted(3), Lost(3)), seed=0)


def test_an_environment_may_return_the_same_arrays_every_time():
    def make(copy):
        return SyncVectorEnv([lambda: Scripted(3), lambda: Scripted(5)], copy=copy)

    seen = []
    for copy in (True, False):
        envs = make(copy)
        rng = np.random.default_rng(0)
        rollout, _ = collect(envs, random_policy(envs), CRITIC, reset(envs, seed=0), rng, steps=9)
        seen.append(rollout)
    assert np.array_equal(seen[0].observations, seen[1].observations)
    assert np.array_equal(seen[0].rewards, seen[1].rewards)
    assert np.array_equal(seen[0].terminated, seen[1].terminated)


def test_a_policy_that_is_not_finite_is_named():
    envs = scripted(Scripted(5))
    policy = random_policy(envs)
    policy = policy.with_parameters(policy.parameters * np.nan)
    message = r"the policy chose for environment 0 a non-finite action \(\[nan\]\) at its step 0"
    with pytest.raises(NonFiniteError, match=message):
        collect_episodes(envs, policy, None, None, max_steps=5)
    envs = make_vector_env("minirl/Chain-v0", 2)  # a choice is finite even where its logits are not
    policy = random_policy(envs)
    policy = policy.with_parameters(policy.parameters * np.nan)
    with pytest.raises(NonFiniteError, match="log-probabilities became non-finite"):
        collect_episodes(envs, policy, None, None, max_steps=5)


def test_the_seed_of_resets_is_far_from_those_of_neighbours():
    seeds = [reset_seed(seed) for seed in range(50)]
    assert seeds[0] == np.random.SeedSequence(0).generate_state(1)[0]
    assert np.diff(sorted(seeds)).min() > 1000


class Failing(Scripted):
    """With two actions instead of numbers; raises at its step `fails_at`."""

    action_space = spaces.Discrete(2)

    def __init__(self, fails_at, **options):
        super().__init__(100, **options)
        self.fails_at = fails_at

    def step(self, action):
        if self.steps + 1 == self.fails_at:
            raise RuntimeError("stuck")
        return super().step(action)


def test_an_environment_that_fails_is_named_with_its_step():
    message = r"^environment 1 failed at its step 6: RuntimeError: stuck \(.*test_rollout.py"
    with pytest.raises(EnvironmentFailure, match=message) as caught:
        collected(Failing(100), Failing(7), steps=4, times=3)
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_environment_that_fails_after_an_observation_of_nan_is_named_for_the_nan():
    with pytest.raises(NonFiniteError, match="environment 1 .* non-finite observation .* step 5"):
        collected(Failing(100), Failing(8, bad_at=6, where="observation"), steps=4, times=3)


def test_an_environment_that_fails_in_its_reset_is_named():
    class Closed(Scripted):
        def reset(self, *, seed=None, options=None):
            raise RuntimeError("closed")

    with pytest.raises(EnvironmentFailure, match="failed in its reset: RuntimeError: closed"):
        reset(scripted(Scripted(3), Closed(3)), seed=0)


@pytest.mark.parametrize("name", ["max_steps", "group_size"])
def test_lengths_and_groups_are_counts(name):
    envs = make_vector_env("minirl/Chain-v0", 2)
    with pytest.raises(ValueError, match=f"{name} must be a whole number"):
        collect_episodes(envs, random_policy(envs), None, None, **{"max_steps": 4, name: 0})


def test_whole_episodes_are_listed_by_column_so_that_the_last_are_not_the_longest():
    """Under a uniform policy short and long sentences end in all columns."""
    envs = make_vector_env("minirl/TokenGeneration-v0", 40)
    policy = random_policy(envs)
    rollout = collect_episodes(envs, policy, None, np.random.default_rng(0), max_steps=9, seed=0)
    lengths = rollout.valid.sum(axis=0)
    assert len(set(lengths)) > 2
    np.testing.assert_array_equal(rollout.episode_lengths, lengths)
    np.testing.assert_array_equal(
        rollout.episode_returns, (rollout.rewards * rollout.valid).sum(axis=0)
    )
    np.testing.assert_array_equal(rollout.episode_ends, np.full(40, lengths.sum()))


def test_whole_episodes_may_be_long_and_their_limit_far_away():
    """Memory is reserved as episodes need it, not for the limit."""
    envs = scripted(Scripted(2500), Scripted(3))
    rollout = collect_episodes(
        envs, random_policy(envs), CRITIC, np.random.default_rng(0), max_steps=10**12, seed=0
    )
    assert rollout.episode_lengths.tolist() == [2500, 3]
    assert rollout.episode_returns.tolist() == [2500 * 2501 / 2, 6]
    np.testing.assert_array_equal(rollout.observations[:, 0, 1], np.arange(2500))


def test_observations_of_step_are_not_rounded_to_the_type_of_reset():
    class WholeAtReset(SyncVectorEnv):
        def reset(self, *, seed=None, options=None):
            observations, infos = super().reset(seed=seed, options=options)
            return observations.astype(np.int64), infos

        def step(self, actions):
            observations, *others = super().step(actions)
            return observations + 0.5, *others

    envs = WholeAtReset([lambda: Scripted(9)])
    rng = np.random.default_rng(0)
    rollout, _ = collect(envs, random_policy(envs), None, reset(envs, seed=0), rng, steps=4)
    np.testing.assert_array_equal(rollout.observations[1:, 0, 1], [1.5, 2.5, 3.5])


def test_a_reward_paid_at_a_reset_row_belongs_to_no_episode():
    class PaysAtReset(SyncVectorEnv):
        def step(self, actions):
            is_reset = self._autoreset_envs.copy()
            observations, rewards, *others = super().step(actions)
            return observations, rewards + 7.0 * is_reset, *others

    envs = PaysAtReset([lambda: Scripted(2)])
    rng = np.random.default_rng(0)
    rollout, _ = collect(envs, random_policy(envs), None, reset(envs, seed=0), rng, steps=8)
    assert rollout.rewards[2, 0] == 7.0
    assert rollout.episode_returns.tolist() == [3, 3, 3]
