"""The base of environments whose dynamics are a published table, as in Gymnasium's toy text."""

from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.toy_text.utils import categorical_sample

from minirl.support.arguments import check_arguments
from minirl.support.validation import require_seed

Outcome = tuple[float, int, float, bool]
Table = dict[int, dict[int, list[Outcome]]]


class ToyText(gymnasium.Env[Any, Any]):
    """S states and A actions, whose dynamics `step` samples from a published table.

    Parameters
    ----------
    table : dict
        ``table[state][action] = [(probability, next_state, reward, terminated), ...]``.
    start_probs : ndarray (S,)
        Probability of each first state.

    Attributes
    ----------
    P : dict
        The table.
    initial_state_distrib : ndarray (S,)
        Probability of each first state.
    """

    def __init__(self, table: Table, start_probs: np.ndarray) -> None:
        self.P = table
        self.initial_state_distrib = start_probs
        self.observation_space = gymnasium.spaces.Discrete(len(table))
        self.action_space = gymnasium.spaces.Discrete(len(table[0]))
        self.state = int(np.argmax(start_probs > 0))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw the first state from `initial_state_distrib`; returns it with an empty info."""
        require_seed(seed, optional=True)
        super().reset(seed=seed)
        self.state = int(categorical_sample(self.initial_state_distrib, self.np_random))
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Draw one outcome from ``P[state][action]``; never truncates by itself."""
        outcomes = self.P[self.state][action]
        drawn = categorical_sample([outcome[0] for outcome in outcomes], self.np_random)
        _, self.state, reward, terminated = outcomes[drawn]
        return self.state, reward, terminated, False, {}


check_arguments(__name__, often=("ToyText.step",))
