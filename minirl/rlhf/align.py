"""RLHF: maximise E[r(x, y)] - beta KL(pi || pi_ref), in the three stages of every PPO trainer::

    rollout        the policy answers prompts              `minirl.training.rollout_stage`
    evaluation     the reward model scores each answer, minus beta times the KL to the reference;
                   advantages                              `minirl.training.evaluation_stage`
    optimisation   critic and policy learn from the batch  `minirl.training.optimisation_stage`

It is the loop that learned CartPole. What a language model should learn enters it through two doors
only: the environment, which knows what a sentence earns, and the reward transform `ReferenceKL`.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from minirl.algorithms import Algorithm
from minirl.envs.token_generation import TokenGenerationVectorEnv, checked_rewards
from minirl.envs.token_tasks import TokenTask
from minirl.exact import sequences
from minirl.policy import Policy
from minirl.presets import Preset, explain_fields, resolve
from minirl.rlhf.kl import AdaptiveReferenceBeta, ReferenceKL
from minirl.settings import Settings
from minirl.support.arguments import check_arguments
from minirl.support.validation import MOST_STEPS, require_count
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
    require_count("sentences", sentences, most=MOST_STEPS)
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
