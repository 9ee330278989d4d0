"""RLHF: maximise E[r(x, y)] - beta KL(pi || pi_ref), in three stages::

    rollout        the policy answers prompts              `minirl.training.rollout_stage`
    advantages     the reward model scores each answer, minus beta times the KL to the reference;
                   advantages are estimated                `minirl.training.advantage_stage`
    optimisation   critic and policy learn from the batch  `minirl.training.optimisation_stage`

Texts on RLHF call the second stage *evaluation*. It is the same loop that learns CartPole. Only two
of its inputs differ: the environment, which gives each sentence its reward, and the reward
transform `ReferenceKL`.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from minirl.advantages import PassAtK, SuccessNormalized
from minirl.algorithms import PPO, Algorithm
from minirl.algorithms.reference_loss import ReferenceLoss
from minirl.envs.token_generation import TokenGenerationVectorEnv, checked_rewards
from minirl.envs.token_tasks import TokenTask
from minirl.exact import sequences
from minirl.policy import Policy
from minirl.presets import Preset, explain_fields, resolve
from minirl.rlhf.kl import AdaptiveReferenceBeta, ReferenceKL
from minirl.settings import Settings
from minirl.support.arguments import check_arguments
from minirl.support.validation import MOST_STEPS, require_count, require_verdicts
from minirl.training import Measure, Result, train

ENVIRONMENT = "minirl/TokenGeneration-v0"


@explain_fields
def align(
    task: TokenTask,
    reference: Policy,
    rewards: np.ndarray,
    algorithm: str | Preset | Algorithm,
    *,
    sentences: int,
    beta: float | AdaptiveReferenceBeta | None = 0.3,
    prompts: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    measure: Measure | None = None,
    progress: bool = False,
) -> Result:
    """Align a language model by reinforcement learning, starting from the reference.

    Maximises E[r(x, y)] - beta KL(pi || pi_ref) over policies pi, prompts x uniform. The KL is
    subtracted from the rewards. An algorithm with a `ReferenceLoss`, such as "grpo-paper", has it
    in the loss instead, with the same beta.

    Parameters
    ----------
    task : TokenTask
    reference : Policy
        The fine-tuned model: the initial policy, and pi_ref in the KL.
    rewards : ndarray (X, N)
        r(x, y): the reward of each response to each prompt.
    algorithm : str, Preset or Algorithm
        "policy-gradient", "natural-gradient", "trpo", "ppo", "rloo", "grpo" or another name of
        `PRESETS["minirl/TokenGeneration-v0"]`; a changed preset; or your own algorithm. If the
        reference is a network of `Features`, a name means its preset in `NETWORK_TOKENS`.
    sentences : int
        Number of sentences to sample in total; the last rollout is completed.
    beta : float, AdaptiveReferenceBeta or None
        The coefficient of the KL penalty in units of reward per nat, or its initial value if it is
        adaptive; `Objective` states its range. None optimises the reward alone.
    prompts : sequence of int or str, optional
        The prompts to learn from, as numbers or as texts. Default: all prompts of the task.
    seed, settings, measure, progress
        As for `train`; the reward transform of `settings` is replaced.

    Raises
    ------
    ValueError
        If beta is outside its range, for rewards of another task, for an algorithm that needs
        rewards of 0 and 1 and gets others or a KL in them, or for a reference that gives a token
        probability 0 by a parameter of -inf: no gradient could ever raise it again.
    """
    require_count("sentences", sentences, most=MOST_STEPS)
    if not np.isfinite(reference.parameters).all():
        raise ValueError(
            "reference must have finite parameters to learn from, got "
            f"{reference.parameters[~np.isfinite(reference.parameters)][0]}; smooth a reference "
            "that excludes tokens"
        )
    chosen = resolve(ENVIRONMENT, algorithm, settings, reference)
    learns, penalty = chosen.algorithm, None
    if beta is not None:
        penalty = ReferenceKL(reference, beta)
        sequences.require_price("beta", penalty.init(num_envs=1), checked_rewards(task, rewards))
    if isinstance(learns, PPO) and isinstance(learns.penalty, ReferenceLoss):
        if isinstance(beta, AdaptiveReferenceBeta):
            raise ValueError(
                "beta must be a number or None for an algorithm with the KL in its loss, got "
                f"{beta!r}"
            )
        term = None if beta is None else replace(learns.penalty, beta=beta)
        learns, penalty = replace(learns, penalty=term), None
    estimator = chosen.settings.advantages
    if isinstance(estimator, SuccessNormalized | PassAtK):
        _require_verdicts(type(estimator).__name__, checked_rewards(task, rewards), penalty)
    return train(
        partial(TokenGenerationVectorEnv, task=task, rewards=rewards, prompts=prompts),
        learns,
        total_episodes=sentences,
        seed=seed,
        settings=replace(chosen.settings, reward_transform=penalty),
        policy=reference,
        measure=measure,
        progress=progress,
    )


def _require_verdicts(name: str, rewards: np.ndarray, penalty: ReferenceKL | None) -> None:
    """Raise ValueError unless all rewards are 0 or 1 and no KL is subtracted from them."""
    if penalty is not None:
        raise ValueError(
            f"beta must be None with {name}, whose returns must be 0 or 1, got "
            f"{penalty.beta!r}; the KL penalty would be subtracted from them"
        )
    require_verdicts(f"rewards for {name}", rewards, ", verifiable() for example")


check_arguments(__name__)
