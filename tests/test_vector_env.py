"""Making parallel environments: ids, functions, Discrete spaces, and what is refused."""

import gymnasium as gym
import numpy as np
import pytest
from environments import Steady, endless, limited, steady
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import RecordEpisodeStatistics

import minirl
from minirl.policy import make_policy
from minirl.rollout import collect, reset
from minirl.vector_env import make_vector_env, registered_id, reward_threshold, step_limit


def in_mode(mode):
    return lambda num_envs: SyncVectorEnv([Steady] * num_envs, autoreset_mode=mode)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        *(
            (env, f"environment '{env}' can't be made")
            for env in ("NoSuchEnv-v0", "CartPole-v99", "no_such_module:Env-v0")
        ),
        (in_mode(AutoresetMode.SAME_STEP), r"AutoresetMode\.NEXT_STEP"),
        (in_mode(AutoresetMode.DISABLED), r"AutoresetMode\.NEXT_STEP"),
        (Steady(), "env must be a Gymnasium id"),
        (lambda num_envs: Steady(), "VectorEnv"),
        (lambda: None, "env must be a function of one argument, num_envs"),
        (minirl.Settings, "a function num_envs -> VectorEnv, got the class S"),
    ],
)
def test_what_makes_no_vector_environment_is_named(env, message):
    with pytest.raises(ValueError, match=message):
        make_vector_env(env, 2)


def test_the_return_that_solves_an_environment_is_gymnasiums_if_there_is_one():
    assert reward_threshold("CartPole-v1") == 475
    assert reward_threshold("Pendulum-v1") is None
    assert reward_threshold(steady) is None  # a factory has no specification


def test_one_environment_is_made_for_its_threshold():
    """Some cannot be made twice: a port, a window, a robot."""
    asked = []

    def make(num_envs):
        asked.append(num_envs)
        return steady(num_envs)

    assert reward_threshold(make) is None
    assert asked == [1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Pendulum-v1", "Pendulum-v1"),
        ("gymnasium:Pendulum-v1", "Pendulum-v1"),
        ("gymnasium.envs:Pendulum", "Pendulum-v1"),
        ("CartPole-v0", "CartPole-v0"),
        ("CartPole", "CartPole-v1"),
        ("minirl:minirl/TokenGeneration-v0", "minirl/TokenGeneration-v0"),
        ("minirl/Chain", "minirl/Chain-v0"),
        ("not_imported:Mine-v3", "Mine-v3"),
        ("Nobody", "Nobody"),
        ("", ""),
    ],
)
def test_the_registered_id_of_an_id(name, expected):
    assert registered_id(name) == expected


@pytest.mark.parametrize("name", ["gymnasium:Pendulum-v1", "Taxi", "CartPole", "minirl/Chain"])
@pytest.mark.filterwarnings("ignore:.*latest versioned environment")
def test_the_registered_id_is_the_one_gymnasium_makes(name):
    envs = make_vector_env(name, 1)
    envs.close()
    assert registered_id(name) == envs.spec.id


@pytest.mark.parametrize(
    ("make", "limit"),
    [
        (lambda: gym.make_vec("CartPole-v1", num_envs=2), 500),
        (lambda: gym.make_vec("CartPole-v1", num_envs=2, max_episode_steps=1600), 1600),
        (lambda: CartPoleVectorEnv(2, max_episode_steps=1600), 1600),
        (lambda: RecordEpisodeStatistics(CartPoleVectorEnv(2, max_episode_steps=1600)), 1600),
        (lambda: gym.make_vec("minirl/TokenGeneration-v0", num_envs=2), 1000),
        (lambda: gym.make_vec("Pendulum-v1", num_envs=2, vectorization_mode="async"), 200),
        (lambda: gym.make_vec("Pendulum-v1", num_envs=2), 200),
        (lambda: limited(2), 1600),
        (lambda: endless(2), 1000),
    ],
)
def test_the_limit_of_environments_with_and_without_a_vector_entry_point(make, limit):
    envs = make()
    try:
        assert step_limit(envs) == limit
    finally:
        envs.close()


@pytest.mark.parametrize(
    ("env", "num_envs", "kind"),
    [
        ("CartPole-v1", 3, "SyncVectorEnv"),
        ("CartPole-v1", 4, "CartPoleVectorEnv"),
        ("CartPole-v0", 1, "SyncVectorEnv"),
        ("minirl/TokenGeneration-v0", 1, "TokenGenerationVectorEnv"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*is out of date")
def test_cartpole_is_stepped_in_the_faster_way(env, num_envs, kind):
    envs = make_vector_env(env, num_envs)
    assert type(envs.unwrapped).__name__ == kind
    envs.close()


@pytest.mark.parametrize("name", ["no module:Env-v0", "a.b c:Env-v0", "a:b:Env-v0"])
def test_what_stands_before_the_colon_of_an_id_is_a_module(name):
    with pytest.raises(ValueError, match="before the colon must be the name of a Python module"):
        make_vector_env(name, 1)


def test_a_function_that_ignores_its_argument_is_refused():
    closed = []

    class Closing(SyncVectorEnv):
        def close(self, **kwargs):
            closed.append(True)
            super().close(**kwargs)

    def four(num_envs):
        return Closing([lambda: Steady()] * 4)

    with pytest.raises(ValueError, match=r"as many environments.*got 4 from env\(3\)") as caught:
        make_vector_env(four, 3)
    assert "\n" not in str(caught.value)
    assert closed == [True]
    make_vector_env(four, 4).close()


def test_a_function_that_returns_the_same_environments_again_is_refused():
    once = steady(2)
    make_vector_env(lambda num_envs: once, 2).close()
    with pytest.raises(ValueError, match=r"new environments at each call, got from env\(2\)"):
        make_vector_env(lambda num_envs: once, 2)


def test_an_environment_whose_class_raises_is_named_with_the_place():
    class Doorless(gym.Env):
        def __init__(self):
            raise KeyError("door")

    gym.register("Doorless-v0", Doorless)
    try:
        words = r"'Doorless-v0' can't be made: KeyError: 'door' \(.*test_vector_env.py, line \d+"
        with pytest.raises(ValueError, match=words):
            make_vector_env("Doorless-v0", 2)
    finally:
        del gym.registry["Doorless-v0"]


class FromThree(gym.Env):
    """States 3 and 4, actions -1 and 0: the next state is action + 4, and its number the reward."""

    observation_space = spaces.Discrete(2, start=3)
    action_space = spaces.Discrete(2, start=-1)

    def reset(self, *, seed=None, options=None):
        self.given = seed, options
        return 3, {}

    def step(self, action):
        assert self.action_space.contains(action)
        return 4 + action, float(action), False, False, {}


def test_discrete_spaces_are_renumbered_from_zero():
    envs = make_vector_env(lambda n: SyncVectorEnv([FromThree] * n), 2)
    assert envs.single_observation_space == envs.single_action_space == spaces.Discrete(2)
    assert envs.observation_space == envs.action_space == spaces.MultiDiscrete([2, 2])
    envs.reset(seed=5, options={"a": 1})
    assert [env.given for env in envs.unwrapped.envs] == [(5, {"a": 1}), (6, {"a": 1})]
    rng = np.random.default_rng(0)
    policy = make_policy(envs.single_observation_space, envs.single_action_space, rng)
    rollout, state = collect(envs, policy, None, reset(envs, seed=0), rng, steps=20)
    np.testing.assert_array_equal(rollout.observations[0], 0)
    np.testing.assert_array_equal(rollout.observations[1:], rollout.actions[:-1])
    np.testing.assert_array_equal(rollout.rewards, rollout.actions - 1)
    assert set(rollout.actions.ravel()) == {0, 1}
    np.testing.assert_array_equal(state.observations, rollout.actions[-1])
