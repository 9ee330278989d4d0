"""What worker processes must be able to import: an environment, factories, odd algorithms.

Tests reach it as the top-level module `environments`, by a fixture that puts this folder on
`sys.path`; worker processes started by spawn inherit the path, and so find it under that name.
"""

import multiprocessing
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from minirl import PolicyGradient


class Steady(gymnasium.Env):
    """Shows the same number at every step, pays the action taken (0 or 1), ends after `length`.

    At step `bad_step` (from 1, over the life of the environment) the `broken` one of
    "observation" and "reward" is `bad_value`.
    """

    metadata = {"render_modes": []}

    def __init__(self, length=5, shown=5.0, broken=None, bad_step=0, bad_value=np.nan):
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.length, self.shown = length, np.array([shown], np.float32)
        self.broken, self.bad_step, self.bad_value = broken, bad_step, bad_value
        self.time = self.life = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self.shown.copy(), {}

    def step(self, action):
        self.time += 1
        self.life += 1
        observation, reward = self.shown.copy(), float(action)
        if self.life == self.bad_step:
            if self.broken == "observation":
                observation[:] = self.bad_value
            else:
                reward = self.bad_value
        return observation, reward, self.time == self.length, False, {}


def steady(num_envs):
    """Episodes of 5 steps."""
    return SyncVectorEnv([Steady] * num_envs)


def endless(num_envs):
    """Episodes that never end, and no time limit."""
    return SyncVectorEnv([lambda: Steady(length=0)] * num_envs)


def four(num_envs):
    """A function that ignores its argument."""
    return SyncVectorEnv([Steady] * 4)


def limited(num_envs, steps=1600):
    """Episodes that only a time limit of 1,600 steps ends, in worker processes of Gymnasium's."""
    return AsyncVectorEnv([lambda: TimeLimit(Steady(length=0), steps)] * num_envs)


def wide(num_envs, length=5):
    """A factory with an argument, for `functools.partial`."""
    return SyncVectorEnv([lambda: Steady(length=length)] * num_envs)


def wait_for(path):
    """Return when the file is there; half a minute at most."""
    patience = time.monotonic() + 30
    while not Path(path).exists() and time.monotonic() < patience:
        time.sleep(0.02)


class Prepared:
    """Policy gradient, with something before each update."""

    def init(self, policy):
        return PolicyGradient().init(policy)

    def update(self, state, batch, rng):
        self.before()
        return PolicyGradient().update(state, batch, rng)


@dataclass(frozen=True)
class DiesInWorker(Prepared):
    """Policy gradient that takes its worker process down, once the file `after` exists."""

    after: str

    def before(self):
        if multiprocessing.parent_process() is not None:
            wait_for(self.after)
            os._exit(7)


@dataclass(frozen=True)
class DiesOften(Prepared):
    """Policy gradient that kills its worker process `deaths` times, then lives.

    Every death leaves a file in `folder`, and waits for the file `after`.
    """

    folder: str
    deaths: int
    after: str

    def before(self):
        if multiprocessing.parent_process() is not None:
            wait_for(self.after)
            for death in range(self.deaths):
                try:
                    (Path(self.folder) / f"death{death}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Held(Prepared):
    """Policy gradient that leaves its worker's process id in `folder`, and waits for `go` there."""

    folder: str

    def before(self):
        if multiprocessing.parent_process() is not None:
            (Path(self.folder) / f"{os.getpid()}.held").touch()
            wait_for(Path(self.folder) / "go")


@dataclass(frozen=True)
class Fails(Prepared):
    """Policy gradient whose first update raises."""

    def before(self):
        raise ArithmeticError("the update can't be done")


@dataclass(frozen=True)
class Sleeps(Prepared):
    """Policy gradient that takes a minute over an update."""

    def before(self):
        time.sleep(60)


class PlainClass:
    """A reader's own algorithm, not a dataclass."""

    def __init__(self, learning_rate):
        self.learning_rate = learning_rate

    def init(self, policy):
        return PolicyGradient(learning_rate=self.learning_rate).init(policy)

    def update(self, state, batch, rng):
        inner = PolicyGradient(learning_rate=self.learning_rate)
        return inner.update(state, batch, rng)
