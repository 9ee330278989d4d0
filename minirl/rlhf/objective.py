"""The objective of RLHF, J(pi) = E[r(x, y)] - beta KL(pi || pi_ref), computed exactly.

Its optimum is pi*(y|x) = pi_ref(y|x) exp(r(x, y) / beta) / Z(x). Every method of alignment is
judged by the fraction of the possible gain that it reaches,
(J(pi) - J(pi_ref)) / (J* - J(pi_ref)).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minirl.envs.token_generation import checked_rewards
from minirl.envs.token_tasks import TokenTask
from minirl.exact import sequences
from minirl.policy import Policy
from minirl.rlhf.language_model import full_prefix_policy, log_table, require_model
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_instance


def reward_by_prompt(
    task: TokenTask, policy: Policy, rewards: np.ndarray | None = None
) -> np.ndarray:
    """The expected reward sum_y pi(y|x) r(x, y) of each prompt x, (X,), exact.

    With rewards 0 and 1 it is the success rate. Training on some prompts only, it shows what
    happens to the others.

    Parameters
    ----------
    rewards : ndarray (X, N), optional
        r(x, y) of every response. Default: the task's utilities.
    """
    probs = np.exp(sequences.response_log_probs(log_table(task, policy)))
    return np.einsum("xn,xn->x", probs, checked_rewards(task, rewards))


@dataclass(frozen=True, eq=False)
class Objective:
    """The objective J(pi) = E[r(x, y)] - beta KL(pi || pi_ref), prompts uniform, computed exactly.

    Parameters
    ----------
    task : TokenTask
    reference : Policy
        pi_ref.
    rewards : ndarray (X, N)
        r(x, y) of every response: the task's utilities, or the rewards of a reward model.
    beta : float
        The coefficient of the KL in units of reward per nat. Its range is that of
        `sequences.require_price`: from 1e-8 times the largest absolute reward to 1e5 times the
        largest difference of two rewards of a prompt.

    Raises
    ------
    ValueError
        For a beta outside this range, or a reference or rewards of another task.
    """

    task: TokenTask
    reference: Policy
    rewards: np.ndarray
    beta: float

    def __post_init__(self) -> None:
        require_instance("task", self.task, TokenTask)
        require_model(self.task, self.reference)
        object.__setattr__(self, "rewards", checked_rewards(self.task, self.rewards))
        sequences.require_price("beta", self.beta, self.rewards)

    @cached_property
    def log_reference(self) -> np.ndarray:
        """Log-probabilities (X, C, V) of the next token under the reference, in nats."""
        return log_table(self.task, self.reference)

    @cached_property
    def reference_log_probs(self) -> np.ndarray:
        """Log-probabilities (X, N) of whole responses under the reference, in nats."""
        return sequences.response_log_probs(self.log_reference)

    def value(self, policy: Policy) -> sequences.ObjectiveValue:
        """J(pi) = E[r] - beta KL(pi || pi_ref), E[r], and the KL in nats, of a policy."""
        return sequences.objective(
            log_table(self.task, policy), self.log_reference, self.rewards, self.beta
        )

    def measure(self, policy: Policy) -> dict[str, float]:
        """The numbers of `value` as a dict of metrics, for `train(measure=...)`."""
        value = self.value(policy)
        return {
            "exact_objective": value.objective,
            "exact_reward": value.reward,
            "exact_reference_kl": value.kl,
        }

    @cached_property
    def optimal_policy(self) -> Policy:
        """The optimum pi*(y|x) = pi_ref(y|x) exp(r(x, y) / beta) / Z(x) as a policy."""
        log_policy, _ = sequences.soft_optimal_policy(self.log_reference, self.rewards, self.beta)
        return full_prefix_policy(self.task, log_policy)

    @cached_property
    def reference_value(self) -> float:
        """J(pi_ref): the reference's expected reward, since its KL to itself is 0."""
        return self.value(self.reference).objective

    @cached_property
    def optimum(self) -> float:
        """J* = J(pi*), the largest value that any policy has."""
        return self.value(self.optimal_policy).objective

    def fraction_of_optimum(self, policy: Policy) -> float:
        """(J(pi) - J(pi_ref)) / (J* - J(pi_ref)) of a policy: 0 for the reference, at most 1."""
        return self.fraction_reached(self.value(policy).objective)

    def fraction_reached(self, value: float) -> float:
        """(J - J(pi_ref)) / (J* - J(pi_ref)), where J is the given value of this objective.

        Raises
        ------
        ValueError
            If J* exceeds J(pi_ref) by no more than rounding: there is nothing to gain.
        """
        available = self.optimum - self.reference_value
        if not available > 1e-13 * (np.abs(self.rewards).max() + self.beta):
            raise ValueError(
                "there is nothing to gain: the reference is the optimum (J(reference) = "
                f"{self.reference_value:.6g}, J* = {self.optimum:.6g}), as it is when all rewards "
                "of each prompt are equal; no fraction is defined"
            )
        return (value - self.reference_value) / available


check_arguments(__name__)
