"""Parallel environments: made from an id or a function, with Discrete spaces numbered from 0."""

import inspect
from collections.abc import Callable
from numbers import Integral
from typing import Annotated, Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
    VectorWrapper,
)
from gymnasium.vector.utils import batch_space

from minirl.support.arguments import check_arguments
from minirl.support.failures import describe_error
from minirl.support.validation import MOST_ENVIRONMENTS, described, require_count

MakeEnv = Annotated[
    str | Callable[[int], VectorEnv], "a Gymnasium id or a function num_envs -> VectorEnv"
]
FEWEST_AT_ONCE = 4  # CartPoles: from this number on, stepping all at once is faster
STEP_LIMIT = 1000  # for environments without a time limit of their own


def make_vector_env(env: MakeEnv, num_envs: int) -> VectorEnv:
    """Make E parallel environments from a Gymnasium id or from a function of E.

    Parameters
    ----------
    env : str or callable
        "CartPole-v1", or a function num_envs -> VectorEnv (module-level, if worker processes are
        to use it). Discrete states and actions that begin at another number than 0 are renumbered
        from 0. Fewer than four environments of CartPole are stepped one by one, with other random
        numbers than Gymnasium's vectorised CartPole.

    Raises
    ------
    ValueError
        For an id that Gymnasium can't make, anything else than an id or such a function, a function
        that returns closed environments or another number of them, or an autoreset mode other than
        NEXT_STEP.
    """
    require_count("num_envs", num_envs, most=MOST_ENVIRONMENTS)
    if isinstance(env, str):
        require_environment_id(env)
        try:
            envs = gym.make_vec(env, num_envs, _vectorization_mode(env, num_envs))
        except (gym.error.Error, ImportError) as error:
            raise ValueError(f"environment {env!r} can't be made: {error}") from error
        except Exception as error:  # raised by the environment's own class
            raise ValueError(
                f"environment {env!r} can't be made: {describe_error(error)}"
            ) from error
    elif callable(env):
        if not _takes(env, num_envs):
            raise ValueError(
                "env must be a function of one argument, num_envs, that returns a VectorEnv, got "
                f"{described(env)}"
            )
        envs = env(num_envs)
    else:
        raise ValueError(
            f"env must be a Gymnasium id or a function num_envs -> VectorEnv, got {described(env)}"
        )
    if not isinstance(envs, VectorEnv):
        raise ValueError(f"env must make a gymnasium.vector.VectorEnv, got {type(envs).__name__}")
    if getattr(envs.unwrapped, "closed", False):
        raise ValueError(
            f"env must make new environments at each call, got from env({num_envs}) ones that were "
            "closed after an earlier call"
        )
    if envs.num_envs != num_envs:
        envs.close()
        raise ValueError(
            f"env must make as many environments as its argument says, got {envs.num_envs} from "
            f"env({num_envs}); write the function like lambda num_envs: SyncVectorEnv([make_one] * "
            "num_envs)"
        )
    mode = envs.metadata.get("autoreset_mode")
    if mode is not AutoresetMode.NEXT_STEP:
        envs.close()
        raise ValueError(
            f"env resets itself in mode {mode}; minirl supports AutoresetMode.NEXT_STEP, "
            "Gymnasium's default"
        )
    return number_from_zero(envs)


def _vectorization_mode(env: str, num_envs: int) -> str | None:
    """The `vectorization_mode` for `gymnasium.make_vec`; None leaves the choice to Gymnasium.

    Gymnasium has a CartPole that steps all environments at once, and uses it for any number of
    them. For few environments, stepping them one by one is faster.
    """
    is_cartpole = registered_id(env) in ("CartPole-v0", "CartPole-v1")
    return "sync" if is_cartpole and num_envs < FEWEST_AT_ONCE else None


def number_from_zero(envs: VectorEnv) -> VectorEnv:
    """The environments with the states and actions of their Discrete spaces numbered from 0.

    Environments whose Discrete spaces start at 0, or which have none, are returned unchanged.
    """
    states, actions = envs.single_observation_space, envs.single_action_space
    if _first(states) == 0 and _first(actions) == 0:
        return envs
    return _NumberedFromZero(envs)


def _first(space: spaces.Space[Any]) -> int:
    """The smallest element of a Discrete space; 0 for other spaces."""
    return int(space.start) if isinstance(space, spaces.Discrete) else 0


class _NumberedFromZero(VectorWrapper):
    """Discrete states and actions that begin at another number than 0 are shifted to begin at 0."""

    def __init__(self, envs: VectorEnv) -> None:
        super().__init__(envs)
        states, actions = envs.single_observation_space, envs.single_action_space
        self.first_state, self.first_action = _first(states), _first(actions)
        if isinstance(states, spaces.Discrete):
            self.single_observation_space = spaces.Discrete(states.n)
            self.observation_space = batch_space(self.single_observation_space, envs.num_envs)
        if isinstance(actions, spaces.Discrete):
            self.single_action_space = spaces.Discrete(actions.n)
            self.action_space = batch_space(self.single_action_space, envs.num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._shifted(observations), infos

    def step(self, actions: Any) -> Any:
        observations, *others = self.env.step(actions + self.first_action)
        return self._shifted(observations), *others

    def _shifted(self, observations: Any) -> Any:
        return observations - self.first_state if self.first_state else observations


def require_environment_id(env: str) -> None:
    """Raise ValueError for an id that names a file or nothing before its colon."""
    module, colon, _ = env.rpartition(":")
    if colon and not all(part.isidentifier() for part in module.split(".")):
        raise ValueError(
            f"environment {env!r} can't be made: before the colon must be the name of a Python "
            f"module that can be imported, as in my_env:My-v0, got {module!r}"
        )


def _takes(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether the function can be called with these arguments, as far as it says so."""
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # some functions written in C have no signature
        return True
    return True


def registered_id(env: str) -> str:
    """The id under which Gymnasium has registered `env`: without a module, with a version.

    An id without a version means the highest one; an unknown id is returned without its module.

    >>> registered_id("gymnasium:Pendulum-v1"), registered_id("Pendulum")
    ('Pendulum-v1', 'Pendulum-v1')
    """
    name = env.rpartition(":")[2]
    if name in gym.registry:
        return name
    versions = [
        spec.version
        for spec in gym.registry.values()
        if spec.version is not None and spec.id == f"{name}-v{spec.version}"
    ]
    return f"{name}-v{max(versions)}" if versions else name


def reward_threshold(env: MakeEnv) -> float | None:
    """The return from which Gymnasium calls the environment solved, if it names one."""
    if isinstance(env, str) and registered_id(env) in gym.registry:
        return gym.spec(registered_id(env)).reward_threshold
    envs = make_vector_env(env, 1)
    envs.close()
    return envs.spec.reward_threshold if envs.spec else None


def step_limit(envs: VectorEnv) -> int:
    """The environment's time limit in steps, or 1,000 if it has none.

    Only a limit in force counts: the `TimeLimit` wrapper of each single environment, or the limit
    that an environment with a vector entry point was made with.
    """
    base = envs.unwrapped
    limits: list[Any] = []
    if isinstance(base, SyncVectorEnv | AsyncVectorEnv):
        name = "_max_episode_steps"  # of TimeLimit, which has no public name for it
        if all(base.call("has_wrapper_attr", name)):
            limits = list(base.call("get_wrapper_attr", name))
    else:
        spec = base.spec
        named = spec.kwargs.get("max_episode_steps", spec.max_episode_steps) if spec else None
        limits = [getattr(base, "max_episode_steps", named)]
    known = [int(limit) for limit in limits if isinstance(limit, Integral)]
    return max(known, default=STEP_LIMIT)


check_arguments(__name__)
