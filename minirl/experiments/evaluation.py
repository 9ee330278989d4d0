"""Evaluation of a policy: the returns of fresh episodes."""

import warnings
from dataclasses import dataclass

import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper

from minirl.policy import Policy
from minirl.rollout import collect_fresh_episodes
from minirl.support.arguments import check_arguments
from minirl.support.machine import one_core
from minirl.support.validation import MOST_ENVIRONMENTS, require_count, require_seed
from minirl.vector_env import MakeEnv, make_vector_env

# Attributes of Gymnasium's wrappers, and what to do instead.
RUNNING_STATISTICS = {
    "obs_rms": "NormalizeObservation inside the environment starts with new statistics here, and "
    "not with those of the training; train with Settings(normalize_observations=True) instead, "
    "which stores the statistics in the policy",
    "return_rms": "NormalizeReward inside the environment divides the returns by statistics that "
    "are new here; train with Settings(reward_transform=ReturnScaling(discount)) instead, which "
    "does not change the reported returns",
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Returns of fresh episodes.

    Parameters
    ----------
    returns : ndarray (episodes,)
        Undiscounted raw returns.
    lengths : ndarray (episodes,)
        Steps.
    cut : int
        Number of episodes that were cut because they had not ended, see `evaluate`. Their returns
        up to the cut are counted.
    """

    returns: np.ndarray
    lengths: np.ndarray
    cut: int

    @property
    def mean(self) -> float:
        """Mean return."""
        return float(self.returns.mean())

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Percentile-bootstrap interval of the mean return; nan for a single episode."""
        from minirl.experiments.statistics import bootstrap_interval  # scipy.stats loads slowly

        rng = np.random.default_rng(0)
        return bootstrap_interval(self.returns, rng, statistic=np.mean, confidence=confidence)


def evaluate(
    env: MakeEnv,
    policy: Policy,
    *,
    episodes: int = 100,
    seed: int = 0,
    greedy: bool = True,
    max_steps: int | None = None,
) -> Evaluation:
    """Run a policy for fresh episodes; its observation statistics do not change.

    Parameters
    ----------
    env : str or callable
        As for `train`.
    episodes : int
        Number of episodes. All run in parallel, each in its own environment.
    seed : int
        Seed of the environments and of sampled actions.
    greedy : bool
        Take the most probable action (the mean of a Gaussian) instead of sampling.
    max_steps : int, optional
        Number of steps after which an episode is cut. Default: the environment's own time limit, or
        1,000 if it has none.
    """
    require_count("episodes", episodes, most=MOST_ENVIRONMENTS)
    require_seed(seed)
    envs = make_vector_env(env, episodes)
    try:
        _warn_of_running_statistics(envs)
        with one_core():
            rollout = collect_fresh_episodes(
                policy, envs, seed=seed, greedy=greedy, max_steps=max_steps
            )
    finally:
        envs.close()
    return Evaluation(
        (rollout.rewards * rollout.valid).sum(axis=0),
        rollout.valid.sum(axis=0),
        episodes - len(rollout.episode_returns),
    )


def _warn_of_running_statistics(envs: VectorEnv) -> None:
    """Warn if a wrapper in the environment learns statistics: those of training are not used here.

    There is no warning for a wrapper with frozen statistics (`update_running_mean = False`).
    """
    learning = set()
    while isinstance(envs, VectorWrapper):
        if getattr(envs, "update_running_mean", False):
            learning |= RUNNING_STATISTICS.keys() & vars(envs).keys()
        envs = envs.env
    if isinstance(envs, SyncVectorEnv | AsyncVectorEnv):
        flag = "update_running_mean"
        for name in RUNNING_STATISTICS:
            normalised = all(envs.call("has_wrapper_attr", name))
            if normalised and all(envs.call("get_wrapper_attr", flag)):
                learning.add(name)
    for name in sorted(learning):
        warnings.warn(RUNNING_STATISTICS[name], RuntimeWarning, stacklevel=4)


check_arguments(__name__)
