"""How the exploration of MountainCar is measured, and the saved policies."""

import math
from pathlib import Path

import numpy as np
import pytest

import minirl
from benchmarks.control import classic_control as script

ROOT = Path(__file__).parents[3]


def test_an_unsolved_mountain_car_explores_nothing():
    """A policy that is blind for the state: no success, no effect of velocity."""
    settings = minirl.Settings(num_envs=1, rollout_steps=200)
    result = minirl.train("MountainCar-v0", "ppo", total_steps=400, settings=settings)
    policy = result.policy
    blind = policy.with_parameters(np.zeros_like(policy.parameters))
    still = minirl.Result(blind, result.critic, result.history, result.description)
    first, effect = script._exploration(still)
    assert math.isnan(first)
    assert effect == 0
    assert script._exploration(result)[1] > 0


# Greedy returns over ten episodes that a kept policy must reach.
KEPT = {
    "cartpole": 475,
    "acrobot": -100,
    "pendulum": -300,
    "mountaincar": -115,
    "mountaincarcontinuous": 90,
}


@pytest.mark.parametrize("task", KEPT)
@pytest.mark.parametrize("algorithm", ["trpo", "ppo"])
def test_kept_policies_replay(task, algorithm):
    policy, settings = minirl.load_policy(
        ROOT / "benchmarks" / "policies" / f"{task}-{algorithm}.npz"
    )
    assert minirl.evaluate(settings["env"], policy, episodes=10).mean >= KEPT[task]
