"""Checks of notebook 2: TD errors, GAE with its two masks, termination and truncation."""

from collections.abc import Callable, Sized
from typing import Any

import gymnasium as gym
import numpy as np

import minirl.envs
from minirl import advantages as estimators
from minirl.envs.chain import Chain
from minirl.exact import FiniteMDP, tabular
from minirl.exercises.verdict import Verdict, compare, compare_function, unanswered

__all__ = ["td_errors", "gae", "lambda_returns", "constant_error", "which_end"]


def _steps() -> tuple[np.ndarray, ...]:
    """Rewards, values, next values, terminated and truncated (T,) of three episodes in a row."""
    rewards, values, next_values = np.random.default_rng(0).normal(size=(3, 7))
    terminated, truncated = np.zeros((2, 7), dtype=bool)
    terminated[2] = truncated[4] = True
    return rewards, values, next_values, terminated, truncated


def td_errors(answer: Callable[..., Any]) -> Verdict:
    """delta (T,), from rewards, values, next_values and terminated (T,) and the discount."""
    exact = estimators.td_errors
    rewards, values, next_values, terminated, _ = _steps()
    return compare_function(
        answer,
        exact,
        [(rewards, values, next_values, terminated, discount) for discount in (0.9, 0.5)],
        mistakes={
            "no reward follows a termination: mask the value of the next state": (
                lambda r, v, after, over, discount: exact(r, v, after, over & False, discount)
            ),
            "the last reward counts: terminated masks only the next value": (
                lambda r, v, after, over, discount: exact(r * ~over, v, after, over, discount)
            ),
            "the discount is missing": lambda r, v, after, over, _: exact(r, v, after, over, 1.0),
        },
    )


def gae(answer: Callable[..., Any]) -> Verdict:
    """Advantages (T,), from rewards, values, next_values, terminated, truncated, discount, lam."""

    def exact(*case: Any) -> np.ndarray:
        *steps, discount, lam = case
        return estimators.gae(*steps, discount=discount, lam=lam)

    def trace_runs_on(r: Any, v: Any, after: Any, over: Any, cut: Any, *decay: float) -> np.ndarray:
        deltas = estimators.td_errors(r, v, after, over, decay[0])
        return estimators.discounted_sums(deltas, over, decay[0] * decay[1])

    def ends_at_truncation(
        r: Any, v: Any, after: Any, over: Any, cut: Any, *decay: float
    ) -> np.ndarray:
        return exact(r, v, after, over | cut, cut, *decay)

    return compare_function(
        answer,
        exact,
        [(*_steps(), 0.9, 0.8), (*_steps(), 0.5, 0.3)],
        mistakes={
            "a truncation is not a termination: V(s') still counts after it": ends_at_truncation,
            "the trace must stop at a truncation too: the next row is another episode": (
                trace_runs_on
            ),
            "the trace decays by the factor discount times lam": (
                lambda r, v, after, over, cut, *decay: exact(r, v, after, over, cut, decay[0], 1.0)
            ),
        },
    )


def lambda_returns(answer: Callable[..., Any]) -> Verdict:
    """Targets R (T,) of one episode that terminates, from rewards, next_values, discount, lam."""

    def exact(
        rewards: np.ndarray, next_values: np.ndarray, discount: float, lam: float
    ) -> np.ndarray:
        values = np.append(0.0, next_values[:-1])  # V(s_0) cancels
        over, never = np.arange(1, len(rewards) + 1) == len(rewards), np.zeros(len(rewards), bool)
        advantages = estimators.gae(
            rewards, values, next_values, over, never, discount=discount, lam=lam
        )
        return advantages + values

    def bootstraps_at_the_end(
        rewards: np.ndarray, next_values: np.ndarray, discount: float, lam: float
    ) -> np.ndarray:
        last = rewards[-1] + discount * next_values[-1]
        return exact(np.append(rewards[:-1], last), next_values, discount, lam)

    rewards, _, next_values, _, _ = _steps()
    return compare_function(
        answer,
        exact,
        [(rewards, next_values, 0.9, 0.8), (rewards[:3], next_values[:3], 0.5, 0.3)],
        mistakes={
            "the episode ends with the last row: its next value is 0, whatever next_values is": (
                bootstraps_at_the_end
            ),
            "the weight of the following return is lam, that of the critic 1 - lam": (
                lambda r, after, discount, lam: exact(r, after, discount, 1 - lam)
            ),
            "this is the return without a critic; the critic has the weight 1 - lam": (
                lambda r, after, discount, lam: exact(r, after, discount, 1.0)
            ),
        },
    )


def constant_error(answer: Callable[..., Any]) -> Verdict:
    """Bias of GAE in a task without end if the critic is V + c: answer(c, discount, lam)."""

    def exact(c: float, discount: float, lam: float) -> float:
        mdp = FiniteMDP.from_gymnasium(Chain(length=3, endless=True), discount)
        policy = np.full((3, 2), 0.5)
        critic = tabular.state_values(mdp, policy) + c
        estimate = tabular.expected_gae(mdp, policy, critic, lam)
        return float((estimate - tabular.advantages(mdp, policy))[0, 0])

    return compare_function(
        answer,
        exact,
        [(1.0, 0.9, 0.5), (-0.3, 0.99, 0.95), (2.0, 0.5, 0.0)],
        mistakes={
            "the sign is wrong: V(s_t) is subtracted, and its error with it": (
                lambda c, discount, lam: -exact(c, discount, lam)
            ),
            "this is the bias of one TD error; GAE is a sum of many": (
                lambda c, discount, lam: exact(c, discount, 0.0)
            ),
            "this is the bias for lam = 1; for a smaller lam, later errors cancel a part": (
                lambda c, discount, lam: exact(c, discount, 1.0)
            ),
            "the next value is too high by c as well: each TD error is off by discount c - c": (
                lambda c, discount, lam: -c / (1 - discount * lam)
            ),
        },
    )


def which_end(answer: Any) -> Verdict:
    """Four bools, True for a termination: the chain's exit, its limit, Pendulum's, a sentence's."""
    if not unanswered(answer) and not (isinstance(answer, Sized) and len(answer) == 4):
        return Verdict("wrong", "Not yet: give four answers, one for each end.")
    minirl.envs.register_environments()

    def terminates(identifier: str, actions: list[Any], **options: Any) -> bool:
        """Whether the environment terminates when `actions` are repeated."""
        with gym.make(identifier, **options) as env:
            env.reset(seed=0)
            for step in range(1000):
                _, _, terminated, truncated, _ = env.step(actions[step % len(actions)])
                if terminated or truncated:
                    return bool(terminated)
        raise AssertionError(f"no episode of {identifier} ended")

    there_and_back = [1, 0]
    exact = [
        terminates("minirl/Chain-v0", [1]),
        terminates("minirl/Chain-v0", there_and_back, slip=0.0),
        terminates("Pendulum-v1", [np.zeros(1, dtype=np.float32)]),
        terminates("minirl/TokenGeneration-v0", [0]),
    ]
    return compare(
        answer,
        exact,
        mistakes={
            "a limit set by the experimenter is no termination: the task can continue": [1] * 4,
            "the largest length of a sentence is part of the task: no word can follow": [
                1,
                0,
                0,
                0,
            ],
            "the answers are inverted: True means a termination": np.logical_not(exact),
        },
    )
