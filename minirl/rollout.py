"""Rollouts of fixed length and of whole episodes. Only this file steps an environment."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from gymnasium import spaces
from gymnasium.vector import (
    VectorEnv,
)

from minirl.batch import Rollout
from minirl.policy import Critic, Policy, require_fit
from minirl.support.arguments import check_arguments
from minirl.support.failures import describe_error, environment_index, raised_by_minirl
from minirl.support.validation import (
    NonFiniteError,
    require_count,
    require_methods,
)
from minirl.vector_env import step_limit

FIRST_ROWS = 1000  # of whole episodes, for which memory is reserved
RETURNED = "environment {} returned"


class EndlessError(ValueError):
    """Whole episodes are required, and none ended."""


class EnvironmentFailure(RuntimeError):
    """An environment raised an exception, which is the `__cause__` of this one."""


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
    _require_finite(RETURNED, "observation", observations[None], 0)
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
    # Whole episodes may end long before their limit, so memory for them grows when it is needed.
    shape = min(steps, FIRST_ROWS) if whole_episodes else steps, envs.num_envs
    # Some environments return other numbers from `step` than from `reset`: none may be cut off.
    dtype = np.result_type(state.observations, envs.single_observation_space.dtype)
    observations = np.empty((shape[0] + 1, *state.observations.shape), dtype)
    rewards, time = np.empty(shape), np.empty(shape, dtype=np.int64)
    terminated, truncated, valid = np.empty((3, *shape), dtype=bool)
    observations[0] = state.observations
    ended, running = state.ended, ~state.ended
    episode_time, episode_return = state.time, state.returns
    transitions, episodes = 0, []
    for t in range(steps):
        # The policy acts. After an end, the environments ignore the action and reset.
        action = policy.act(observations[t], rng)
        if action.dtype.kind == "f" and not np.isfinite(action).all():
            _require_finite(RETURNED, "observation", observations[1 : t + 1], state.rows)
            _require_finite(
                "the policy chose for environment {}", "action", action[None], state.rows + t
            )
        if t == 0:
            actions = np.empty((shape[0], *action.shape), action.dtype)
        if t == len(rewards):
            observations, actions, rewards, time, terminated, truncated, valid = (
                np.concatenate([column, np.empty_like(column)])
                for column in (observations, actions, rewards, time, terminated, truncated, valid)
            )
        try:
            step = envs.step(to_environment(action))
        except Exception as error:
            _require_finite(RETURNED, "observation", observations[1 : t + 1], state.rows)
            _raise_named(error, f"at its step {state.rows + t}")
        actions[t] = action
        observations[t + 1], rewards[t], terminated[t], truncated[t] = step[:4]
        # Book-keeping of episodes.
        valid[t], time[t] = running, episode_time
        episode_time = episode_time + running
        episode_return = episode_return + np.where(running, rewards[t], 0.0)
        transitions += int(np.count_nonzero(running))
        ended = terminated[t] | truncated[t]
        if np.count_nonzero(ended):
            for e in np.flatnonzero(ended & running):
                episodes.append((transitions, episode_return[e], episode_time[e]))
            episode_time = np.where(ended, 0, episode_time)
            episode_return = np.where(ended, 0.0, episode_return)
        # The row after an end is a reset row; whole episodes are collected once per environment.
        running = running & ~ended if whole_episodes else ~ended
        if whole_episodes and not running.any():
            break
    rows = t + 1
    _require_finite(RETURNED, "observation", observations[1 : rows + 1], state.rows)
    _require_finite(RETURNED, "reward", rewards[:rows], state.rows)
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


def _require_finite(who: str, name: str, values: np.ndarray, first: int) -> None:
    """Raise NonFiniteError naming the environment and the step of the first NaN or infinity.

    `values` (n, E, ...) are those of the environments' steps first .. first + n - 1.
    """
    if np.isfinite(values).all():
        return
    row, column = map(int, np.argwhere(~np.isfinite(values))[0][:2])
    raise NonFiniteError(
        f"{who.format(column)} a non-finite {name} ({values[row, column]}) at its step "
        f"{first + row}"
    )


def _action_converter(space: spaces.Space[Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The function from actions to those the environment receives: Box actions are clipped."""
    if isinstance(space, spaces.Box):
        low, high, dtype = space.low, space.high, space.dtype
        # For one row np.clip takes twice as long.
        return lambda actions: np.minimum(np.maximum(actions, low), high).astype(dtype)
    return lambda actions: actions


check_arguments(__name__)
