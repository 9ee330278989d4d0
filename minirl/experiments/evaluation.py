"""How good a policy is: fresh episodes, and an animation of one."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv, VectorEnv, VectorWrapper

from minirl.batch import Rollout
from minirl.policy import Policy, require_fit
from minirl.rollout import (
    MakeEnv,
    collect_episodes,
    collect_fresh_episodes,
    make_vector_env,
    registered_id,
    require_environment_id,
    reset_seed,
    step_limit,
)
from minirl.support.arguments import check_arguments
from minirl.support.machine import one_core
from minirl.support.validation import MOST_ENVIRONMENTS, require_count, require_seed

_CANNOT_RENDER = (
    "{env} can't be rendered: {error}; pip install 'minirl-numpy[render]' brings what Gymnasium's "
    "own environments need, and without a screen MuJoCo's need the variable MUJOCO_GL=egl"
)
# Attributes of Gymnasium's wrappers, and what to do instead.
RUNNING_STATISTICS = {
    "obs_rms": "NormalizeObservation inside the environment starts with fresh statistics here, not "
    "with those that the policy was trained with; train with Settings(normalize_observations=True) "
    "instead, whose statistics belong to the policy",
    "return_rms": "NormalizeReward inside the environment scales the returns by statistics that "
    "start fresh here; train with Settings(reward_transform=ReturnScaling(discount)) instead, "
    "which leaves reported returns as they are",
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
        Episodes that had not ended after the largest number of steps, see `evaluate`; their returns
        so far are counted.
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
    """Run a policy for fresh episodes, with its observation statistics as they stand.

    Parameters
    ----------
    env : str or callable
        As for `train`.
    episodes : int
        All in parallel, one environment each.
    seed : int
        Of the environments and of sampled actions.
    greedy : bool
        Take the most probable action (the mean of a Gaussian) instead of sampling.
    max_steps : int, optional
        An episode is cut after this number of steps. Default: the environment's own time limit, or
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
    """Warn if a wrapper inside the environment learns statistics, which are fresh in new episodes.

    A wrapper whose statistics are frozen (`update_running_mean = False`) is left alone.
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


def watch(env: MakeEnv, policy: Policy, path: Path | str, *, seed: int = 0) -> float:
    """Save one greedy episode as an animated GIF and return its return.

    CartPole is drawn by minirl itself; other environments render themselves, which needs the
    `[render]` extra.

    Raises
    ------
    ValueError
        If the environment can't render frames, or `env` is not an id.
    """
    from minirl.experiments import figures  # matplotlib is loaded only to draw

    require_seed(seed)
    if not isinstance(env, str):
        raise ValueError(f"env must be a Gymnasium id to be rendered, got {env!r}")
    path = Path(path)
    if path.suffix != ".gif" or not path.parent.is_dir():
        raise ValueError(f"path must be a .gif in a folder that exists, got {str(path)!r}")
    if registered_id(env).startswith("CartPole-"):
        rollout, _ = _one_episode(policy, make_vector_env(env, 1), seed)
        observations = rollout.observations[rollout.valid]
        figures.animate_cartpole(observations, path, title=env)
    else:
        rollout, frames = _one_episode(policy, _rendering_env(env), seed)
        figures.save_gif(frames, path, fps=30)
    return float((rollout.rewards * rollout.valid).sum())


def _rendering_env(env: str) -> VectorEnv:
    """One environment, as a vector of one, that keeps every frame it renders."""

    require_environment_id(env)
    try:
        plain = gym.make(env)
    except (gym.error.Error, ImportError) as error:
        raise ValueError(f"environment {env!r} can't be made: {error}") from error
    modes = plain.metadata.get("render_modes", [])
    # MuJoCo's runners leave the picture, unless the camera goes with them.
    camera: dict[str, Any] = (
        {"camera_name": "track"} if hasattr(plain.unwrapped, "camera_name") else {}
    )
    plain.close()
    if "rgb_array" not in modes:
        raise ValueError(f"{env} draws no pictures: its render modes are {modes}, not rgb_array")

    class Drawn(gym.Wrapper[Any, Any, Any, Any]):
        def render(self) -> Any:
            try:
                return super().render()
            except Exception as error:  # each renderer has errors of its own
                raise ValueError(_CANNOT_RENDER.format(env=env, error=error)) from error

    def make() -> gym.Env[Any, Any]:
        single = gym.make(env, render_mode="rgb_array", **camera)
        return gym.wrappers.RenderCollection(Drawn(single), pop_frames=False)

    try:
        return SyncVectorEnv([make])
    except (gym.error.Error, ImportError, ValueError, TypeError) as error:
        raise ValueError(_CANNOT_RENDER.format(env=env, error=error)) from error


def _one_episode(policy: Policy, envs: VectorEnv, seed: int) -> tuple[Rollout, list[np.ndarray]]:
    try:
        require_fit(policy, envs.single_observation_space, envs.single_action_space)
        _warn_of_running_statistics(envs)
        rollout = collect_episodes(
            envs, policy, None, None, max_steps=step_limit(envs), seed=reset_seed(seed)
        )
        frames = envs.call("render")[0] if isinstance(envs, SyncVectorEnv) else []
    finally:
        envs.close()
    return rollout, list(frames)


check_arguments(__name__)
