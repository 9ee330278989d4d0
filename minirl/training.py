"""The loop: collect, transform rewards, estimate advantages, fit the critic, update the policy."""

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from minirl.algorithms import Algorithm
from minirl.batch import flatten
from minirl.history import History
from minirl.policy import Critic, Policy, empty_statistics, make_critic, make_policy, require_fit
from minirl.rollout import MakeEnv, NonFiniteError, collect, make_vector_env, start
from minirl.serialization import describe
from minirl.settings import Settings, default_algorithm, default_settings
from minirl.validation import require_count, require_methods, require_seed


@dataclass(frozen=True, eq=False)
class Result:
    """What training leaves.

    Parameters
    ----------
    policy : Policy
    critic : Critic
    history : History
    settings : dict
        JSON-ready: environment, algorithm, settings, total_steps and seed.
    """

    policy: Policy
    critic: Critic
    history: History
    settings: dict[str, Any]


class TrainingStopped(RuntimeError):
    """Training could not go on; `result` holds what was learned until then."""

    def __init__(self, reason: str, result: Result) -> None:
        super().__init__(reason)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would lose `result` on the way back from a worker process.
        return TrainingStopped, (str(self), self.result)


def train(
    env: MakeEnv,
    algorithm: str | Algorithm,
    *,
    total_steps: int,
    seed: int = 0,
    settings: Settings | None = None,
    policy: Policy | None = None,
    progress: bool = False,
) -> Result:
    """Train a policy.

    The same arguments give the same history, bit for bit, on the same machine.

    Parameters
    ----------
    env : str or callable
        A Gymnasium id, or a function num_envs -> VectorEnv.
    algorithm : str or Algorithm
        "policy-gradient", "natural-gradient", "trpo", "ppo" (with the defaults of
        `minirl.settings` for this environment), or any object with `init` and `update`.
    total_steps : int
        Environment steps (valid transitions); the last rollout is completed.
    seed : int
        Of environments, initial parameters, actions and minibatches.
    settings : Settings, optional
        Default: `default_settings(env, algorithm)`.
    policy : Policy, optional
        Where to start, instead of a fresh policy.
    progress : bool
        Show a progress bar.

    Raises
    ------
    ValueError
        For an unsupported environment, space or argument.
    TrainingStopped
        If the environment or the policy produced something non-finite, or on Ctrl-C. Its `result`
        holds what was learned.
    """
    if isinstance(algorithm, str):
        algorithm = default_algorithm(algorithm, env)
    if settings is None:
        settings = default_settings(env, algorithm)
    require_trainable(env, algorithm, total_steps, seed, settings)
    described = {
        "env": describe(env),
        "algorithm": describe(algorithm),
        "settings": describe(settings),
        "total_steps": int(total_steps),
        "seed": int(seed),
    }
    if policy is not None:
        described["initial_policy"] = "given"
    envs = make_vector_env(env, settings.num_envs)
    try:
        # The last bits of a matrix product depend on the number of threads, and small ones are
        # faster on one. Overflow shows as non-finite parameters, looked for after every update.
        with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
            return _train(envs, algorithm, total_steps, seed, settings, policy, progress, described)
    finally:
        envs.close()


def require_trainable(
    env: MakeEnv, algorithm: Algorithm, total_steps: int, seed: int, settings: Settings
) -> None:
    """Raise ValueError, before anything is computed or written, where `train` would refuse."""
    require_count("total_steps", total_steps)
    require_seed(seed)
    require_methods("algorithm", algorithm, "init", "update")
    envs = make_vector_env(env, 1)
    envs.close()
    spaces = envs.single_observation_space, envs.single_action_space
    make_policy(*spaces, np.random.default_rng(0))
    if settings.normalize_observations:
        empty_statistics(spaces[0])


def _train(
    envs: Any,
    algorithm: Algorithm,
    total_steps: int,
    seed: int,
    settings: Settings,
    policy: Policy | None,
    progress: bool,
    described: dict[str, Any],
) -> Result:
    streams = np.random.SeedSequence(seed).spawn(4)
    init_rng, action_rng, update_rng = (np.random.default_rng(stream) for stream in streams[1:])
    spaces = envs.single_observation_space, envs.single_action_space
    hidden_sizes, dtype = settings.hidden_sizes, settings.dtype
    if policy is None:
        policy = make_policy(
            *spaces,
            init_rng,
            hidden_sizes=hidden_sizes,
            initial_log_std=settings.initial_log_std,
            dtype=dtype,
        )
    require_fit(policy, *spaces)
    if settings.normalize_observations and policy.observation_statistics is None:
        policy = policy.with_observation_statistics(empty_statistics(spaces[0]))
    critic = make_critic(spaces[0], init_rng, hidden_sizes=hidden_sizes, dtype=dtype)
    critic = critic.with_observation_statistics(policy.observation_statistics)
    transform, fit = settings.reward_transform, settings.critic_fit
    state, critic_state = algorithm.init(policy), fit.init(critic)
    transform_state = transform.init(settings.num_envs) if transform else None

    history = History()
    began = time.thread_time()
    bar = tqdm(total=total_steps, unit="step", unit_scale=True, disable=not progress)
    try:
        position = start(envs, seed=int(streams[0].generate_state(1)[0]))
        while (steps := history.environment_steps) < total_steps:
            fraction = steps / total_steps
            # (1) collect
            rollout, position = collect(
                envs,
                state.policy,
                critic_state.critic,
                position,
                action_rng,
                steps=settings.rollout_steps,
            )
            if not rollout.valid.any():
                continue  # reset rows only: nothing happened
            # (2) transform the rewards
            metrics: dict[str, float] = {}
            shaped = rollout
            if transform:
                transform_state, rewards, metrics = transform.transform(
                    transform_state, rollout, state.policy
                )
                shaped = replace(rollout, rewards=rewards)
            # (3) estimate the advantages
            advantages, returns = settings.advantages(shaped)
            discount = settings.advantages.discount if settings.discount_states else 1.0
            batch = flatten(
                rollout,
                advantages,
                returns,
                state_discount=discount,
                dtype=state.policy.network.dtype,
            )
            # (4) fit the critic
            new_critic_state, fit_metrics = fit.fit(critic_state, batch, update_rng, fraction)
            # (5) update the policy
            new_state, update_metrics = algorithm.update(state, batch, update_rng, fraction)
            _require_finite(new_state.policy.parameters, "policy")
            _require_finite(new_critic_state.critic.parameters, "critic")
            # (6) only now learn the observation statistics, and go on
            state, critic_state = new_state, new_critic_state
            if settings.normalize_observations:
                state, critic_state = _with_new_statistics(state, critic_state, batch)
            history.record(
                rollout, {**update_metrics, **fit_metrics, **metrics}, time.thread_time() - began
            )
            bar.update(min(history.environment_steps, total_steps) - steps)
            bar.set_postfix(mean_return=f"{history.rows[-1]['mean_return']:.1f}")
    except (NonFiniteError, KeyboardInterrupt) as error:
        reason = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error)
        result = Result(state.policy, critic_state.critic, history, described)
        message = f"training stopped after {history.environment_steps} environment steps: {reason}"
        raise TrainingStopped(message, result) from error
    finally:
        bar.close()
    return Result(state.policy, critic_state.critic, history, described)


def _require_finite(parameters: np.ndarray, name: str) -> None:
    if not np.isfinite(parameters).all():
        raise NonFiniteError(
            f"the {name}'s parameters became non-finite; try a smaller learning rate"
        )


def _with_new_statistics(state: Any, critic_state: Any, batch: Any) -> tuple[Any, Any]:
    """Both states with this batch's observations added to the statistics."""
    statistics = state.policy.observation_statistics.update(batch.observations)
    return (
        replace(state, policy=state.policy.with_observation_statistics(statistics)),
        replace(critic_state, critic=critic_state.critic.with_observation_statistics(statistics)),
    )
