"""Bias squared plus variance of GAE against lambda; the JavaScript half is gae-lambda.js."""

import numpy as np

from minirl.envs.chain import Chain
from minirl.exact import FiniteMDP, tabular

TITLE = "GAE's lambda"
CAPTION = (
    "Try: set the error of the critic to 0, and then to 0.4. The purple diamond marks the "
    "$\\lambda$ with the smallest squared error. See which way it moves. The figure shows the "
    "squared error of GAE's advantages on the chain of notebook 1, with the discount 0.9 and the "
    "policy that takes each action with probability 1/2. If $n$ episodes visit a pair of state "
    "and action, its squared error is the squared bias plus the variance divided by $n$. The "
    "curves are means over all pairs, weighted by how often they occur. The part of the bias that "
    "is the same for all actions of a state does not change the gradient. This part is left out. "
    "All numbers are exact; nothing is sampled."
)
FUNCTIONS = [
    "minirl.advantages.gae",
    "minirl.exact.tabular.expected_gae",
    "minirl.exact.tabular.gae_variance",
]
SECTIONS = ("2.5",)
CASES = [
    {"wrong": 0.13, "episodes": 16, "lam": 0.95},
    {"wrong": 0.0, "episodes": 16, "lam": 0.5},
    {"wrong": 0.0, "episodes": 1, "lam": 1.0},
    {"wrong": 0.4, "episodes": 1, "lam": 0.0},
    {"wrong": 0.4, "episodes": 1000, "lam": 1.0},
    {"wrong": 0.01, "episodes": 1000, "lam": 0.0},
]

DISCOUNT = 0.9
ENV = Chain()
MDP = FiniteMDP.from_gymnasium(ENV, DISCOUNT)
POLICY = np.full((5, 2), 0.5)
VALUES = tabular.state_values(MDP, POLICY)
ADVANTAGES = tabular.advantages(MDP, POLICY)
ERROR = np.random.default_rng(0).normal(scale=0.2, size=5)  # of the critic in notebook 2
ERROR /= np.abs(ERROR).max()
PAIRS = tabular.state_visitation(MDP, POLICY, state_discount=1.0)[:, None] * POLICY
PAIRS /= PAIRS.sum()


def data() -> dict[str, object]:
    return {
        "discount": DISCOUNT,
        "outcomes": [[ENV.P[state][action] for action in range(2)] for state in range(5)],
        "policy": POLICY.tolist(),
        "values": VALUES.tolist(),
        "advantages": ADVANTAGES.tolist(),
        "error": ERROR.tolist(),
        "pairs": PAIRS.tolist(),
    }


def parts(wrong: float, lam: float) -> tuple[float, float]:
    """The squared bias and the variance of one estimate, as means over the pairs."""
    critic = VALUES + wrong * ERROR
    mean = tabular.expected_gae(MDP, POLICY, critic, lam)
    bias = mean - (POLICY * mean).sum(axis=1, keepdims=True) - ADVANTAGES
    variance = tabular.gae_variance(ENV, POLICY, critic, discount=DISCOUNT, lam=lam)
    return float((PAIRS * bias**2).sum()), float((PAIRS * variance).sum())


def numbers(values: dict[str, float]) -> dict[str, object]:
    lams = np.arange(101) / 100
    curve = np.array([parts(values["wrong"], lam) for lam in lams]) / [1, values["episodes"]]
    bias, variance = parts(values["wrong"], values["lam"])
    return {
        "bias": bias,
        "variance": variance / values["episodes"],
        "biases": curve[:, 0].tolist(),
        "variances": curve[:, 1].tolist(),
        "best": float(lams[curve.sum(axis=1).argmin()]),
        "smallest": float(curve.sum(axis=1).min()),
    }
