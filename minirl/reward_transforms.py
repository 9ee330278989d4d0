"""Reward transforms: functions of the raw rewards, from which the algorithm then learns.

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
    """The interface of a reward transform that `train` can use."""

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

    Learning rates then hardly depend on the scale of the rewards. Nothing is subtracted, since that
    would change which policy is best in tasks that end. Scaled rewards are clipped at 10.
    (VecNormalize in OpenAI Baselines.)

    Parameters
    ----------
    discount : float
        Discount of the sum, in [0, 1]; usually that of the task.
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
        """Scaled rewards (T, E); the statistics already include the rewards of this rollout."""
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
