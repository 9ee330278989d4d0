"""The four algorithms, one file for each: policy gradient, natural gradient, TRPO and PPO.

`ratio_objectives.py` and `reference_loss.py` contain what the group-relative methods put in place
of PPO's objective, and what they add to it.
"""

from typing import Any, Protocol

import numpy as np

from minirl.algorithms.natural_gradient import NaturalGradient
from minirl.algorithms.policy_gradient import PolicyGradient
from minirl.algorithms.ppo import PPO
from minirl.algorithms.trpo import TRPO
from minirl.batch import Batch
from minirl.policy import Policy


class Algorithm(Protocol):
    """The interface of an algorithm that `train` can use.

    The state is a frozen dataclass with a field `policy`; anything else in it is the algorithm's.
    """

    def init(self, policy: Policy) -> Any: ...
    def update(
        self, state: Any, batch: Batch, rng: np.random.Generator
    ) -> tuple[Any, dict[str, float]]: ...


ALGORITHMS = {
    "policy-gradient": PolicyGradient,
    "natural-gradient": NaturalGradient,
    "trpo": TRPO,
    "ppo": PPO,
}

__all__ = ["ALGORITHMS", "PPO", "TRPO", "Algorithm", "NaturalGradient", "PolicyGradient"]
