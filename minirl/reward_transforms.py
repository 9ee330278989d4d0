"""Reward transforms: what learning sees instead of the environment's raw rewards.

`init(num_envs) -> state`, `transform(state, rollout, policy) -> (state, rewards, metrics)`. The
history always records raw returns, counted before any transform.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from minirl.batch import Rollout
from minirl.normalization import CLIP, RunningMoments
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.fields import Fraction, check_fields
from minirl.support.validation import require_count


class RewardTransform(Protocol):
    """What `train` needs of a reward transform."""

    def init(self, num_envs: int) -> Any: ...
    def transform(
        self, state: Any, rollout: Rollout, policy: Policy
    ) -> tuple[Any, np.ndarray, dict[str, float]]: ...


@dataclass(frozen=True, eq=False)
class ReturnScalingState:
    """The discounted sum of past rewards (E,) and the moments of all such sums."""

    sums: np.ndarray
    moments: RunningMoments


@dataclass(frozen=True)
class ReturnScaling:
    """Divide rewards by the running standard deviation of the discounted sum of past rewards.

    The scale of rewards then hardly matters to learning rates. Nothing is subtracted, since that
    would change which policy is best in tasks that end. Scaled rewards are clipped at 10.
    (VecNormalize in OpenAI Baselines.)

    Parameters
    ----------
    discount : float
        Of the sum, in [0, 1]; the task's own.
    """

    discount: Fraction = 0.99

    def __post_init__(self) -> None:
        check_fields(self)

    def init(self, num_envs: int) -> ReturnScalingState:
        """No rewards yet."""
        require_count("num_envs", num_envs)
        return ReturnScalingState(np.zeros(num_envs), RunningMoments.empty(()))

    def transform(
        self, state: ReturnScalingState, rollout: Rollout, policy: Policy
    ) -> tuple[ReturnScalingState, np.ndarray, dict[str, float]]:
        """Scaled rewards (T, E), with the rollout's own rewards already counted."""
        sums, history = state.sums, []
        for reward, valid, done in zip(rollout.rewards, rollout.valid, rollout.done, strict=True):
            sums = np.where(valid, self.discount * sums + reward, 0.0)
            history.append(sums)
            sums = np.where(done, 0.0, sums)
        moments = state.moments.update(np.stack(history)[rollout.valid])
        # A single reward, or always the same sum up to rounding, says nothing about the scale.
        std = float(np.sqrt(moments.variance))
        scale = std if std > moments.rounding(sums.dtype) else 1.0
        rewards = np.clip(rollout.rewards / scale, -CLIP, CLIP)
        return replace(state, sums=sums, moments=moments), rewards, {"reward_scale": scale}


check_arguments(__name__)
