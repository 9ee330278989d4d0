"""Writing a sentence, token by token: the environment in which a language model is aligned.

The observation is the context (the prompt and the words so far) as one number, and the action is
the next token. A sentence ends with EOS or at the length limit. Both terminate the episode, since
the limit is part of the task. The last action receives the whole reward::

    context         What is 2x4?   What is 2x4? A:   What is 2x4? A: 8    (ended)
    action          A:             8                 EOS
    reward          0              0                 2.5
"""

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_tasks import TokenTask
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_seed


def checked_rewards(task: TokenTask, rewards: np.ndarray | None) -> np.ndarray:
    """The reward of every response (X, N): the task's utilities, or those given.

    Raises
    ------
    ValueError
        If the shape is not the task's, or a reward is not a finite number, naming its response.
    """
    if not isinstance(task, TokenTask):
        raise ValueError(f"task must be a TokenTask, got {task!r:.60}")
    if rewards is None:
        rewards = task.utilities
    rewards = np.asarray(rewards, dtype=np.float64)
    shape = len(task.prompts), task.num_responses
    if rewards.shape != shape:
        raise ValueError(f"rewards must have shape {shape}, got {rewards.shape}")
    if not np.isfinite(rewards).all():
        prompt, response = np.argwhere(~np.isfinite(rewards))[0]
        raise ValueError(
            f"rewards must be finite numbers, got {rewards[prompt, response]} for "
            f"{task.text(response)!r} to {task.prompts[prompt]!r}"
        )
    return rewards


def _different_prompts(
    task: TokenTask, prompts: Sequence[int] | Sequence[str] | np.ndarray | None
) -> np.ndarray:
    """The numbers of the given prompts, or of all prompts of the task."""
    if prompts is None:
        return np.arange(len(task.prompts))
    numbers = task.prompt_indices(prompts)
    if not len(numbers) or len(set(numbers)) < len(numbers):
        raise ValueError(f"prompts must be different and at least one, got {list(prompts)}")
    return numbers


class TokenGeneration(gymnasium.Env[Any, Any]):
    """An environment with one sentence per episode; the last step has the reward r(x, y).

    Parameters
    ----------
    task : TokenTask, optional
        Default: `arithmetic()`.
    rewards : ndarray (X, N), optional
        The reward of each response, for example from a reward model. Default: the task's utilities.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (declared by Gymnasium)

    def __init__(self, task: TokenTask | None = None, rewards: np.ndarray | None = None) -> None:
        self._sentences = TokenGenerationVectorEnv(1, task, rewards)
        self.task = self._sentences.task
        self.observation_space = self._sentences.single_observation_space
        self.action_space = self._sentences.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Draw a prompt; its empty context is the first observation."""
        require_seed(seed, optional=True)
        super().reset(seed=seed)
        self._sentences.np_random = self.np_random
        observations, _ = self._sentences.reset(options=options)
        return int(observations[0]), {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Append one token; never truncates."""
        observations, rewards, terminated, _, _ = self._sentences.step(np.array([action]))
        return int(observations[0]), float(rewards[0]), bool(terminated[0]), False, {}


class TokenGenerationVectorEnv(VectorEnv[Any, Any, Any]):
    """E sentences at once, with Gymnasium's NEXT_STEP autoreset.

    Parameters
    ----------
    num_envs : int
        E.
    task, rewards
        As for `TokenGeneration`.
    prompts : sequence of int or str, optional
        The prompts to draw from, as numbers or as texts. Default: all prompts of the task.

    Raises
    ------
    ValueError
        For a prompt that the task does not have, the same prompt twice, or no prompt.
    """

    metadata: dict[str, Any] = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(
        self,
        num_envs: int = 1,
        task: TokenTask | None = None,
        rewards: np.ndarray | None = None,
        prompts: Sequence[int] | Sequence[str] | np.ndarray | None = None,
    ) -> None:
        require_count("num_envs", num_envs)
        self.num_envs = int(num_envs)
        self.task = arithmetic() if task is None else task
        self.rewards = checked_rewards(self.task, rewards)
        self.prompts = _different_prompts(self.task, prompts)
        self.single_observation_space = Discrete(self.task.num_observations)
        self.single_action_space = Discrete(len(self.task.vocabulary))
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._prompts = np.zeros(num_envs, dtype=np.int64)
        self._contexts = np.zeros(num_envs, dtype=np.int64)
        self._ended = np.zeros(num_envs, dtype=bool)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Draw prompts; with options={"group_size": k}, one per k adjacent sentences.

        Raises
        ------
        ValueError
            If E is not a multiple of the group size.
        """
        require_seed(seed, optional=True)
        super().reset(seed=seed)
        group_size = (options or {}).get("group_size", 1)
        if (
            not isinstance(group_size, int | np.integer)
            or group_size < 1
            or self.num_envs % group_size
        ):
            raise ValueError(
                f"group_size must divide the number of environments, {self.num_envs}, got "
                f"{group_size!r}"
            )
        drawn = self.np_random.integers(len(self.prompts), size=self.num_envs // group_size)
        self._prompts = np.repeat(self.prompts[drawn], group_size)
        self._contexts = np.zeros(self.num_envs, dtype=np.int64)
        self._ended = np.zeros(self.num_envs, dtype=bool)
        return self._observations(), {}

    def _observations(self) -> np.ndarray:
        contexts = self.task.observation(self._prompts, self._contexts)
        return np.where(self._ended, self.task.num_observations - 1, contexts)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Append one token to each sentence; where a sentence has ended, begin a new one instead.

        Raises
        ------
        ValueError
            If the actions are not one token per sentence.
        """
        task, begin_anew = self.task, self._ended
        actions = np.asarray(actions)
        if not self.action_space.contains(actions):
            raise ValueError(
                f"actions must be {self.num_envs} tokens 0 .. {task.num_words}, got {actions!r}"
            )
        longer = task.child(self._contexts, actions)
        responses = np.where(actions == task.num_words, self._contexts, longer)
        ended = (responses == self._contexts) | (responses >= task.num_contexts)
        ended &= ~begin_anew
        rewards = np.where(ended, self.rewards[self._prompts, responses], 0.0)
        self._contexts = np.where(ended | begin_anew, 0, responses)
        self._ended = ended
        if begin_anew.any():
            drawn = self.np_random.integers(len(self.prompts), size=int(begin_anew.sum()))
            self._prompts[begin_anew] = self.prompts[drawn]
        return self._observations(), rewards, ended.copy(), np.zeros_like(ended), {}


check_arguments(
    __name__,
    often=(
        "TokenGeneration.step",
        "TokenGenerationVectorEnv.step",
        "TokenGeneration.reset",
        "TokenGenerationVectorEnv.reset",
    ),
)
