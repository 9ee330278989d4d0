"""The training loop: reproducible, honest about its steps, safe when something breaks."""

import pickle
from dataclasses import dataclass, replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv
from threadpoolctl import threadpool_info, threadpool_limits

import minirl
from minirl import GAE, PPO, TRPO, CriticFit, Policy, PolicyGradient, Settings, train
from minirl.history import TIMES
from minirl.reward_transforms import ReturnScaling

SMALL = Settings(num_envs=4, rollout_steps=32, hidden_sizes=(16,), critic_fit=CriticFit(epochs=2))
NAMES = ["policy-gradient", "natural-gradient", "trpo", "ppo"]


def same(first, second):
    columns, others = first.history.columns(), second.history.columns()
    assert columns.keys() == others.keys()
    for name in columns.keys() - set(TIMES):
        assert np.array_equal(columns[name], others[name], equal_nan=True), name
    assert np.array_equal(first.history.episode_returns, second.history.episode_returns)
    assert np.array_equal(first.policy.parameters, second.policy.parameters)


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_history_bit_for_bit(name):
    first, second = (
        train("CartPole-v1", name, total_steps=600, seed=3, settings=SMALL) for _ in range(2)
    )
    same(first, second)
    other = train("CartPole-v1", name, total_steps=600, seed=4, settings=SMALL)
    assert not np.array_equal(first.policy.parameters, other.policy.parameters)


def test_randomness_elsewhere_changes_nothing():
    first = train("Pendulum-v1", "ppo", total_steps=300, settings=SMALL)
    np.random.default_rng(0).random(100)
    np.random.seed(1)  # noqa: NPY002  (the point: global state is not used)
    same(first, train("Pendulum-v1", "ppo", total_steps=300, settings=SMALL))


def test_steps_are_valid_transitions_and_the_last_rollout_is_completed():
    history = train("CartPole-v1", "ppo", total_steps=500, settings=SMALL).history
    steps = history.columns()["environment_steps"]
    assert np.all(np.diff(steps) <= 4 * 32)
    assert steps[-1] >= 500 > steps[-2]
    # CartPole pays 1 a step, so finished episodes account for no more than all steps.
    assert history.episode_returns.sum() <= steps[-1]
    assert np.all(np.diff(history.episode_ends) >= 0)
    assert history.episode_ends[-1] <= steps[-1]


def test_rollouts_of_a_single_row_may_hold_nothing_but_a_reset():
    one = replace(SMALL, num_envs=1, rollout_steps=1)
    history = train("CartPole-v1", "trpo", total_steps=60, settings=one).history
    assert history.environment_steps == 60
    assert len(history.rows) == 60
    assert history.episode_returns.sum() > 0


def test_settings_hold_everything_that_made_the_run():
    result = train("CartPole-v1", TRPO(max_kl=0.02), total_steps=100, seed=7, settings=SMALL)
    assert result.settings["env"] == "CartPole-v1"
    assert result.settings["algorithm"]["max_kl"] == 0.02
    assert result.settings["settings"]["num_envs"] == 4
    assert (result.settings["seed"], result.settings["total_steps"]) == (7, 100)


def test_observation_statistics_are_frozen_within_an_update_and_then_learned():
    settings = replace(SMALL, normalize_observations=True)
    result = train("Pendulum-v1", "ppo", total_steps=400, settings=settings)
    statistics = result.policy.observation_statistics
    assert statistics.count == result.history.environment_steps
    assert result.critic.observation_statistics is statistics
    seen = []

    @dataclass(frozen=True)
    class Watching(PPO):
        def update(self, state, batch, rng, progress):
            seen.append(state.policy.observation_statistics.count)
            # The log-probs of collecting are still those of this policy: nothing moved between.
            now = state.policy.forward(batch.observations)[0].log_prob(batch.actions)
            assert np.allclose(now, batch.log_probs, atol=1e-5)
            return super().update(state, batch, rng, progress)

    train("Pendulum-v1", Watching(), total_steps=400, settings=settings)
    assert seen == [0, 128, 256, 384]


def test_normalised_observations_need_a_box():
    settings = replace(SMALL, normalize_observations=True)
    with pytest.raises(ValueError, match="normalize_observations"):
        train("FrozenLake-v1", "ppo", total_steps=100, settings=settings)


def test_histories_hold_raw_returns_under_a_reward_transform():
    settings = replace(SMALL, reward_transform=ReturnScaling())
    history = train("CartPole-v1", "ppo", total_steps=600, settings=settings).history
    assert np.array_equal(history.episode_returns, history.episode_lengths)
    assert "reward_scale" in history.columns()


@dataclass(frozen=True)
class Times:
    """Rewards times a factor."""

    factor: float

    def init(self, num_envs):
        return None

    def transform(self, state, rollout, policy):
        return None, self.factor * rollout.rewards, {}


def test_learning_sees_the_transformed_rewards():
    plain, same_rewards, negated = (
        train(
            "CartPole-v1",
            "ppo",
            total_steps=100,
            settings=replace(SMALL, reward_transform=transform),
        ).policy.parameters
        for transform in (None, Times(1.0), Times(-1.0))
    )
    assert np.array_equal(plain, same_rewards)
    assert not np.array_equal(plain, negated)


def test_discount_states_changes_the_weights():
    settings = replace(SMALL, advantages=GAE(0.9, 0.95))
    plain = train("CartPole-v1", "trpo", total_steps=100, settings=settings)
    discounted = train(
        "CartPole-v1", "trpo", total_steps=100, settings=replace(settings, discount_states=True)
    )
    assert not np.array_equal(plain.policy.parameters, discounted.policy.parameters)


def test_training_goes_on_from_a_given_policy():
    first = train("CartPole-v1", "ppo", total_steps=200, settings=SMALL)
    before = first.policy.parameters.copy()
    tiny = PolicyGradient(learning_rate=1e-6)
    second = train("CartPole-v1", tiny, total_steps=100, settings=SMALL, policy=first.policy)
    assert np.allclose(second.policy.parameters, before, atol=1e-4)
    assert np.array_equal(first.policy.parameters, before)


class Breaking(gym.Env):
    """CartPole-like spaces; returns NaN rewards from its 50th step on."""

    observation_space = spaces.Box(-1, 1, (2,))
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = getattr(self, "steps", 0)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        reward = np.nan if self.steps >= 50 else 1.0
        return np.zeros(2, np.float32), reward, self.steps % 10 == 0, False, {}


def test_a_broken_environment_stops_training_and_keeps_what_was_learned():
    with pytest.raises(minirl.TrainingStopped, match=r"environment 0 .* reward .* step") as caught:
        train(lambda n: SyncVectorEnv([Breaking] * n), "ppo", total_steps=1000, settings=SMALL)
    result = caught.value.result
    assert result.history.environment_steps > 0
    assert np.isfinite(result.policy.parameters).all()
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)
    assert np.array_equal(again.result.policy.parameters, result.policy.parameters)


@dataclass(frozen=True)
class State:
    policy: Policy


@dataclass(frozen=True)
class Misbehaving:
    """Updates twice, then does something else."""

    action: object
    updates: list

    def init(self, policy):
        return State(policy)

    def update(self, state, batch, rng, progress):
        self.updates.append(progress)
        theta = state.policy.parameters + 1
        if len(self.updates) > 2:
            theta = self.action(theta)
        return State(state.policy.with_parameters(theta)), {"kl": 0.0}


def test_diverged_parameters_stop_training_before_they_are_used():
    algorithm = Misbehaving(lambda theta: theta * np.nan, [])
    with pytest.raises(
        minirl.TrainingStopped, match="policy's parameters became non-finite"
    ) as caught:
        train("CartPole-v1", algorithm, total_steps=1000, settings=SMALL)
    assert np.isfinite(caught.value.result.policy.parameters).all()
    assert len(caught.value.result.history.rows) == 2


def test_an_interrupt_keeps_what_was_learned():
    def interrupt(theta):
        raise KeyboardInterrupt

    algorithm = Misbehaving(interrupt, [])
    with pytest.raises(minirl.TrainingStopped, match="interrupted") as caught:
        train("CartPole-v1", algorithm, total_steps=1000, settings=SMALL)
    assert len(caught.value.result.history.rows) == 2
    assert 0 == algorithm.updates[0] < algorithm.updates[1] < 1


def test_an_unknown_metric_is_an_error():
    @dataclass(frozen=True)
    class Inventive(Misbehaving):
        def update(self, state, batch, rng, progress):
            return state, {"happiness": 1.0}

    with pytest.raises(KeyError, match="happiness"):
        train("CartPole-v1", Inventive(None, []), total_steps=100, settings=SMALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "sarsa"}, "algorithm 'sarsa' is unknown"),
        ({"total_steps": 0}, "total_steps"),
        ({"total_steps": -5}, "total_steps"),
        ({"seed": -1}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"env": "CarPole-v1"}, "'CarPole-v1' can't be made"),
        ({"env": None}, "env must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    complete = {"env": "CartPole-v1", "algorithm": "ppo", "total_steps": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        train(complete.pop("env"), complete.pop("algorithm"), **complete)


def test_unsupported_spaces_are_named():
    class Odd(Breaking):
        action_space = spaces.MultiDiscrete([2, 2])

    with pytest.raises(ValueError, match="MultiDiscrete"):
        train(lambda n: SyncVectorEnv([Odd] * n), "ppo", total_steps=10, settings=SMALL)


def test_the_critic_is_fitted_at_the_same_progress_as_the_policy():
    seen = []

    class Watching(CriticFit):
        def fit(self, state, batch, rng, progress):
            seen.append(progress)
            return super().fit(state, batch, rng, progress)

    algorithm = Misbehaving(lambda theta: theta, [])
    settings = replace(SMALL, critic_fit=Watching(epochs=1))
    train("CartPole-v1", algorithm, total_steps=600, settings=settings)
    assert seen == algorithm.updates
    assert seen[-1] > 0.5


def test_training_uses_one_blas_thread():
    """The number of threads decides the last bits of a product, so of the whole history."""
    threads = []

    def look(theta):
        threads.extend(library["num_threads"] for library in threadpool_info())
        return theta

    with threadpool_limits(2):
        train("CartPole-v1", Misbehaving(look, []), total_steps=600, settings=SMALL)
    assert threads
    assert set(threads) == {1}
