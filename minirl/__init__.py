"""minirl: the textbook that runs.

Policy gradient, natural gradient, TRPO, PPO, GAE, RLHF and DPO from scratch in NumPy, each equation
one function, tested against an exact truth. The public names stand below in the order one learns
them; the exact truths and the alignment chain are packages of their own:
`from minirl import exact, rlhf`.
"""

import minirl.support.interrupts  # noqa: F401  # first: Ctrl-C may come while the others are imported

# isort: split
from minirl.advantages import GAE, GroupNormalized, LeaveOneOut, RewardToGo
from minirl.algorithms import ALGORITHMS, PPO, TRPO, Algorithm, NaturalGradient, PolicyGradient
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.batch import Batch, Rollout, flatten
from minirl.critic_fit import CriticFit, TableFit
from minirl.distributions import Categorical, DiagonalGaussian
from minirl.envs import register_environments
from minirl.experiments.compare import Comparison, compare
from minirl.experiments.evaluation import Evaluation, evaluate, watch
from minirl.networks import MLP, Linear, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.policy import Critic, Policy, make_critic, make_policy
from minirl.reward_transforms import ReturnScaling
from minirl.rollout import (
    EnvironmentFailure,
    NonFiniteError,
    collect,
    collect_episodes,
    make_vector_env,
    reset,
)
from minirl.settings import PRESETS, Preset, Settings, default_algorithm, default_settings
from minirl.solvers import backtracking_line_search, conjugate_gradient
from minirl.support.checkpoint import CheckpointError
from minirl.support.history import History, ReturnReached
from minirl.support.serialization import PolicyFileError, load_policy, save_policy
from minirl.training import Result, TrainingStopped, train

register_environments()

__all__ = [
    # what a policy is
    "Categorical",
    "DiagonalGaussian",
    "MLP",
    "Linear",
    "Table",
    "WithLogStd",
    "RunningMoments",
    "Policy",
    "Critic",
    "make_policy",
    "make_critic",
    # data
    "make_vector_env",
    "reset",
    "collect",
    "collect_episodes",
    "NonFiniteError",
    "EnvironmentFailure",
    "Rollout",
    "Batch",
    "flatten",
    "GAE",
    "RewardToGo",
    "LeaveOneOut",
    "GroupNormalized",
    "ReturnScaling",
    # learning
    "SGD",
    "Adam",
    "LinearSchedule",
    "conjugate_gradient",
    "backtracking_line_search",
    "CriticFit",
    "TableFit",
    "Algorithm",
    "ALGORITHMS",
    "PolicyGradient",
    "NaturalGradient",
    "TRPO",
    "PPO",
    "Clipped",
    "Unclipped",
    "FixedKL",
    "AdaptiveKL",
    # experiments
    "Settings",
    "Preset",
    "PRESETS",
    "default_algorithm",
    "default_settings",
    "train",
    "Result",
    "TrainingStopped",
    "CheckpointError",
    "History",
    "ReturnReached",
    "evaluate",
    "Evaluation",
    "compare",
    "Comparison",
    "watch",
    "save_policy",
    "load_policy",
    "PolicyFileError",
]
