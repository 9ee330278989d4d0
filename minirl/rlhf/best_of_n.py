"""Best-of-n: alignment by search. Draw n responses from the reference, keep the best.

This file samples it, which is also possible with a model whose responses cannot be enumerated. Its
exact distribution is `minirl.exact.sequences.best_of_n`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from minirl.envs.token_generation import checked_rewards
from minirl.envs.token_tasks import TokenTask
from minirl.policy import Policy
from minirl.rlhf.language_model import sample_responses
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count


def sample_best_of_n(
    task: TokenTask,
    policy: Policy,
    prompts: ArrayLike | Sequence[str],
    rewards: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The best of n sampled responses to each prompt x, (B,): argmax of r(x, y_i), y_i ~ pi(.|x).

    Among responses with equal rewards, the first one sampled is returned.

    Parameters
    ----------
    prompts : array_like (B,) of int, or list of str
        Indices of the task's prompts, or their texts.
    rewards : ndarray (X, N)
        r(x, y) of every response to every prompt.
    n : int
        Number of responses to sample per prompt.

    Returns
    -------
    ndarray (B,) of int
        The numbers of the responses.
    """
    require_count("n", n)
    rewards = checked_rewards(task, rewards)
    prompts = task.prompt_indices(prompts)
    repeated = np.repeat(prompts, n)
    responses = sample_responses(task, policy, repeated, rng)
    # Rewards count as equal if they agree to 1e-13 of the prompt's largest reward, as in the exact
    # distribution. Otherwise rounding errors would decide between equal rewards.
    unit = np.abs(rewards).max(axis=1, keepdims=True)
    scores = (rewards / np.where(unit > 0, unit, 1)).round(13)[repeated, responses].reshape(-1, n)
    return responses.reshape(-1, n)[np.arange(len(prompts)), scores.argmax(axis=1)]


check_arguments(__name__)
