"""A CartPole that learns; the JavaScript half is cartpole.js."""

from dataclasses import replace
from functools import cache
from typing import Any

import gymnasium as gym
import numpy as np

import minirl

TITLE = "A CartPole that learns"
CAPTION = (
    "Try: choose a later point of the training run, and push the cart with the buttons or with "
    "the left and right arrow keys. See how long the pole stays up. TRPO trains a network with "
    "two hidden layers to balance the pole. The list contains this network at six points of one "
    "training run, and the figure begins with the untrained policy. Your browser computes the "
    "network and the equations of motion of Gymnasium's CartPole-v1, and it samples each action "
    "from the policy. The episode is over when the pole leans by more than 12 degrees, when the "
    "cart leaves the track, or after 500 steps, which are ten seconds. A push is as strong as the "
    "policy's own force and lasts eight steps."
)
FUNCTIONS = [
    "minirl.algorithms.trpo.full_step",
    "minirl.networks.MLP",
    "minirl.algorithms.trpo.TRPO",
]
SECTIONS: tuple[str, ...] = ()
CASES = [
    {"checkpoint": "0", "angle": 1},
    {"checkpoint": "1", "angle": -4},
    {"checkpoint": "2", "angle": 6.5},
    {"checkpoint": "3", "angle": 0},
    {"checkpoint": "4", "angle": -9},
    {"checkpoint": "5", "angle": 8},
]
UPDATES = (0, 2, 4, 8, 15, 30)  # updates before each checkpoint; each update uses 2,048 rows
DIGITS = 3  # of the weights: the page and minirl use the same rounded numbers


@cache
def checkpoints() -> list[tuple[int, minirl.Policy]]:
    """Environment steps trained, and the policy with rounded weights, for each checkpoint."""
    policies: list[minirl.Policy] = []

    def remember(policy: minirl.Policy) -> dict[str, float]:
        policies.append(policy)
        return {}

    run = minirl.train("CartPole-v1", "trpo", total_steps=60_000, measure=remember)
    policies.append(run.policy)
    steps = [0, *run.history.columns()["environment_steps"].astype(int)]
    return [(int(steps[update]), rounded(policies[update])) for update in UPDATES]


def rounded(policy: minirl.Policy) -> minirl.Policy:
    theta = policy.parameters.astype(np.float64).round(DIGITS)
    return replace(policy, network=replace(policy.network, dtype="float64"), parameters=theta)


@cache
def data() -> dict[str, Any]:
    return {
        "sizes": checkpoints()[0][1].network.sizes,
        "unit": 10**DIGITS,
        "checkpoints": [
            {
                "steps": steps,
                "mean_return": minirl.evaluate("CartPole-v1", policy, greedy=False).mean,
                "weights": (policy.parameters * 10**DIGITS).round().astype(int).tolist(),
            }
            for steps, policy in checkpoints()
        ],
    }


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """The same start in Gymnasium's environment, with the most likely action at each step."""
    _, policy = checkpoints()[int(values["checkpoint"])]
    env = gym.make("CartPole-v1")
    env.reset(seed=0)
    state = np.array([0, 0, np.radians(values["angle"]), 0])
    env.unwrapped.state = state
    observation, ended = state.astype(np.float32), False
    right = policy(observation[None]).probs[0, 1]
    steps = 0
    while not ended:
        action = int(policy.act(observation[None])[0])
        observation, _, terminated, truncated, _ = env.step(action)
        ended, steps = terminated or truncated, steps + 1
        if steps <= 50:
            state = env.unwrapped.state
    return {"right": right, "steps": steps, "after_a_second": state}
