"""The training loop: reproducible, honest about its steps, safe when something breaks."""

import pickle
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cat import describe_the_cat
from environments import Steady, endless
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from helpers import assert_same_run
from threadpoolctl import threadpool_info, threadpool_limits

import minirl
from minirl import GAE, PPO, CriticFit, LinearSchedule, Policy, PolicyGradient, Settings, train
from minirl.distributions import Categorical
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.optimizers import at_progress
from minirl.policy import make_critic, make_policy
from minirl.presets import preset
from minirl.reward_transforms import ReturnScaling
from minirl.rollout import reset
from minirl.support.history import TOTALS
from minirl.training import (
    _warn_of_collapse,
    advantage_stage,
    new_learner,
    optimisation_stage,
    rollout_stage,
)
from minirl.vector_env import make_vector_env

SMALL = Settings(num_envs=4, rollout_steps=32, hidden_sizes=(16,), critic_fit=CriticFit(epochs=2))
NAMES = ["policy-gradient", "natural-gradient", "trpo", "ppo"]


@pytest.mark.parametrize("env", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_history_bit_for_bit(name, env):
    first = train(env, name, total_steps=600, seed=3, settings=SMALL)
    np.random.seed(1)  # noqa: NPY002  (global state is not used)
    assert_same_run(first, train(env, name, total_steps=600, seed=3, settings=SMALL))
    other = train(env, name, total_steps=600, seed=4, settings=SMALL)
    assert not np.array_equal(first.policy.parameters, other.policy.parameters)


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


def test_observation_statistics_are_frozen_within_an_update_and_then_learned():
    settings = replace(SMALL, normalize_observations=True)
    result = train("Pendulum-v1", "ppo", total_steps=400, settings=settings)
    statistics = result.policy.observation_statistics
    assert statistics.count == result.history.environment_steps
    assert result.critic.observation_statistics is statistics
    seen = []

    @dataclass(frozen=True)
    class Watching(PPO):
        def update(self, state, batch, rng):
            seen.append(state.policy.observation_statistics.count)
            # The log-probs of collecting are still those of this policy: nothing moved between.
            now = state.policy(batch.observations).log_prob(batch.actions)
            assert np.allclose(now, batch.log_probs, atol=1e-5)
            return super().update(state, batch, rng)

    train("Pendulum-v1", Watching(), total_steps=400, settings=settings)
    assert seen == [0, 128, 256, 384]


def test_histories_hold_raw_returns_under_a_reward_transform():
    settings = replace(SMALL, reward_transform=ReturnScaling())
    history = train("CartPole-v1", "ppo", total_steps=600, settings=settings).history
    assert np.array_equal(history.episode_returns, history.episode_lengths)
    assert "reward_scale" in history.columns()


@dataclass(frozen=True)
class Counting:
    """Rewards times a factor, and a state that counts."""

    factor: float

    def init(self, num_envs):
        return num_envs

    def transform(self, state, rollout, policy):
        return state + 1, self.factor * rollout.rewards, {"reward_scale": float(state)}


def test_learning_sees_the_rewards_of_a_transform_that_goes_on_from_its_own_state():
    plain, same_rewards, negated = (
        train(
            "CartPole-v1",
            "ppo",
            total_steps=300,
            settings=replace(SMALL, reward_transform=transform),
        )
        for transform in (None, Counting(1.0), Counting(-1.0))
    )
    assert np.array_equal(plain.policy.parameters, same_rewards.policy.parameters)
    assert not np.array_equal(plain.policy.parameters, negated.policy.parameters)
    assert same_rewards.history.columns()["reward_scale"].tolist() == [4.0, 5.0, 6.0]


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


@pytest.mark.parametrize("name", NAMES)
def test_an_excluded_action_stays_excluded_while_the_others_are_learned(name):
    policy = make_policy(spaces.Discrete(16), spaces.Discrete(4), np.random.default_rng(0))
    theta = policy.parameters.copy()
    theta[::4] = -np.inf  # "left", in all states
    policy = policy.with_parameters(theta)
    settings = replace(preset("FrozenLake-v1", name).settings, num_envs=4, rollout_steps=64)
    algorithm = preset("FrozenLake-v1", name).algorithm
    run = train("FrozenLake-v1", algorithm, total_steps=1000, settings=settings, policy=policy)
    learned = run.policy.parameters
    assert np.array_equal(np.isneginf(learned), np.isneginf(theta))
    assert not np.array_equal(learned, theta)
    for column in ("kl", "entropy"):
        assert np.isfinite(run.history.columns()[column]).all()
    assert not (run.policy.act(np.repeat(np.arange(16), 100), np.random.default_rng(1)) == 0).any()


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_policy_that_begins_with_numbers_that_are_not_finite_is_refused(wrong):
    policy = make_policy(spaces.Discrete(16), spaces.Discrete(4), np.random.default_rng(0))
    policy = policy.with_parameters(np.full(64, wrong))
    with pytest.raises(ValueError, match="policy must have finite parameters.* got (nan|inf)"):
        train("FrozenLake-v1", "ppo", total_steps=100, policy=policy)


def broken(num_envs):
    return SyncVectorEnv([lambda: Steady(10, broken="reward", bad_step=50)] * num_envs)


def test_a_broken_environment_stops_training_and_keeps_what_was_learned():
    with pytest.raises(minirl.TrainingStopped, match=r"environment 0 .* reward .* step") as caught:
        train(broken, "ppo", total_steps=1000, settings=SMALL)
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
    schedule: float | LinearSchedule = LinearSchedule(1.0, 2.0)

    def init(self, policy):
        return State(policy)

    def update(self, state, batch, rng):
        self.updates.append(self.schedule)
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
    assert 1 == algorithm.updates[0] < algorithm.updates[1] < 2


class Unkind(Exception):
    """An exception whose class does not accept its own message alone."""

    def __init__(self, place, depth):
        super().__init__(f"{place} at depth {depth}")


ERRORS = [
    KeyError("door"),
    AttributeError("no door"),
    MemoryError(),
    ValueError("two\nlines"),
    RuntimeError("door"),
    StopIteration("door"),
    AssertionError(),
    SystemError("door"),
    Unkind("door", 2),
]


class Raising(Steady):
    """Raises an exception at its 50th step, or in its 5th reset, if `raises` is set."""

    def __init__(self, error, where="step"):
        super().__init__(length=10)
        self.error, self.where, self.resets = error, where, 0

    def reset(self, *, seed=None, options=None):
        self.resets += 1
        if self.raises and self.where == "reset" and self.resets == 5:
            raise self.error  # in reset
        return super().reset(seed=seed)

    def step(self, action):
        if self.raises and self.where == "step" and self.life == 50:
            raise self.error  # in step
        return super().step(action)


def raising(num_envs, error, where="step", kind=SyncVectorEnv):
    envs = [Raising(error, where) for _ in range(num_envs)]
    for index, env in enumerate(envs):
        env.raises = index == 2
    return kind([lambda env=env: env for env in envs])


def line_of(text):
    source = Path(__file__).read_text().splitlines()
    return 1 + next(number for number, line in enumerate(source) if line.strip() == text)


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_in_an_environment_keeps_what_was_learned_and_names_its_place(error):
    env = partial(raising, error=error.with_traceback(None))
    with pytest.raises(minirl.TrainingStopped) as caught:
        train(env, "ppo", total_steps=1000, settings=SMALL)
    message = str(caught.value)
    place = f"({__file__}, line {line_of('raise self.error  # in step')}, in step)"
    # 50 steps and 5 resets, counted from 0
    assert f"environment 2 failed at its step 55: {type(error).__name__}" in message
    assert message.endswith(place)
    assert " ".join(str(error).split()) in message
    assert "\n" not in message
    history = caught.value.result.history
    assert len(history.rows) == 1
    assert caught.value.result.description["partial"] is True
    assert caught.value.result.description["environment_steps"] == history.environment_steps > 0
    assert caught.value.__cause__.__cause__ is error
    # Once Dask is imported, pickle would follow these to `error`.
    caught.value.__cause__ = caught.value.__context__ = None
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), len(again.result.history.rows)) == (message, 1)


def test_an_exception_in_a_reset_names_its_place():
    env = partial(raising, error=KeyError("door"), where="reset")
    with pytest.raises(minirl.TrainingStopped, match="environment 2 failed at its step 43: KeyErr"):
        train(env, "ppo", total_steps=1000, settings=SMALL)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium prints the worker's traceback
@pytest.mark.parametrize("error", [KeyError("door"), MemoryError(), TypeError("two\nlines")])
def test_an_exception_in_a_worker_process_names_its_place(error):
    env = partial(raising, error=error, kind=AsyncVectorEnv)
    line = line_of("raise self.error  # in step")
    words = (
        rf"environment 2 failed at its step 55: {type(error).__name__}.*, line {line}, in step\)$"
    )
    with pytest.raises(minirl.TrainingStopped, match=words) as caught:
        train(env, "ppo", total_steps=1000, settings=SMALL)
    assert len(caught.value.result.history.rows) == 1


@dataclass(frozen=True)
class RaisesLater:
    """An algorithm and a reward transform in one, which raise in their third update."""

    error: Exception
    calls: list

    def init(self, first):
        return State(first) if isinstance(first, Policy) else None

    def _count(self):
        self.calls.append(1)
        if len(self.calls) == 3:
            raise self.error  # in the third update

    def update(self, state, batch, rng):
        self._count()
        return State(state.policy.with_parameters(state.policy.parameters + 1)), {"kl": 0.0}

    def transform(self, state, rollout, policy):
        self._count()
        return None, rollout.rewards, {}

    def measure(self, policy):
        self._count()
        return {}


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["algorithm", "transform", "measure", "stop"])
def test_an_exception_in_the_code_of_a_user_keeps_what_was_learned(where, error):
    raises = RaisesLater(error.with_traceback(None), [])
    settings = replace(SMALL, reward_transform=raises) if where == "transform" else SMALL
    with pytest.raises(minirl.TrainingStopped) as caught:
        train(
            "CartPole-v1",
            raises if where == "algorithm" else "ppo",
            total_steps=1000,
            settings=settings,
            measure=raises.measure if where == "measure" else None,
            stop=raises.measure if where == "stop" else None,
        )
    place = f"({__file__}, line {line_of('raise self.error  # in the third update')}, in _count)"
    message = str(caught.value)
    assert f"environment steps: {type(error).__name__}" in message
    assert message.endswith(place)
    assert len(caught.value.result.history.rows) == (3 if where == "stop" else 2)


def test_an_environment_that_cannot_be_closed_does_not_take_the_result_with_it():
    class Unclosed(Raising):
        raises = False

        def close(self):
            if self.life:  # it was used
                raise OSError("the window is gone")

    def env(num_envs):
        return SyncVectorEnv([lambda: Unclosed(None)] * num_envs)

    assert train(env, "ppo", total_steps=100, settings=SMALL).history.rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": "sarsa"}, "algorithm name 'sarsa' is unknown"),
        ({"total_steps": 0}, "total_steps"),
        ({"total_steps": None, "total_episodes": 0}, "total_episodes must .* got 0"),
        ({"total_steps": None, "total_episodes": 2.5}, "total_episodes must .* got 2.5"),
        ({"total_steps": None}, "either total_steps or total_episodes, got None and None"),
        ({"total_episodes": 7}, "either total_steps or total_episodes, got 10 and 7"),
        ({"seed": -1}, "seed"),
        ({"env": "CarPole-v1"}, "'CarPole-v1' can't be made"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    complete = {"env": "CartPole-v1", "algorithm": "ppo", "total_steps": 10, **arguments}
    with pytest.raises(ValueError, match=message):
        train(complete.pop("env"), complete.pop("algorithm"), **complete)


def test_schedules_of_critic_and_policy_are_resolved_at_the_same_progress():
    seen, before = [], []

    class Watching(CriticFit):
        def fit(self, state, batch, rng):
            seen.append(self.learning_rate)
            before.append(len(algorithm.updates))
            return super().fit(state, batch, rng)

    algorithm = Misbehaving(lambda theta: theta, [])
    settings = replace(SMALL, critic_fit=Watching(epochs=1, learning_rate=LinearSchedule(1.0, 2.0)))
    train("CartPole-v1", algorithm, total_steps=600, settings=settings)
    assert seen == algorithm.updates
    assert before == list(range(len(seen)))  # the critic first
    assert seen[0] == 1.0
    assert seen[-1] > 1.5


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


# Whole episodes, and the budget counted in them

CAT = partial(TokenGenerationVectorEnv, task=describe_the_cat())
SENTENCES = Settings(
    num_envs=8, rollout_steps=3, whole_episodes=True, advantages=GAE(discount=1.0, lam=0.9)
)


def test_a_budget_of_episodes_is_spent_by_finished_ones():
    algorithm = Misbehaving(lambda theta: theta, [])
    result = train(CAT, algorithm, total_episodes=20, settings=SENTENCES)
    assert result.history.columns()["episodes"].tolist() == [8, 16, 24]
    assert algorithm.updates == [1, 1 + 8 / 20, 1 + 16 / 20]
    assert result.description["total_episodes"] == 20
    assert "total_steps" not in result.description


def test_a_budget_of_episodes_goes_with_rollouts_of_so_many_rows_too():
    history = train("CartPole-v1", "trpo", total_episodes=25, settings=SMALL).history
    episodes = history.columns()["episodes"]
    assert episodes[-1] >= 25 > episodes[-2]
    assert history.finished_episodes == len(history.episode_returns) == episodes[-1]


@dataclass(frozen=True)
class Recording(PolicyGradient):
    """A policy gradient that keeps its batches."""

    batches: tuple[list, ...] = ([],)

    def update(self, state, batch, rng):
        self.batches[0].append(batch)
        return super().update(state, batch, rng)


def test_losses_and_kl_of_whole_episodes_are_per_sentence():
    algorithm = Recording(learning_rate=0.3, batches=([],))
    result = train(CAT, algorithm, total_episodes=8, settings=SENTENCES)
    (batch,), (row,) = algorithm.batches[0], result.history.rows
    assert len(batch) > 8
    assert batch.weight.tolist() == [1 / 8] * len(batch)
    assert batch.weight.dtype == batch.advantages.dtype == np.float64  # as the table is
    assert sorted(np.bincount(batch.episodes)) == sorted(result.history.episode_lengths)
    # at first the tokens are uniform: no logit differs
    kl = Categorical(np.zeros((len(batch), 4))).kl(result.policy(batch.observations))
    assert row["kl"] == pytest.approx(kl.sum() / 8, rel=1e-9)


@pytest.mark.parametrize("name", [*NAMES, "rloo", "grpo"])
def test_every_algorithm_of_the_token_task_is_reproducible(name):
    default = preset("minirl/TokenGeneration-v0", name)
    settings = replace(default.settings, num_envs=32)
    first, second = (
        train(CAT, default.algorithm, total_episodes=64, seed=3, settings=settings)
        for _ in range(2)
    )
    assert_same_run(first, second)
    assert first.history.finished_episodes == 64
    assert first.policy.parameters.any()


# What is measured beside an update


def test_measured_numbers_are_of_the_policy_that_acted():
    def measure(policy):
        return {"exact_reward": policy.parameters.mean()}

    algorithm = Misbehaving(lambda theta: theta, [])  # adds 1 in every update
    result = train(CAT, algorithm, total_episodes=24, settings=SENTENCES, measure=measure)
    assert result.history.columns()["exact_reward"].tolist() == [0.0, 1.0, 2.0]
    assert (result.policy.parameters == 3.0).all()


def test_an_undefined_measurement_is_refused_by_name():
    run = {"total_episodes": 8, "settings": SENTENCES}
    with pytest.raises(KeyError, match="happiness"):
        train(CAT, "ppo", **run, measure=lambda policy: {"happiness": 1.0})


# The three stages

STAGED = {
    "rows, reward transform, statistics": (
        "CartPole-v1",
        PPO(epochs=2, learning_rate=LinearSchedule(1e-2)),
        replace(SMALL, reward_transform=ReturnScaling(), normalize_observations=True),
        320,  # steps, for several updates
    ),
    "whole sentences in groups": (
        CAT,
        preset("minirl/TokenGeneration-v0", "grpo").algorithm,
        replace(preset("minirl/TokenGeneration-v0", "grpo").settings, num_envs=256),
        1500,
    ),
}


@pytest.mark.parametrize("name", STAGED)
def test_the_stages_by_hand_are_the_loop_bit_for_bit(name):
    env, algorithm, settings, total = STAGED[name]
    result = train(env, algorithm, total_steps=total, seed=5, settings=settings)

    streams = np.random.SeedSequence(5).spawn(4)
    init_rng, action_rng, update_rng = (np.random.default_rng(stream) for stream in streams[1:])
    envs = make_vector_env(env, settings.num_envs)
    spaces_ = envs.single_observation_space, envs.single_action_space
    policy = make_policy(*spaces_, init_rng, hidden_sizes=settings.hidden_sizes)
    critic = make_critic(spaces_[0], init_rng, hidden_sizes=settings.hidden_sizes)
    if settings.normalize_observations:
        empty = minirl.RunningMoments.empty(spaces_[0].shape)
        policy = policy.with_observation_statistics(empty)
        critic = critic.with_observation_statistics(empty)
    with threadpool_limits(1):
        learner = new_learner(algorithm, settings, policy, critic)
        assert (learner.policy, learner.critic) == (policy, critic)
        position = reset(envs, seed=int(streams[0].generate_state(1)[0]))
        steps = 0
        for row in result.history.rows:
            acting = learner.policy
            rollout, position = rollout_stage(envs, learner, settings, position, action_rng)
            batch, learner, judged = advantage_stage(rollout, learner, settings)
            assert learner.policy is acting  # nothing is learned before the last stage
            learner, learned = optimisation_stage(
                batch,
                learner,
                at_progress(algorithm, steps / total),
                at_progress(settings, steps / total),
                update_rng,
            )
            steps += len(batch)
            assert steps == row["environment_steps"]
            if settings.normalize_observations:
                assert learner.policy.observation_statistics.count == steps
            reported = {k: v for k, v in (judged | learned).items() if k not in TOTALS}
            assert reported.items() <= row.items()
    assert len(result.history.rows) > 2
    assert steps >= total
    assert np.array_equal(learner.policy.parameters, result.policy.parameters)
    assert not np.array_equal(learner.policy.parameters, policy.parameters)
    assert np.array_equal(learner.critic.parameters, result.critic.parameters)


def test_whole_episodes_that_never_end_stop_training_instead_of_looping_for_ever():

    def loop(policy):
        raise AssertionError("a second rollout would follow, and a third")

    settings = replace(SMALL, whole_episodes=True, rollout_steps=8)
    with pytest.raises(minirl.TrainingStopped, match=r"rollout_steps, 8; raise it") as stopped:
        train(endless, "ppo", total_episodes=10, settings=settings, measure=loop)
    assert stopped.value.result.history.rows == []


# A policy that collapses


def test_a_collapse_is_not_silent():
    """With Adam each of these steps changes every parameter by about 10."""
    algorithm = PPO(learning_rate=10.0, epochs=2, minibatch_size=64)
    with pytest.warns(
        RuntimeWarning, match=r"update 1 .* KL of [\d,]+ nats .*smallest_std"
    ) as seen:
        result = train("Pendulum-v1", algorithm, total_steps=300, settings=SMALL)
    assert len(seen) == 1  # once, although later updates move as far
    kl = result.history.columns()["kl"]
    assert kl[0] > 10
    assert len(kl) > 1
    with pytest.warns(RuntimeWarning, match="update 1 ") as seen:
        train("CartPole-v1", replace(algorithm, learning_rate=30.0), total_steps=1, settings=SMALL)
    assert "smallest_std" not in str(seen[0].message)


def test_kl_of_whole_episodes_is_judged_per_step():
    """0.5 nats per step, 20 steps: no collapse, although 10 nats per episode."""
    run = SimpleNamespace(history=minirl.History(), collapsed=False)
    settings = replace(SMALL, whole_episodes=True)
    rollout = SimpleNamespace(episode_lengths=np.full(4, 20))
    run.history.rows.append({"kl": 10.5})
    _warn_of_collapse(run, rollout, settings)
    run.history.rows.append({"kl": 201.0})
    with pytest.warns(RuntimeWarning, match="10 nats per step"):
        _warn_of_collapse(run, rollout, settings)
    assert run.collapsed
    for metrics in ({"kl": 999.0}, {}):  # once per run; an algorithm may report no KL
        run.history.rows.append(metrics)
        run.collapsed = "kl" in metrics
        _warn_of_collapse(run, rollout, settings)
