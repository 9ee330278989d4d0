"""The loop, for control and for language models alike, in three stages::

    rollout        the policy acts                                  -> Rollout (T, E)
    advantages     rewards are transformed, advantages estimated    -> Batch (N,)
    optimisation   the critic is fitted, the policy updated         -> Learner

and again, until the budget is spent.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from tqdm import tqdm

from minirl.algorithms import Algorithm
from minirl.batch import Batch, Rollout, flatten
from minirl.mixed_groups import collect_mixed_groups
from minirl.optimizers import at_progress
from minirl.policy import Critic, Policy, empty_statistics, make_critic, make_policy, require_fit
from minirl.presets import Preset, explain_fields, resolve
from minirl.rollout import (
    EndlessError,
    EnvironmentFailure,
    EnvState,
    NonFiniteError,
    collect,
    collect_episodes,
    collect_fresh_episodes,
    reset,
)
from minirl.settings import AVERAGING, Settings
from minirl.support.arguments import check_arguments
from minirl.support.checkpoint import Checkpoints, RunState
from minirl.support.failures import describe_error, raised_by_minirl
from minirl.support.history import History
from minirl.support.interrupts import hold_interrupts
from minirl.support.machine import one_core
from minirl.support.serialization import describe
from minirl.support.validation import (
    MOST_STEPS,
    require_count,
    require_instance,
    require_methods,
    require_seed,
)
from minirl.vector_env import MakeEnv, make_vector_env

# Mean KL of one update, in nats per step, from which `train` warns: the old policy's actions are
# then, in the mean of their logarithms, exp(10) = 22,000 times less probable under the new policy.
COLLAPSE_KL = 10.0


@dataclass(frozen=True, eq=False)
class Result:
    """The result of a training run.

    Parameters
    ----------
    policy : Policy
    critic : Critic
    history : History
    description : dict
        JSON-ready. The arguments: `env`, `algorithm`, `settings`, `total_steps` or
        `total_episodes`, `seed`. The run: `environment_steps`, and `partial`, which is True
        if training stopped before its end. `environments_reset_at` lists the environment steps at
        which the run was resumed from environments that a checkpoint could not restore.
    best_policy : Policy or None
        The policy with the highest `evaluation_return` in the history, the earliest of equals; None
        without `evaluate_every`.
    """

    policy: Policy
    critic: Critic
    history: History
    description: dict[str, Any]
    best_policy: Policy | None = None


class TrainingStopped(RuntimeError):
    """Training could not go on; `result` holds what was learned until then."""

    def __init__(self, reason: str, result: Result) -> None:
        super().__init__(reason)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        # The default would lose `result` on the way back from a worker process.
        return TrainingStopped, (str(self), self.result)


@dataclass(frozen=True, eq=False)
class Learner:
    """Everything that learning changes, as immutable states.

    Parameters
    ----------
    state
        The algorithm's; its field `policy` is the current policy.
    critic_state
        The critic fit's; its field `critic` is the current critic.
    transform_state
        The reward transform's; None without one.
    earlier_policies : tuple of Policy
        The policies before the last updates, the oldest first; as many as `sampling_lag`.
    """

    state: Any
    critic_state: Any
    transform_state: Any
    earlier_policies: tuple[Policy, ...] = ()

    @property
    def policy(self) -> Policy:
        """The current policy."""
        policy: Policy = self.state.policy
        return policy

    @property
    def sampling_policy(self) -> Policy:
        """The policy that acts: the oldest of the earlier ones, or else the current one."""
        return self.earlier_policies[0] if self.earlier_policies else self.policy

    @property
    def critic(self) -> Critic:
        """The current critic."""
        critic: Critic = self.critic_state.critic
        return critic


def new_learner(
    algorithm: Algorithm, settings: Settings, policy: Policy, critic: Critic
) -> Learner:
    """The states before the first update."""
    transform = settings.reward_transform
    return Learner(
        algorithm.init(policy),
        settings.critic_fit.init(critic),
        transform.init(settings.num_envs) if transform else None,
    )


def rollout_stage(
    envs: VectorEnv,
    learner: Learner,
    settings: Settings,
    env_state: EnvState,
    rng: np.random.Generator,
) -> tuple[Rollout, EnvState]:
    """Let the policy act: whole episodes, or `rollout_steps` rows from `env_state` on.

    Raises
    ------
    EndlessError
        If episodes should be whole and none of them ended, or if groups should have different
        returns and hardly any has.
    """
    policy = learner.sampling_policy
    if settings.whole_episodes:
        collect_groups = partial(
            collect_episodes,
            envs,
            policy,
            learner.critic,
            rng,
            max_steps=settings.rollout_steps,
            group_size=settings.group_size,
        )
        if settings.mixed_groups:
            groups = settings.num_envs // settings.group_size
            return collect_mixed_groups(collect_groups, groups), env_state
        rollout = collect_groups()
        if len(rollout.episode_ends) == 0:
            raise EndlessError(
                f"no episode ended within rollout_steps, {settings.rollout_steps}; raise it"
            )
        return rollout, env_state
    steps = settings.rollout_steps
    return collect(envs, policy, learner.critic, env_state, rng, steps=steps)


def advantage_stage(
    rollout: Rollout, learner: Learner, settings: Settings
) -> tuple[Batch, Learner, dict[str, float]]:
    """Transform the rewards, estimate the advantages and keep the valid rows."""
    metrics: dict[str, float] = {}
    shaped, transform = rollout, settings.reward_transform
    if transform:
        state, rewards, metrics = transform.transform(
            learner.transform_state, rollout, learner.sampling_policy
        )
        learner = replace(learner, transform_state=state)
        shaped = replace(rollout, rewards=rewards)
    advantages, returns = settings.advantages(shaped)
    batch = flatten(
        rollout,
        advantages,
        returns,
        per=AVERAGING[settings.averaging] if settings.whole_episodes else "transition",
        state_discount=settings.advantages.discount if settings.discount_states else 1.0,
        dtype=learner.policy.network.dtype,
    )
    return batch, learner, metrics


def optimisation_stage(
    batch: Batch,
    learner: Learner,
    algorithm: Algorithm,
    settings: Settings,
    rng: np.random.Generator,
) -> tuple[Learner, dict[str, float]]:
    """Learn from the batch: fit the critic, then update the policy.

    The observation statistics are updated last, so that policy and critic see the batch normalised
    as it was when the policy acted.

    Parameters
    ----------
    algorithm, settings
        With a number in place of each `LinearSchedule`: see `minirl.optimizers.at_progress`.

    Raises
    ------
    NonFiniteError
        If the parameters of policy or critic became non-finite.
    """
    critic_state, fit_metrics = settings.critic_fit.fit(learner.critic_state, batch, rng)
    state, update_metrics = algorithm.update(learner.state, batch, rng)
    _require_finite("policy", state.policy.parameters, learner.policy.parameters)
    _require_finite("critic", critic_state.critic.parameters, learner.critic.parameters)
    if settings.normalize_observations:
        state, critic_state = _with_new_statistics(state, critic_state, batch)
    earlier = (*learner.earlier_policies, learner.policy)
    learner = replace(
        learner,
        state=state,
        critic_state=critic_state,
        earlier_policies=earlier[max(0, len(earlier) - settings.sampling_lag) :],
    )
    return learner, {**update_metrics, **fit_metrics}


Measure = Callable[[Policy], Mapping[str, float]]
Stop = Callable[[History], bool]
EVALUATION_EPISODES = 10  # of each evaluation during training


@explain_fields
def train(
    env: MakeEnv,
    algorithm: str | Preset | Algorithm,
    *,
    total_steps: int | None = None,
    total_episodes: int | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    policy: Policy | None = None,
    measure: Measure | None = None,
    stop: Stop | None = None,
    evaluate_every: int | None = None,
    checkpoint: Path | str | None = None,
    checkpoint_every: int | None = None,
    resume: Path | str | None = None,
    progress: bool = False,
) -> Result:
    """Train a policy.

    The same arguments give the same history, bit for bit, on the same machine, also if training was
    interrupted and resumed from a checkpoint.

    Parameters
    ----------
    env : str or callable
        A Gymnasium id, or a function num_envs -> VectorEnv.
    algorithm : str, Preset or Algorithm
        "policy-gradient", "natural-gradient", "trpo", "ppo" or another name of `PRESETS[env]`; a
        changed `preset(env, name)`; or any object with `init` and `update`.
    total_steps : int
        Environment steps (valid transitions); the last rollout is completed.
    total_episodes : int
        Finished episodes, instead of `total_steps`; the natural budget where episodes are whole.
    seed : int
        Of environments, initial parameters, actions and minibatches.
    settings : Settings, optional
        Default: those of the preset. An algorithm object gets the settings of the environment's
        presets of its class, if these agree; if there are none, those of "ppo".
    policy : Policy, optional
        Where to start, instead of a fresh policy. A logit of -inf in its parameters excludes an
        action, which stays excluded.
    measure : callable, optional
        measure(policy) -> numbers to record beside each update, of the policy that acted; an exact
        return, for example. Each must be defined in the GLOSSARY of `minirl.support.metrics`.
    stop : callable, optional
        stop(history) -> bool, called after each update; True ends training before its budget is
        spent. For example `ReturnReached(475)`.
    evaluate_every : int, optional
        Evaluate the policy after about this many environment steps, and once more at the end of
        the budget: greedily, on 10 fresh episodes, the same ones each time. The mean return is
        recorded as `evaluation_return`; the best policy becomes `Result.best_policy`.
    checkpoint : path, optional
        File to save checkpoints in, at the start, about every `checkpoint_every` environment steps,
        and at the end. A killed run loses no more than one interval.
    checkpoint_every : int, optional
        Given together with `checkpoint`.
    resume : path, optional
        A checkpoint of a call with the same arguments, from which training goes on. It restores
        everything that training changes, also the environments if their state can be pickled. Where
        it cannot (environments in worker processes, Box2D), the environments are reset, and
        `Result.description["environments_reset_at"]` says so. **A checkpoint is a pickle, which can
        execute any code: resume only from checkpoints that you made yourself.**
    progress : bool
        Show a progress bar.

    With `total_episodes`, `evaluate_every` and `checkpoint_every` count finished episodes.

    Warns
    -----
    RuntimeWarning
        Once, if an update moves the policy by a mean KL of more than 10 nats per step: nothing else
        shows that such an update has undone the learning before it.

    Raises
    ------
    ValueError
        For an unsupported environment, space or argument.
    CheckpointError
        If `resume` is damaged or belongs to another run. Schedules depend on the budget, so a run
        with another `total_steps` is another run.
    TrainingStopped
        If the environment or the policy produced something non-finite, if whole episodes don't
        end, if the environment, the algorithm or `measure` raised an exception, or on Ctrl-C. Its
        `result` holds what was learned.
    """
    if settings is not None:
        require_instance("settings", settings, Settings)
    chosen = resolve(env, algorithm, settings, policy)
    algorithm, settings = chosen.algorithm, chosen.settings
    budget = _Budget(total_steps, total_episodes)
    require_seed(seed)
    require_methods("algorithm", algorithm, "init", "update")
    if policy is not None:
        require_instance("policy", policy, Policy)
    if stop is not None and not callable(stop):
        raise ValueError(f"stop must be a function history -> bool, got {stop!r}")
    if evaluate_every is not None:
        require_count("evaluate_every", evaluate_every)
    described = _described(env, algorithm, settings, budget, seed, policy, stop, evaluate_every)
    checkpoints = Checkpoints(checkpoint, checkpoint_every, resume, described, policy)
    evaluation = _Evaluation(env, evaluate_every, seed)
    with (
        _closing(make_vector_env(env, settings.num_envs)) as envs,
        tqdm(total=budget.total, unit=budget.unit, unit_scale=True, disable=not progress) as bar,
        one_core(),
        # Overflow shows as non-finite parameters, which are looked for after every update.
        np.errstate(over="ignore", invalid="ignore"),
    ):
        run = _new_run(envs, algorithm, settings, policy, seed)
        try:
            if resume is None:
                run.env_state = reset(envs, seed=_reset_seed(seed))
            else:
                run = checkpoints.load(envs, seed)
            checkpoints.save(run, envs)
            began = time.thread_time() - _cpu_seconds(run.history)
            bar.update(min(budget.spent(run.history), budget.total))
            while not _is_over(run.history, budget, stop):
                assert run.env_state is not None
                spent = budget.spent(run.history)

                # (1) rollout: the policy acts
                rollout, run.env_state = rollout_stage(
                    envs, run.learner, settings, run.env_state, run.action_rng
                )
                if not rollout.valid.any():
                    continue  # reset rows only: nothing happened
                measured = measure(run.learner.policy) if measure else {}
                require_instance("the result of measure", measured, Mapping)

                # (2) advantages: rewards are transformed, advantages estimated
                batch, run.learner, transformed = advantage_stage(rollout, run.learner, settings)

                # (3) optimisation: the critic is fitted, the policy updated
                run.learner, updated = optimisation_stage(
                    batch,
                    run.learner,
                    at_progress(algorithm, spent / budget.total),
                    at_progress(settings, spent / budget.total),
                    run.update_rng,
                )

                # Book-keeping: metrics, checkpoints and the progress bar.
                now = spent + budget.cost(rollout)
                metrics = {**updated, **transformed, **measured}
                if evaluation.is_due(spent, now, budget.total):
                    metrics |= evaluation.evaluate(run)
                run.history.record(rollout, metrics, time.thread_time() - began)
                _warn_of_collapse(run, rollout, settings)
                if _is_due(checkpoints.every, spent, now):
                    checkpoints.save(run, envs)
                bar.update(min(now, budget.total) - spent)
                bar.set_postfix(mean_return=f"{run.history.rows[-1]['mean_return']:.1f}")
            checkpoints.save(run, envs)
        except (Exception, KeyboardInterrupt) as error:
            if _is_refusal(error) and not run.history.rows:
                raise
            steps = run.history.environment_steps
            message = f"training stopped after {steps} environment steps: {_reason(error)}"
            raise TrainingStopped(message, _result(run, described, partial=True)) from error
    return _result(run, described, partial=False)


def _described(
    env: MakeEnv,
    algorithm: Algorithm,
    settings: Settings,
    budget: "_Budget",
    seed: int,
    policy: Policy | None,
    stop: Stop | None,
    evaluate_every: int | None,
) -> dict[str, Any]:
    """The arguments, JSON-ready; a checkpoint recognises its run by them."""
    described = {
        "env": describe(env),
        "algorithm": describe(algorithm),
        "settings": describe(settings),
        f"total_{budget.unit}s": budget.total,
        "seed": int(seed),
    }
    if policy is not None:
        described["initial_policy"] = "given"
    if stop is not None:
        described["stop"] = describe(stop)
    if evaluate_every is not None:
        described["evaluate_every"] = int(evaluate_every)
    return described


@contextlib.contextmanager
def _closing(envs: VectorEnv) -> Iterator[VectorEnv]:
    """Close the environments in any case; errors and Ctrl-C in their `close` lose no result."""
    try:
        yield envs
    finally:
        with hold_interrupts(), contextlib.suppress(Exception):
            envs.close()


def _streams(seed: int) -> list[np.random.SeedSequence]:
    """Independent seeds for the environments, initial parameters, actions, minibatches, and
    evaluations during training, which must not change what is learned."""
    return np.random.SeedSequence(seed).spawn(5)


def _reset_seed(seed: int) -> int:
    return int(_streams(seed)[0].generate_state(1)[0])


def _new_run(
    envs: VectorEnv, algorithm: Algorithm, settings: Settings, policy: Policy | None, seed: int
) -> RunState:
    """The state of a run before its environments are reset."""
    init_rng, action_rng, update_rng = map(np.random.default_rng, _streams(seed)[1:4])
    learner = new_learner(algorithm, settings, *_initial(envs, settings, policy, init_rng))
    return RunState(learner, History(), None, action_rng, update_rng)


class _Budget:
    """How long to train, in environment steps or in finished episodes."""

    def __init__(self, total_steps: int | None, total_episodes: int | None) -> None:
        if (total_steps is None) == (total_episodes is None):
            raise ValueError(
                "give either total_steps or total_episodes, got "
                f"{total_steps!r} and {total_episodes!r}"
            )
        self.unit = "step" if total_episodes is None else "episode"
        total = total_steps if total_episodes is None else total_episodes
        require_count(f"total_{self.unit}s", total, most=MOST_STEPS)
        self.total = int(total)  # type: ignore[arg-type]

    def spent(self, history: History) -> int:
        """How much of it the history has used."""
        return history.environment_steps if self.unit == "step" else history.finished_episodes

    def cost(self, rollout: Rollout) -> int:
        """How much of it one rollout uses."""
        return int(rollout.valid.sum() if self.unit == "step" else len(rollout.episode_returns))


class _Evaluation:
    """Greedy evaluations during training, all on the same fresh episodes."""

    def __init__(self, env: MakeEnv, every: int | None, seed: int) -> None:
        self.env = env
        self.every = every
        self.seed = int(_streams(seed)[4].generate_state(1)[0])

    def is_due(self, before: int, after: int, total: int) -> bool:
        return self.every is not None and (_is_due(self.every, before, after) or after >= total)

    def evaluate(self, run: RunState) -> dict[str, float]:
        """Evaluate the current policy, and keep it if it is the best so far."""
        policy = run.learner.policy
        envs = make_vector_env(self.env, EVALUATION_EPISODES)
        try:
            rollout = collect_fresh_episodes(policy, envs, seed=self.seed, greedy=True)
        finally:
            envs.close()
        mean_return = float((rollout.rewards * rollout.valid).sum(axis=0).mean())
        if mean_return > run.best_return:
            run.best_policy, run.best_return = policy, mean_return
        return {"evaluation_return": mean_return}


def _is_due(every: int | None, before: int, after: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]."""
    return every is not None and after // every > before // every


def require_trainable(
    env: MakeEnv, algorithm: Algorithm, total_steps: int, seed: int, settings: Settings
) -> None:
    """Raise ValueError, before anything is computed or written, where `train` would refuse."""
    require_count("total_steps", total_steps, most=MOST_STEPS)
    require_seed(seed)
    require_methods("algorithm", algorithm, "init", "update")
    envs = make_vector_env(env, 1)
    envs.close()
    spaces = envs.single_observation_space, envs.single_action_space
    rng = np.random.default_rng(0)
    make_policy(*spaces, rng, hidden_sizes=settings.hidden_sizes)
    settings.critic_fit.init(make_critic(spaces[0], rng, hidden_sizes=settings.hidden_sizes))
    if settings.normalize_observations:
        empty_statistics(spaces[0])


def _is_over(history: History, budget: _Budget, stop: Stop | None) -> bool:
    """Whether the budget is spent, or the condition to stop holds after some update."""
    stopped = stop is not None and len(history.rows) > 0 and bool(stop(history))
    return stopped or budget.spent(history) >= budget.total


def _cpu_seconds(history: History) -> float:
    return history.rows[-1]["cpu_seconds"] if history.rows else 0.0


def _is_refusal(error: BaseException) -> bool:
    """Whether minirl refused an argument, rather than training having failed."""
    return raised_by_minirl(error) and not isinstance(error, NonFiniteError | EndlessError)


def _reason(error: BaseException) -> str:
    """Why training stopped; for an exception in the code of a user, its class and its place."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, NonFiniteError | EndlessError | EnvironmentFailure):
        return str(error)
    return describe_error(error)


def _result(run: RunState, described: dict[str, Any], *, partial: bool) -> Result:
    """The result so far; its description says how many steps it took."""
    done: dict[str, Any] = {
        "environment_steps": run.history.environment_steps,
        "partial": partial,
    }
    if run.resets:
        done["environments_reset_at"] = list(run.resets)
    learner = run.learner
    return Result(
        learner.policy, learner.critic, run.history, {**described, **done}, run.best_policy
    )


def _initial(
    envs: VectorEnv, settings: Settings, policy: Policy | None, rng: np.random.Generator
) -> tuple[Policy, Critic]:
    """The policy to start from, fresh if none is given, and a fresh critic beside it."""
    spaces = envs.single_observation_space, envs.single_action_space
    hidden_sizes, dtype = settings.hidden_sizes, settings.dtype
    if policy is None:
        policy = make_policy(
            *spaces,
            rng,
            hidden_sizes=hidden_sizes,
            initial_log_std=settings.initial_log_std,
            min_log_std=settings.min_log_std,
            dtype=dtype,
        )
    else:
        require_fit(policy, *spaces)
    wrong = policy.parameters[~np.isfinite(policy.parameters) & ~np.isneginf(policy.parameters)]
    if len(wrong):
        raise ValueError(
            "policy must have finite parameters, or -inf for the logit of an excluded action, got "
            f"{wrong[0]}"
        )
    if settings.normalize_observations and policy.observation_statistics is None:
        policy = policy.with_observation_statistics(empty_statistics(spaces[0]))
    critic = make_critic(spaces[0], rng, hidden_sizes=hidden_sizes, dtype=dtype)
    return policy, critic.with_observation_statistics(policy.observation_statistics)


def _warn_of_collapse(run: RunState, rollout: Rollout, settings: Settings) -> None:
    """Warn, once per run, if the last update moved the policy by more than COLLAPSE_KL nats."""
    row = run.history.rows[-1]
    kl = row.get("kl", 0.0)
    if settings.whole_episodes:
        kl /= rollout.episode_lengths.mean()  # per step, as elsewhere
    if run.collapsed or not kl > COLLAPSE_KL:
        return
    run.collapsed = True
    std = f" (smallest_std {row['smallest_std']:.2g})" if "smallest_std" in row else ""
    warnings.warn(
        f"update {len(run.history.rows)} moved the policy by a mean KL of {kl:,.0f} nats per step"
        f"{std}; 0.001 to 0.03 is healthy, and the policy may have lost what it had learned; try a "
        "smaller or falling learning rate, or PPO's target_kl",
        RuntimeWarning,
        stacklevel=3,
    )


def _require_finite(name: str, parameters: np.ndarray, old: np.ndarray) -> None:
    """Raise NonFiniteError unless all are finite, or still the -inf that excludes an action."""
    if not (np.isfinite(parameters) | (parameters == old)).all():
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


check_arguments(__name__)
