"""TRPO's step and PPO's epochs with two parameters; the JavaScript half is trust-region.js."""

from typing import Any

import numpy as np
from scipy.optimize import brentq

from minirl import PPO, SGD, TRPO, Batch, Categorical, Clipped, Policy
from minirl.algorithms.natural_gradient import fisher_vector_product, natural_direction
from minirl.algorithms.policy_gradient import policy_gradient_loss, step_report
from minirl.algorithms.trpo import full_step, trust_region_search

TITLE = "Trust region by hand"
CAPTION = (
    "Try: raise the epochs of PPO to 100 and epsilon to 0.5. See whether PPO stays inside the "
    "blue curve, where the KL is at most `max_kl`. The policy is the softmax of the logits "
    "$(\\theta_1, \\theta_2, 0)$, and the old policy is the dot at which all paths begin. The "
    "advantage of an action is its reward minus the mean reward of the old policy. On a thin "
    "line, the surrogate has the same value everywhere, and a more intense line means a larger "
    "surrogate. The line of the gradient is as long as the full step, because only its direction "
    "matters. On the line of the natural direction, a cross is a step that the line search "
    "rejects, and the disc is the step that it accepts. Each green dot is one epoch of PPO on the "
    "whole batch. The optimizer is SGD with learning rate 0.5, so the first epoch follows the "
    "gradient. The batch contains each action once, weighted by its probability. All numbers are "
    "therefore exact."
)
FUNCTIONS = [
    "minirl.algorithms.trpo.full_step",
    "minirl.algorithms.trpo.trust_region_search",
    "minirl.algorithms.natural_gradient.natural_direction",
    "minirl.algorithms.ppo.clipped_surrogate_loss",
]
SECTIONS = ("3.15",)
USUAL = {"max_kl": 0.05, "damping": 0.01, "epsilon": 0.2, "epochs": 10}
BANDIT = {"reward1": 1.0, "reward2": 0.0, "reward3": 0.6}  # of the pictures in docs/algorithms
CASES = [
    {**USUAL, **BANDIT},
    {**USUAL, **BANDIT, "max_kl": 1e-3, "damping": 1e-4, "epsilon": 0.01, "epochs": 100},
    {**USUAL, **BANDIT, "max_kl": 1.0, "damping": 10.0, "epsilon": 0.5, "epochs": 1},
    {**USUAL, "max_kl": 1.0, "damping": 1e-4, "reward1": 1.0, "reward2": -1.0, "reward3": -1.0},
    {**USUAL, "epochs": 100, "reward1": -1.0, "reward2": 1.0, "reward3": -1.0},
    {**USUAL, "epsilon": 0.5, "epochs": 100, "reward1": 1.0, "reward2": -1.0, "reward3": 1.0},
    {**USUAL, "damping": 1e-4, "reward1": 0.0, "reward2": 0.0, "reward3": 1.0},
    {**USUAL, "reward1": 0.3, "reward2": 0.3, "reward3": 0.3},
]

START = np.array([-1.4, 0.9])
RATE = 0.5


class TwoLogits:
    """A network whose outputs are (theta_1, theta_2, 0), whatever the observation."""

    dtype, size = "float64", 2

    def init(self, rng: np.random.Generator) -> np.ndarray:
        return START

    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, int]:
        return np.tile([*theta, 0.0], (len(x), 1)), len(x)

    def vjp(self, cache: int, dy: np.ndarray) -> np.ndarray:
        return dy[:, :2].sum(axis=0)

    def jvp(self, cache: int, dtheta: np.ndarray) -> np.ndarray:
        return np.tile([*dtheta, 0.0], (cache, 1))


POLICY = Policy(TwoLogits(), Categorical, START)


def directions() -> np.ndarray:
    """Unit vectors, sorted by angle, in which the curves of equal KL look smooth.

    Half of them divide the ellipse of the quadratic model into equal parts. The others are close
    to the three directions in which the exact curve turns fastest: two logits remain equal to the
    largest one, and the third falls.
    """
    circle = 2 * np.pi * (np.arange(120) + 0.5) / 120
    probabilities = POLICY(np.zeros(1, dtype=int)).probs[0, :2]
    fisher = np.diag(probabilities) - np.outer(probabilities, probabilities)
    factor = np.linalg.cholesky(fisher).T
    first, second = np.linalg.solve(factor, [np.cos(circle), np.sin(circle)])
    corners = np.arctan2([0, -1, 1], [-1, 0, 1])
    offsets = np.linspace(0, 1, 21) ** 1.5 / 5
    near = corners[:, None] + np.concatenate([-offsets[:0:-1], offsets])
    angles = np.sort(np.concatenate([np.arctan2(second, first), near.ravel()]) % (2 * np.pi))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


DIRECTIONS = directions()


def data() -> dict[str, Any]:
    usual = TRPO()
    return {
        "start": START.tolist(),
        "units": DIRECTIONS.tolist(),
        "shrink": usual.line_search_shrink,
        "most": usual.line_search_tries,
        "rate": RATE,
    }


def exact_batch(rewards: np.ndarray) -> Batch:
    """Each action once, weighted by its probability."""
    actions, observations = np.arange(3), np.zeros(3, dtype=int)
    old = POLICY(observations)
    weight = old.probs[0]
    # the sum of differences is exactly 0 if all rewards are equal
    advantages = (rewards[:, None] - rewards) @ weight
    return Batch(
        observations=observations,
        actions=actions,
        log_probs=old.log_prob(actions),
        values=rewards - advantages,
        advantages=advantages,
        returns=rewards,
        weight=weight,
    )


def radius(direction: np.ndarray, max_kl: float) -> float:
    """The length at which the exact KL in this direction is `max_kl`."""
    observation = np.zeros(1, dtype=int)
    old = POLICY(observation)

    def excess(length: float) -> float:
        new = POLICY.with_parameters(START + length * direction)(observation)
        return float(old.kl(new)[0]) - max_kl

    return float(brentq(excess, 0.0, 100.0, xtol=1e-14))


def numbers(values: dict[str, float]) -> dict[str, Any]:
    max_kl, damping = values["max_kl"], values["damping"]
    batch = exact_batch(np.array([values[f"reward{action}"] for action in (1, 2, 3)]))
    old, cache = POLICY.forward(batch.observations)

    trpo = TRPO(max_kl=max_kl, damping=damping)
    gradient = -POLICY.vjp(cache, policy_gradient_loss(old, batch)[1])
    solution = natural_direction(
        POLICY, cache, old, batch, gradient, damping=damping, iterations=trpo.cg_iterations
    )
    step = full_step(solution, damping, max_kl)
    search = trust_region_search(
        POLICY,
        old,
        batch,
        step,
        max_kl=max_kl,
        shrink=trpo.line_search_shrink,
        tries=trpo.line_search_tries,
    )
    tries = []
    for attempt in range(len(search.rejections) + (search.fraction > 0)):
        fraction = trpo.line_search_shrink**attempt
        new = POLICY.with_parameters(START + fraction * step)(batch.observations)
        report = step_report(old, new, batch)
        tries.append([fraction, report["kl"], report["surrogate_improvement"]])
    rng = np.random.default_rng(0)
    state, metrics = trpo.update(trpo.init(POLICY), batch, rng)

    ppo = PPO(
        objective=Clipped(values["epsilon"]),
        learning_rate=RATE,
        epochs=int(values["epochs"]),
        optimizer=SGD(),
    )
    follower, path = ppo.init(POLICY), [START]
    for _ in range(ppo.epochs):
        follower, _, _ = ppo.step(follower, batch, None)
        path.append(follower.policy.parameters)
    end, report = ppo.update(ppo.init(POLICY), batch, rng)
    ratios = end.policy(batch.observations).probs[0] / batch.weight

    curvatures = [
        direction @ fisher_vector_product(POLICY, cache, old, batch.weight, direction)
        for direction in DIRECTIONS
    ]
    return {
        "advantages": batch.advantages.tolist(),
        "gradient": gradient.tolist(),
        "direction": solution.x.tolist(),
        "step": step.tolist(),
        "tries": tries,
        "fraction": metrics["accepted_fraction"],
        "accepted": state.policy.parameters.tolist(),
        "kl": metrics["kl"],
        "gain": metrics["surrogate_improvement"],
        "ball": [radius(direction, max_kl) for direction in DIRECTIONS],
        "model": np.sqrt(2 * max_kl / np.array(curvatures)).tolist(),
        "path": [theta.tolist() for theta in path],
        "ppo": end.policy.parameters.tolist(),
        "ppo_kl": report["kl"],
        "ppo_gain": report["surrogate_improvement"],
        "ratios": ratios.tolist(),
    }
