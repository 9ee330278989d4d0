"""The only file that steps an environment: fixed-length rollouts and whole episodes."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Annotated, Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
    VectorWrapper,
)
from gymnasium.vector.utils import batch_space

from minirl.batch import Rollout
from minirl.policy import Critic, Policy, require_fit
from minirl.support.arguments import check_arguments
from minirl.support.failures import describe_error, environment_index, raised_by_minirl
from minirl.support.validation import (
    MOST_ENVIRONMENTS,
    NonFiniteError,
    require_count,
    require_methods,
)

MakeEnv = Annotated[
    str | Callable[[int], VectorEnv], "a Gymnasium id or a function num_envs -> VectorEnv"
]
STEP_LIMIT = 1000  # for environments without a time limit of their own

RETURNED = "environment {} returned"


class EndlessError(ValueError):
    """Whole episodes are required, and none ended."""


class EnvironmentFailure(RuntimeError):
    """An environment raised an exception, which is the `__cause__` of this one."""


def make_vector_env(env: MakeEnv, num_envs: int) -> VectorEnv:
    """Make E parallel environments from a Gymnasium id or from a function of E.

    Parameters
    ----------
    env : str or callable
        "CartPole-v1", or a function num_envs -> VectorEnv (module-level, if worker processes are
        to use it). Discrete states and actions that begin at another number than 0 are renumbered
        from 0.

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
            envs = gym.make_vec(env, num_envs=num_envs)
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
                f"{env!r}"
            )
        envs = env(num_envs)
    else:
        raise ValueError(
            f"env must be a Gymnasium id or a function num_envs -> VectorEnv, got {env!r}"
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


@dataclass(frozen=True, eq=False)
class EnvState:
    """The state of E environments between two rollouts, as far as the learner knows it.

    Parameters
    ----------
    observations : ndarray (E, ...)
        The current observations.
    ended : ndarray (E,) of bool
        Whether the last row ended an episode, so that the next one is a reset row.
    time : ndarray (E,) of int
        Steps already taken in the current episode; 0 after an end.
    returns : ndarray (E,)
        Sum of the undiscounted rewards already received in the current episode; 0 after an end.
    rows : int
        Rows stepped since the reset.
    """

    observations: np.ndarray
    ended: np.ndarray
    time: np.ndarray
    returns: np.ndarray
    rows: int


def reset(envs: VectorEnv, *, seed: int | None, options: dict[str, Any] | None = None) -> EnvState:
    """Reset all environments.

    Raises
    ------
    EnvironmentFailure
        If an environment raises an exception.
    """
    require_methods("envs", envs, "num_envs", "reset", "step")
    try:
        observations, _ = envs.reset(seed=seed, options=options)
    except Exception as error:
        _raise_named(error, "in its reset")
    observations = np.array(observations)
    _require_finite_row(RETURNED, "observation", observations, 0)
    zeros = np.zeros(envs.num_envs)
    return EnvState(observations, zeros > 0, zeros.astype(int), zeros, 0)


def collect(
    envs: VectorEnv,
    policy: Policy,
    critic: Critic | None,
    state: EnvState,
    rng: np.random.Generator,
    *,
    steps: int,
) -> tuple[Rollout, EnvState]:
    """Act for `steps` rows in each environment, from `state` on; also returns the next state.

    Without a critic all values are 0.

    Raises
    ------
    NonFiniteError
        Naming the step and the environment that returned a NaN or an infinity.
    EnvironmentFailure
        Naming the step and the environment that raised an exception, and its place in the code.
    """
    require_count("steps", steps)
    return _collect(envs, policy, critic, state, rng, steps, whole_episodes=False)


def collect_episodes(
    envs: VectorEnv,
    policy: Policy,
    critic: Critic | None,
    rng: np.random.Generator | None,
    *,
    max_steps: int,
    seed: int | None = None,
    group_size: int = 1,
) -> Rollout:
    """Reset, then collect one episode per column; rows after its end are invalid.

    The rollout lists its episodes column by column, all as ending with its last transition.

    Parameters
    ----------
    rng : Generator or None
        None takes the most probable action instead of sampling.
    max_steps : int
        Episodes still running after this many steps are cut, neither terminated nor truncated.
    seed
        Passed to the environments' reset; None goes on with their random streams.
    group_size : int
        Number of adjacent columns that share their first observation (`Rollout.group`). The
        environments receive it by reset(options={"group_size": ...}).

    Raises
    ------
    ValueError
        If the environments do not begin alike within a group.
    """
    require_count("max_steps", max_steps)
    require_count("group_size", group_size)
    options = {"group_size": group_size} if group_size > 1 else None
    state = reset(envs, seed=seed, options=options)
    group = np.arange(envs.num_envs) // group_size
    if not np.array_equal(state.observations, state.observations[group * group_size]):
        raise ValueError(
            f"group_size {group_size} needs an environment whose reset takes the option "
            '"group_size", as minirl/TokenGeneration-v0 does; this one begins differently within '
            "a group"
        )
    rollout = _collect(envs, policy, critic, state, rng, max_steps, whole_episodes=True)[0]
    # Column by column: in the order of their ends, the last episodes would be the longest ones.
    finished = (rollout.done & rollout.valid).any(axis=0)
    return replace(
        rollout,
        group=group if group_size > 1 else None,
        episode_ends=np.full(finished.sum(), rollout.valid.sum()),
        episode_returns=(rollout.rewards * rollout.valid).sum(axis=0)[finished],
        episode_lengths=rollout.valid.sum(axis=0)[finished],
    )


def collect_fresh_episodes(
    policy: Policy,
    envs: VectorEnv,
    *,
    seed: int,
    greedy: bool,
    max_steps: int | None = None,
) -> Rollout:
    """One episode in each of some new environments.

    Parameters
    ----------
    seed : int
        Of the environments and of sampled actions.
    greedy : bool
        Take the most probable action instead of sampling.
    max_steps : int, optional
        An episode is cut after this number of steps. Default: `step_limit`.

    Raises
    ------
    ValueError
        If the policy does not fit the environment's spaces.
    """
    rng = None if greedy else np.random.default_rng(seed)
    require_fit(policy, envs.single_observation_space, envs.single_action_space)
    limit = step_limit(envs) if max_steps is None else max_steps
    return collect_episodes(envs, policy, None, rng, max_steps=limit, seed=reset_seed(seed))


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


def reset_seed(seed: int) -> int:
    """A seed far from those of neighbours: parallel environments are given seed, seed + 1, ..."""
    return int(np.random.SeedSequence(seed).generate_state(1)[0])


def _collect(
    envs: VectorEnv,
    policy: Policy,
    critic: Critic | None,
    state: EnvState,
    rng: np.random.Generator | None,
    steps: int,
    *,
    whole_episodes: bool,
) -> tuple[Rollout, EnvState]:
    """Step until `steps` rows are full or, with `whole_episodes`, every first episode has ended."""
    to_environment = _action_converter(envs.single_action_space)
    shape = steps, envs.num_envs
    observations = np.empty((steps + 1, *state.observations.shape), state.observations.dtype)
    rewards, time = np.empty(shape), np.empty(shape, dtype=np.int64)
    terminated, truncated, valid = np.empty((3, *shape), dtype=bool)
    observations[0] = state.observations
    ended, ended_before = state.ended, np.zeros(envs.num_envs, dtype=bool)
    episode_time, episode_return = state.time, state.returns
    transitions, episodes = 0, []
    for t in range(steps):
        # The policy acts. After an end, the environments ignore the action and reset.
        action = policy.act(observations[t], rng)
        _require_finite_row("the policy chose for environment {}", "action", action, state.rows + t)
        if t == 0:
            actions = np.empty((steps, *action.shape), action.dtype)
        try:
            step = envs.step(to_environment(action))
        except Exception as error:
            _raise_named(error, f"at its step {state.rows + t}")
        actions[t] = action
        observations[t + 1], rewards[t], terminated[t], truncated[t] = step[:4]
        _require_finite_row(RETURNED, "observation", observations[t + 1], state.rows + t)
        _require_finite_row(RETURNED, "reward", rewards[t], state.rows + t)
        # Book-keeping of episodes.
        valid[t] = ~(ended | ended_before)
        time[t] = episode_time
        ended = terminated[t] | truncated[t]
        episode_time = episode_time + valid[t]
        episode_return = episode_return + np.where(valid[t], rewards[t], 0.0)
        transitions += int(np.count_nonzero(valid[t]))
        for e in np.flatnonzero(ended & valid[t]):
            episodes.append((transitions, episode_return[e], episode_time[e]))
        episode_time = np.where(ended, 0, episode_time)
        episode_return = np.where(ended, 0.0, episode_return)
        if whole_episodes:
            ended_before |= ended
            if ended_before.all():
                break
    rows = t + 1
    # Log-probabilities and values are computed for all rows at once, which is faster.
    seen = observations[: rows + 1].reshape(-1, *observations.shape[2:])
    values = np.zeros(len(seen)) if critic is None else critic.values(seen)
    values = values.reshape(rows + 1, -1)
    chosen = actions[:rows].reshape(-1, *actions.shape[2:])
    log_probs = policy(seen[: len(chosen)]).log_prob(chosen)
    if not np.isfinite(log_probs).all():
        raise NonFiniteError("the policy's log-probabilities became non-finite")
    ends, returns, lengths = zip(*episodes, strict=True) if episodes else ((), (), ())
    rollout = Rollout(
        observations=observations[:rows],
        actions=actions[:rows],
        log_probs=log_probs.reshape(rows, -1),
        rewards=rewards[:rows],
        values=values[:-1],
        next_values=values[1:],
        terminated=terminated[:rows],
        truncated=truncated[:rows],
        valid=valid[:rows],
        time=time[:rows],
        episode_ends=np.array(ends, dtype=np.int64),
        episode_returns=np.array(returns, dtype=np.float64),
        episode_lengths=np.array(lengths, dtype=np.int64),
    )
    last = observations[rows].copy()  # a view would keep the whole rollout in memory
    return rollout, EnvState(last, ended, episode_time, episode_return, state.rows + rows)


def _raise_named(error: Exception, when: str) -> NoReturn:
    """Raise EnvironmentFailure from an environment's exception; minirl's own pass unchanged."""
    if raised_by_minirl(error):
        raise error
    index = environment_index(error)
    who = "an environment" if index is None else f"environment {index}"
    raise EnvironmentFailure(f"{who} failed {when}: {describe_error(error)}") from error


def _require_finite_row(who: str, name: str, values: np.ndarray, row: int) -> None:
    """Raise NonFiniteError naming the environment and the row (one cheap test if all is well)."""
    if np.isfinite(values).all():
        return
    column = int(np.argwhere(~np.isfinite(values))[0][0])
    raise NonFiniteError(
        f"{who.format(column)} a non-finite {name} ({values[column]}) at its step {row}"
    )


def _action_converter(space: spaces.Space[Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from actions to those the environment receives: Box actions are clipped."""
    if isinstance(space, spaces.Box):
        low, high, dtype = space.low, space.high, space.dtype
        return lambda actions: np.clip(actions, low, high).astype(dtype)
    return lambda actions: actions


check_arguments(__name__)
