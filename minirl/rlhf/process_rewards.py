"""Process rewards: a reward for every token, by potential-based shaping.

With a number Phi(s) for each context s, the reward of each token becomes::

    r'_t = r_t + Phi(s_{t+1}) - Phi(s_t),   Phi = 0 after the last token                         (1)

The sum of these rewards over a response is its reward minus Phi of its prompt. The optimum of
E[r] - beta KL is therefore unchanged, for every Phi. The reward to go of token t changes by
``-Phi(s_t)``, so that Phi acts as a baseline of the policy gradient.

A good potential is the value of a context. `soft_values` is the exact one: with it, r'_t equals
``beta log(pi*(a_t|s_t) / pi_ref(a_t|s_t))`` at every token.

Source: Ng, Harada and Russell 1999. That the potential must be 0 where an episode ends: Grzes 2017.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from minirl.batch import Rollout
from minirl.envs.token_tasks import TokenTask
from minirl.exact import sequences
from minirl.policy import Policy
from minirl.reward_transforms import RewardTransform
from minirl.rlhf.objective import Objective
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_finite_numbers, require_instance


def soft_values(objective: Objective) -> np.ndarray:
    """The soft values V* (X, C) of an objective: an exact process reward model, units of reward.

    ``V*(s) = beta log E_ref[exp(r(x, y) / beta) | s]``, the expectation over the responses of the
    reference that begin with the words of s.
    """
    _, values = sequences.soft_optimal_policy(
        objective.log_reference, objective.rewards, objective.beta
    )
    return values


@dataclass(frozen=True, eq=False)
class PotentialShaping:
    """Reward transform (1): ``r'_t = r_t + Phi(s_{t+1}) - Phi(s_t)``, Phi = 0 after the last token.

    Each column of the rollout must contain exactly one whole episode, that is one sentence.

    Parameters
    ----------
    task : TokenTask
    potential : ndarray (X, C)
        Phi of each context of each prompt, in units of reward.
    first : RewardTransform, optional
        Applied before the shaping, for example `ReferenceKL`.

    Raises
    ------
    ValueError
        If the potential is not one finite number per context.
    """

    task: TokenTask
    potential: np.ndarray
    first: RewardTransform | None = None

    def __post_init__(self) -> None:
        require_instance("task", self.task, TokenTask)
        potential = np.array(self.potential, dtype=np.float64)
        shape = len(self.task.prompts), self.task.num_contexts
        if potential.shape != shape:
            is_of_responses = potential.shape == (shape[0], self.task.num_responses)
            raise ValueError(
                f"potential must have shape {shape}, one number per context, got {potential.shape}"
                + ("; numbers per response depend on later tokens" if is_of_responses else "")
            )
        require_finite_numbers("potential", potential)
        potential.setflags(write=False)
        object.__setattr__(self, "potential", potential)

    def init(self, num_envs: int) -> Any:
        """The state of the transform `first`, if there is one."""
        return None if self.first is None else self.first.init(num_envs)

    def transform(
        self, state: Any, rollout: Rollout, policy: Policy
    ) -> tuple[Any, np.ndarray, dict[str, float]]:
        """The next state, the shaped rewards (T, E), and the metrics of `first`.

        Raises ValueError if the rollout does not hold one whole sentence per column.
        """
        if not ((rollout.done & rollout.valid).sum(axis=0) == 1).all():
            raise ValueError(
                "PotentialShaping needs settings with one whole sentence per column: "
                "whole_episodes=True and rollout_steps no less than the tokens of the longest "
                "sentence"
            )
        rewards = rollout.rewards
        metrics: dict[str, float] = {}
        if self.first is not None:
            state, rewards, metrics = self.first.transform(state, rollout, policy)
        potential = np.append(self.potential.ravel(), 0.0)[rollout.observations]
        following = np.append(potential[1:], np.zeros_like(potential[:1]), axis=0)
        change = np.where(rollout.done, 0.0, following) - potential
        return state, np.where(rollout.valid, rewards + change, rewards), metrics


check_arguments(__name__)
