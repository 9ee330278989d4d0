"""Everything that surrounds an algorithm's update: what the algorithms of a comparison share."""

from dataclasses import dataclass
from typing import Literal

from minirl.advantages import GAE, AdvantageEstimator
from minirl.batch import Per
from minirl.critic_fit import CriticFit, TableFit
from minirl.networks import require_log_std
from minirl.reward_transforms import RewardTransform
from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    MOST_ENVIRONMENTS,
    MOST_ROWS,
    require_count,
    require_flag,
    require_methods,
    require_whole,
)

# Names of `averaging`, and what `flatten` calls them.
AVERAGING: dict[str, Per] = {
    "sum": "episode",
    "response": "response",
    "group": "group",
    "tokens": "tokens",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that surrounds an algorithm's update.

    Parameters
    ----------
    num_envs : int
        Number E of parallel environments.
    rollout_steps : int
        Rows T of each environment between two updates; with whole episodes, their largest length.
    whole_episodes : bool
        Collect one whole episode per environment between two updates, instead of a fixed number of
        rows. Losses and KL are then sums over an episode, averaged over episodes, and minibatches
        consist of whole episodes.
    group_size : int
        Number of adjacent environments whose episodes share their first observation (see
        `collect_episodes`).
    averaging : {"sum", "response", "group", "tokens"}
        What losses are means over, for whole episodes. "sum": sums over an episode, averaged over
        episodes. "response": means over an episode, averaged over episodes. "group": means over all
        steps of a group, averaged over groups. "tokens": means over all steps of the batch. Only
        "sum" is the gradient of the expected return.
    mixed_groups : bool
        Replace groups whose returns are all equal by new ones until every group has different
        returns, as DAPO does. The replaced episodes count in the budget.
    sampling_lag : int
        The policy that acts is the one before the last `sampling_lag` updates. With 0 it is the
        current one, and with more the samples are off-policy.
    advantages : AdvantageEstimator
        The estimator; it contains the task's discount.
    hidden_sizes : tuple of int
        Widths of the hidden layers of actor and critic, for Box observations.
    initial_log_std : float
        Log standard deviation of a fresh Gaussian policy, for Box actions.
    min_log_std : float, optional
        Lower bound of this log standard deviation: after every step the parameters are projected
        onto it (see `WithLogStd`). The default, None, sets no bound.
    normalize_observations : bool
        Standardise observations by running statistics, which belong to the policy.
    reward_transform : RewardTransform, optional
        Applied to the rewards before advantages are estimated.
    critic_fit : CriticFit or TableFit
        How the critic is fitted to the returns.
    discount_states : bool
        Weight each transition by discount^time: required for an unbiased gradient of the
        discounted return (see `minirl.batch.flatten`), and rarely done in practice.
    dtype : {"float32", "float64"}
        Of networks; tables are always float64.

    Raises
    ------
    ValueError
        For a value outside its range, or values that do not fit together.
    """

    num_envs: int = 8
    rollout_steps: int = 256
    whole_episodes: bool = False
    group_size: int = 1
    averaging: Literal["sum", "response", "group", "tokens"] = "sum"
    mixed_groups: bool = False
    sampling_lag: int = 0
    advantages: AdvantageEstimator = GAE(discount=0.99, lam=0.95)
    hidden_sizes: tuple[int, ...] = (64, 64)
    initial_log_std: float = 0.0
    min_log_std: float | None = None
    normalize_observations: bool = False
    reward_transform: RewardTransform | None = None
    critic_fit: CriticFit | TableFit = CriticFit()
    discount_states: bool = False
    dtype: str = "float32"

    def __post_init__(self) -> None:
        require_count("num_envs", self.num_envs, most=MOST_ENVIRONMENTS)
        require_count("rollout_steps", self.rollout_steps, most=MOST_ROWS)
        require_flag("whole_episodes", self.whole_episodes)
        rows = self.num_envs * self.rollout_steps
        if rows > MOST_ROWS and not self.whole_episodes:
            raise ValueError(
                f"num_envs times rollout_steps must be at most {MOST_ROWS:,}, got {rows:,}: a "
                "rollout must fit into memory"
            )
        require_count("group_size", self.group_size)
        if self.num_envs % self.group_size:
            raise ValueError(
                f"group_size must divide num_envs, {self.num_envs}, got {self.group_size}"
            )
        if self.group_size > 1 and not self.whole_episodes:
            raise ValueError(f"group_size {self.group_size} requires whole_episodes=True")
        if self.averaging not in AVERAGING:
            choices = ", ".join(f'"{name}"' for name in AVERAGING)
            raise ValueError(f"averaging must be one of {choices}, got {self.averaging!r}")
        if self.averaging != "sum" and not self.whole_episodes:
            raise ValueError(f'averaging "{self.averaging}" requires whole_episodes=True')
        require_flag("mixed_groups", self.mixed_groups)
        if (self.averaging == "group" or self.mixed_groups) and self.group_size < 2:
            name = "mixed_groups" if self.mixed_groups else "averaging"
            raise ValueError(
                f"{name} {getattr(self, name)!r} requires a group_size of at least 2, got "
                f"{self.group_size}"
            )
        require_whole("sampling_lag", self.sampling_lag)
        if not isinstance(self.hidden_sizes, tuple):
            raise ValueError(f"hidden_sizes must be a tuple of widths, got {self.hidden_sizes!r}")
        for width in self.hidden_sizes:
            require_count("every width in hidden_sizes", width)
        require_log_std(self.initial_log_std, self.min_log_std)
        require_flag("normalize_observations", self.normalize_observations)
        require_flag("discount_states", self.discount_states)
        require_methods("advantages", self.advantages, "__call__", "discount")
        require_methods("critic_fit", self.critic_fit, "init", "fit")
        if self.reward_transform is not None:
            require_methods("reward_transform", self.reward_transform, "init", "transform")
        if self.dtype not in ("float32", "float64"):
            raise ValueError(f'dtype must be "float32" or "float64", got {self.dtype!r}')


check_arguments(__name__)
