"""minirl: the textbook that runs.

Policy gradient, natural gradient, TRPO, PPO, GAE, RLHF and DPO from scratch in NumPy. Each equation
is one function, tested against an exact result. The public names are listed below in the order in
which one learns them. The exact results, `minirl.exact`, and the alignment of language models,
`minirl.rlhf`, are packages of their own, which are loaded when they are first used.
"""

import minirl.support.interrupts  # first: Ctrl-C may come while the others are imported

# isort: split
import minirl.browser  # noqa: F401  # before Gymnasium is imported

# isort: split
import importlib
from typing import TYPE_CHECKING

from minirl.advantages import GAE, GroupNormalized, LeaveOneOut, RewardToGo
from minirl.algorithms import ALGORITHMS, PPO, TRPO, Algorithm, NaturalGradient, PolicyGradient
from minirl.algorithms.ppo import AdaptiveKL, Clipped, FixedKL, Unclipped
from minirl.batch import Batch, Rollout, flatten
from minirl.critic_fit import CriticFit, TableFit
from minirl.distributions import Categorical, DiagonalGaussian
from minirl.envs import register_environments
from minirl.experiments.animation import watch
from minirl.experiments.compare import Comparison, compare
from minirl.experiments.evaluation import Evaluation, evaluate
from minirl.networks import MLP, Features, Linear, Table, WithLogStd
from minirl.normalization import RunningMoments
from minirl.optimizers import SGD, Adam, LinearSchedule
from minirl.policy import Critic, Policy, make_critic, make_policy
from minirl.presets import PRESETS, Preset, preset
from minirl.reward_transforms import ReturnScaling
from minirl.rollout import EnvironmentFailure, NonFiniteError, collect, collect_episodes, reset
from minirl.settings import Settings
from minirl.solvers import backtracking_line_search, conjugate_gradient
from minirl.support.checkpoint import CheckpointError
from minirl.support.history import History, ReturnReached
from minirl.support.serialization import PolicyFileError, load_policy, save_policy
from minirl.training import Result, TrainingStopped, train
from minirl.vector_env import make_vector_env

if TYPE_CHECKING:
    from minirl import checks as checks
    from minirl import exact as exact
    from minirl import exercises as exercises
    from minirl import rlhf as rlhf
else:
    # SciPy's linear algebra, which `exact` imports, loads slowly, and training does not need it.
    ON_DEMAND = ("checks", "exact", "exercises", "rlhf")

    def __getattr__(name):
        if name in ON_DEMAND:
            return importlib.import_module(f"minirl.{name}")
        raise AttributeError(f"module 'minirl' has no attribute {name!r}")

    def __dir__():
        return sorted([*globals(), *ON_DEMAND])


register_environments()

__all__ = [
    # what a policy is
    "Categorical",
    "DiagonalGaussian",
    "MLP",
    "Features",
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
    "preset",
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
