"""Checkpoints: a resumed run is the uninterrupted one bit for bit, whatever ended it."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from cat import describe_the_cat
from gymnasium.vector import AsyncVectorEnv, VectorObservationWrapper
from helpers import assert_same_run

from minirl import CheckpointError, TrainingStopped, train
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.presets import preset
from minirl.support.checkpoint import environment_state, restore_environments
from minirl.support.history import ReturnReached
from minirl.vector_env import make_vector_env

CAT = partial(TokenGenerationVectorEnv, task=describe_the_cat())


def small(env, name, **changes):
    """The preset's settings with networks and rollouts that take milliseconds."""
    settings = replace(preset(env, name).settings, num_envs=4, hidden_sizes=(8,))
    return replace(settings, **{"rollout_steps": 32, **changes})


def preset_of(env, name):
    return env, name, small(env, name)


GRPO = preset("minirl/TokenGeneration-v0", "grpo")
RUNS = {
    "PPO, CartPole": preset_of("CartPole-v1", "ppo"),
    "TRPO, CartPole": preset_of("CartPole-v1", "trpo"),
    "policy gradient, CartPole": preset_of("CartPole-v1", "policy-gradient"),
    "scaled rewards": preset_of("Pendulum-v1", "ppo"),
    "normalised observations": preset_of("MountainCar-v0", "trpo"),
    "tables": preset_of("FrozenLake-v1", "policy-gradient"),
    "sentences": (CAT, GRPO.algorithm, replace(GRPO.settings, num_envs=32)),
}
PPO_SETTINGS = small("CartPole-v1", "ppo")


def interrupt_after(updates):
    """A `measure` that presses Ctrl-C in a later update than this."""
    calls = []

    def measure(policy):
        calls.append(policy)
        if len(calls) > updates:
            raise KeyboardInterrupt
        return {}

    return measure


@pytest.mark.parametrize("name", RUNS)
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(name, tmp_path):
    env, algorithm, settings = RUNS[name]
    budget = {"total_episodes": 300} if env is CAT else {"total_steps": 1200}
    run = {**budget, "seed": 3, "settings": settings}
    whole = train(env, algorithm, **run)
    path = tmp_path / "checkpoint.pkl"
    saving = {"checkpoint": path, "checkpoint_every": 250}
    with pytest.raises(TrainingStopped, match="interrupted"):
        train(env, algorithm, **run, **saving, measure=interrupt_after(6))
    with pytest.raises(TrainingStopped, match="interrupted") as stopped:
        train(env, algorithm, **run, **saving, resume=path, measure=interrupt_after(3))
    assert stopped.value.result.history.environment_steps > 0
    resumed = train(env, algorithm, **run, **saving, resume=path)
    assert_same_run(whole, resumed)
    cpu = resumed.history.columns()["cpu_seconds"]
    assert np.all(np.diff(cpu) >= 0)
    assert "environments_reset_at" not in resumed.description
    # The last checkpoint is that of the end: there is nothing left to train.
    assert_same_run(whole, train(env, algorithm, **run, resume=path, measure=interrupt_after(0)))


def test_checkpoints_and_evaluations_change_nothing_that_is_learned(tmp_path):
    run = {"total_steps": 600, "seed": 1, "settings": PPO_SETTINGS}
    plain = train("CartPole-v1", "ppo", **run)
    saving = {"checkpoint": tmp_path / "c.pkl", "checkpoint_every": 1}
    judged = train("CartPole-v1", "ppo", **run, **saving, evaluate_every=128)
    assert np.array_equal(plain.policy.parameters, judged.policy.parameters)
    assert np.array_equal(plain.history.episode_returns, judged.history.episode_returns)


def test_the_best_policy_survives_a_resumption(tmp_path):
    run = {"total_steps": 1500, "seed": 1, "settings": PPO_SETTINGS, "evaluate_every": 200}
    whole = train("CartPole-v1", "ppo", **run)
    path = tmp_path / "c.pkl"
    saving = {"checkpoint": path, "checkpoint_every": 300}
    for resume in (None, path):
        with pytest.raises(TrainingStopped):
            train("CartPole-v1", "ppo", **run, **saving, resume=resume, measure=interrupt_after(5))
    resumed = train("CartPole-v1", "ppo", **run, resume=path)
    assert_same_run(whole, resumed)
    assert np.array_equal(whole.best_policy.parameters, resumed.best_policy.parameters)


def stepped(envs, steps=25):
    envs.reset(seed=2)
    envs.action_space.seed(0)
    for _ in range(steps):
        envs.step(envs.action_space.sample())
    return envs


class Shifted(VectorObservationWrapper):
    """Adds the number of its steps: a wrapper with a state of its own."""

    def __init__(self, envs):
        super().__init__(envs)
        self.shift = 0.0

    def step(self, actions):
        self.shift += 1.0
        return super().step(actions)

    def observations(self, observations):
        return observations + self.shift


def shifted(num_envs):
    return Shifted(make_vector_env("Pendulum-v1", num_envs))


SEVERAL = "CartPole-v1 Acrobot-v1 MountainCarContinuous-v0 Taxi-v4 CliffWalking-v1 HalfCheetah-v5"


@pytest.mark.parametrize(
    "env",
    [
        *SEVERAL.split(),
        *(f"minirl/{name}-v0" for name in ("Chain", "GridWorld", "LQR", "TokenGeneration")),
        shifted,
    ],
)
def test_environments_go_on_where_they_were(env):
    if env == "HalfCheetah-v5":
        pytest.importorskip("mujoco")
    envs, restored = stepped(make_vector_env(env, 2)), make_vector_env(env, 2)
    restore_environments(restored, environment_state(envs), None, 0)
    for _ in range(250):
        actions = envs.action_space.sample()
        for one, other in zip(envs.step(actions)[:4], restored.step(actions)[:4], strict=True):
            assert np.array_equal(one, other)
    envs.close()
    restored.close()


def in_processes(num_envs):
    return AsyncVectorEnv([partial(gym.make, "CartPole-v1")] * num_envs)


def test_environments_in_worker_processes_are_reset_and_the_result_says_so(tmp_path):
    path = tmp_path / "c.pkl"
    run = {"total_steps": 500, "settings": small("CartPole-v1", "ppo", num_envs=2)}
    saving = {"checkpoint": path, "checkpoint_every": 100}
    with pytest.raises(TrainingStopped):
        train(in_processes, "ppo", **run, **saving, measure=interrupt_after(4))
    first, second = (train(in_processes, "ppo", **run, resume=path) for _ in range(2))
    assert_same_run(first, second)
    (steps,) = first.description["environments_reset_at"]
    assert 100 <= steps < 500 <= first.history.environment_steps
    assert first.history.episode_lengths.sum() <= first.history.environment_steps


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "c.pkl"
    run = {"env": "CartPole-v1", "algorithm": "ppo", "total_steps": 200, "seed": 1}
    run["settings"] = PPO_SETTINGS
    train(**run, checkpoint=path, checkpoint_every=100)
    return path, run


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"env": "Acrobot-v1"}, "env is 'CartPole-v1' there, 'Acrobot-v1' here"),
        ({"seed": 2}, "seed is 1 there, 2 here"),
        ({"total_steps": 300}, "total_steps is 200 there, 300 here"),
        ({"algorithm": "trpo"}, "algorithm.type is 'PPO' there, 'TRPO' here"),
        ({"settings": small("CartPole-v1", "ppo", num_envs=8)}, "settings.num_envs is 4 there"),
        ({"evaluate_every": 100}, "evaluate_every is None there, 100 here"),
        ({"stop": ReturnReached(9.0)}, "stop is None there"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(changes, words, saved):
    path, run = saved
    with pytest.raises(CheckpointError, match=words) as caught:
        train(**{**run, **changes}, resume=path)
    assert "\n" not in str(caught.value)
    content = path.read_bytes()
    with pytest.raises(ValueError, match=r"exists already; give resume="):  # not overwritten
        train(**{**run, **changes}, checkpoint=path, checkpoint_every=100)
    assert path.read_bytes() == content


def test_a_checkpoint_that_starts_from_another_policy_is_refused(saved, tmp_path):
    _, run = saved
    policy, path = train(**run).policy, tmp_path / "given.pkl"
    train(**run, policy=policy, checkpoint=path, checkpoint_every=100)
    other = policy.with_parameters(policy.parameters + 1)
    with pytest.raises(CheckpointError, match="initial_parameters"):
        train(**run, policy=other, resume=path)


def test_no_damage_goes_unnoticed(saved):
    path, run = saved
    content = path.read_bytes()
    rng = random.Random(0)
    places = [*range(120), *rng.sample(range(len(content)), 60)]
    damaged = [
        content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
        for place in places
    ]
    for one in [*damaged, b"", content[:-1], content + b"x", pickle.dumps(3)]:
        path.write_bytes(one)
        with pytest.raises(CheckpointError, match="is damaged, or it is not a checkpoint"):
            train(**run, resume=path)
    with pytest.raises(CheckpointError, match="can't be read"):
        train(**run, resume=path.with_name("missing.pkl"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"checkpoint": "c.pkl"}, "given together"),
        ({"checkpoint_every": 10}, "given together"),
        ({"checkpoint": "c.pkl", "checkpoint_every": 0}, "checkpoint_every must .* got 0"),
        ({"evaluate_every": 2.5}, "evaluate_every must .* got 2.5"),
        ({"checkpoint": "missing/c.pkl", "checkpoint_every": 9}, "'missing/c.pkl' can't be writ"),
    ],
)
def test_bad_arguments_are_named(arguments, words):
    with pytest.raises(ValueError, match=words):
        train("CartPole-v1", "ppo", total_steps=100, **arguments)


def test_a_state_that_cannot_be_pickled_is_refused_before_training(tmp_path):
    @dataclass(frozen=True)
    class Local:
        policy: object = None

        def init(self, policy):
            return Local(policy)

        def update(self, state, batch, rng):
            raise AssertionError("training began")

    saving = {"checkpoint": tmp_path / "c.pkl", "checkpoint_every": 10}
    with pytest.raises(ValueError, match=r"can't|cannot be saved .* top level of a module"):
        train("CartPole-v1", Local(), total_steps=100, **saving)


def test_training_stops_as_soon_as_the_condition_holds():
    seen = []

    def stop(history):
        seen.append(history.environment_steps)
        return len(history.rows) == 3

    result = train("CartPole-v1", "ppo", total_steps=10_000, settings=PPO_SETTINGS, stop=stop)
    assert len(result.history.rows) == 3
    assert seen == result.history.columns()["environment_steps"].tolist()
    assert result.description["partial"] is False
    assert result.description["environment_steps"] == seen[-1]


def test_the_best_policy_is_that_of_the_highest_evaluation():
    run = {"total_steps": 4000, "seed": 2, "settings": PPO_SETTINGS}
    kept = []

    def measure(policy):
        kept.append(policy)
        return {}

    result = train("CartPole-v1", "ppo", **run, evaluate_every=500, measure=measure)
    columns = result.history.columns()
    evaluated = np.flatnonzero(~np.isnan(columns["evaluation_return"]))
    steps = columns["environment_steps"]
    crossed = np.flatnonzero(np.diff(steps // 500, prepend=0) > 0)
    assert evaluated.tolist() == sorted({*crossed.tolist(), len(steps) - 1})
    best = np.nanargmax(columns["evaluation_return"])
    policies = [*kept[1:], result.policy]  # after each update
    assert np.array_equal(result.best_policy.parameters, policies[best].parameters)
    assert train("CartPole-v1", "ppo", **run).best_policy is None


KILLED = """
import os, sys
from test_checkpoint import RUNS, train
env, algorithm, settings = RUNS["PPO, CartPole"]
path = sys.argv[1]
train(
    env, algorithm, total_steps=30_000, seed=3, settings=settings, checkpoint=path,
    checkpoint_every=500, resume=path if os.path.exists(path) else None, progress=True,
)
"""


def test_a_run_that_is_killed_again_and_again_is_the_uninterrupted_one(tmp_path):
    env, algorithm, settings = RUNS["PPO, CartPole"]
    path, rng = tmp_path / "checkpoint.pkl", random.Random(1)
    folders = os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2])
    environment = {**os.environ, "PYTHONPATH": folders}
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)], env=environment, stderr=subprocess.DEVNULL
        )
        patience = time.monotonic() + 60
        before = path.stat().st_mtime_ns if path.exists() else 0
        while time.monotonic() < patience and process.poll() is None:
            if path.exists() and path.stat().st_mtime_ns > before:
                break
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))  # the checkpoint may just be written
        process.send_signal(signal.SIGKILL)
        process.wait()
    run = {"total_steps": 30_000, "seed": 3, "settings": settings}
    resumed = train(env, algorithm, **run, resume=path)
    assert_same_run(train(env, algorithm, **run), resumed)
