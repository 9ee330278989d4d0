"""RLHF: maximise E[r(x, y)] - beta KL(pi || pi_ref), in the three stages of every PPO trainer::

    rollout        the policy answers prompts              `minirl.training.rollout_stage`
    evaluation     the reward model scores each answer, minus beta times the KL to the reference;
                   advantages                              `minirl.training.evaluation_stage`
    optimisation   critic and policy learn from the batch  `minirl.training.optimisation_stage`

It is the loop that learned CartPole. What a language model should learn enters it through two doors
only: the environment, which knows what a sentence earns, and the reward transform `ReferenceKL`.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from minirl.algorithms import Algorithm
from minirl.envs.token_generation import TokenGenerationVectorEnv, checked_rewards
from minirl.envs.token_tasks import TokenTask
from minirl.exact import sequences
from minirl.policy import Policy
from minirl.presets import Preset, explain_fields, resolve
from minirl.rlhf.kl import AdaptiveReferenceBeta, ReferenceKL
from minirl.rlhf.language_model import full_prefix_policy, log_table, require_model
from minirl.settings import Settings
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_instance
from minirl.training import Measure, Result, train

ENVIRONMENT = "minirl/TokenGeneration-v0"


@dataclass(frozen=True, eq=False)
class Objective:
    """J(pi) = E[r(x, y)] - beta KL(pi || pi_ref), prompts uniform, always computed exactly.

    Parameters
    ----------
    task : TokenTask
    reference : Policy
        pi_ref.
    rewards : ndarray (X, N)
        r, of every response: the task's utilities or a reward model's.
    beta : float
        In units of reward per nat, in the range of `sequences.require_price`: from 1e-8 times the
        largest absolute reward to 1e5 times the largest difference of two rewards of a prompt.

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
        """The reference's log-probabilities (X, C, V)."""
        return log_table(self.task, self.reference)

    @cached_property
    def reference_log_probs(self) -> np.ndarray:
        """Log-probabilities (X, N) of whole responses under the reference."""
        return sequences.response_log_probs(self.log_reference)

    def value(self, policy: Policy) -> sequences.ObjectiveValue:
        """J, E[r] and KL(pi || pi_ref) of a policy."""
        return sequences.objective(
            log_table(self.task, policy), self.log_reference, self.rewards, self.beta
        )

    def measure(self, policy: Policy) -> dict[str, float]:
        """The same as metrics, for `train(measure=...)`."""
        found = self.value(policy)
        return {
            "exact_objective": found.objective,
            "exact_reward": found.reward,
            "exact_reference_kl": found.kl,
        }

    @cached_property
    def optimal_policy(self) -> Policy:
        """pi*, proportional to pi_ref exp(r / beta): what every method aims at."""
        log_policy, _ = sequences.soft_optimal_policy(self.log_reference, self.rewards, self.beta)
        return full_prefix_policy(self.task, log_policy)

    @cached_property
    def reference_value(self) -> float:
        """J(pi_ref): the reference's expected reward, since its KL to itself is 0."""
        return self.value(self.reference).objective

    @cached_property
    def optimum(self) -> float:
        """J* = J(pi*)."""
        return self.value(self.optimal_policy).objective

    def fraction_of_optimum(self, policy: Policy) -> float:
        """`fraction_reached` by a policy: 0 for the reference, at most 1."""
        return self.fraction_reached(self.value(policy).objective)

    def fraction_reached(self, value: float) -> float:
        """(J - J(pi_ref)) / (J* - J(pi_ref)) of a value J of this objective.

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


@explain_fields
def align(
    task: TokenTask,
    reference: Policy,
    rewards: np.ndarray,
    algorithm: str | Preset | Algorithm,
    *,
    sentences: int,
    beta: float | AdaptiveReferenceBeta | None = 0.3,
    seed: int = 0,
    settings: Settings | None = None,
    measure: Measure | None = None,
    progress: bool = False,
) -> Result:
    """Align a language model by reinforcement learning, starting from the reference.

    Parameters
    ----------
    task : TokenTask
    reference : Policy
        The fine-tuned model: where learning starts, and what the KL holds it to.
    rewards : ndarray (X, N)
        What each response earns.
    algorithm : str, Preset or Algorithm
        "policy-gradient", "natural-gradient", "trpo", "ppo", "rloo" or "grpo"; a changed
        `preset("minirl/TokenGeneration-v0", name)`; or your own algorithm.
    sentences : int
        Sampled in all; the last rollout is completed.
    beta : float, AdaptiveReferenceBeta or None
        Of the KL penalty, in the range that `Objective` gives (the first one, if it adapts); None
        optimises the reward alone.
    seed, settings, measure, progress
        As for `train`; the reward transform of `settings` is replaced.

    Raises
    ------
    ValueError
        If beta is outside its range, for rewards or arguments that don't fit, or for a reference
        that excludes a token by a parameter of -inf: the policy would start, and stay, without it.
    """
    require_count("sentences", sentences)
    if not np.isfinite(reference.parameters).all():
        raise ValueError(
            "reference must have finite parameters to learn from, got "
            f"{reference.parameters[~np.isfinite(reference.parameters)][0]}; smooth a reference "
            "that excludes tokens"
        )
    chosen = resolve(ENVIRONMENT, algorithm, settings)
    penalty = None
    if beta is not None:
        penalty = ReferenceKL(reference, beta)
        sequences.require_price("beta", penalty.init(num_envs=1), checked_rewards(task, rewards))
    return train(
        partial(TokenGenerationVectorEnv, task=task, rewards=rewards),
        chosen.algorithm,
        total_episodes=sentences,
        seed=seed,
        settings=replace(chosen.settings, reward_transform=penalty),
        policy=reference,
        measure=measure,
        progress=progress,
    )


check_arguments(__name__)
