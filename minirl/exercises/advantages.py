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

    def next_value_after_termination(
        rewards: np.ndarray,
        values: np.ndarray,
        next_values: np.ndarray,
        terminated: np.ndarray,
        discount: float,
    ) -> np.ndarray:
        """No reward follows a termination: mask the value of the next state."""
        return exact(rewards, values, next_values, np.zeros_like(terminated), discount)

    def last_reward_masked(
        rewards: np.ndarray,
        values: np.ndarray,
        next_values: np.ndarray,
        terminated: np.ndarray,
        discount: float,
    ) -> np.ndarray:
        """The last reward counts: terminated masks only the next value."""
        return exact(rewards * ~terminated, values, next_values, terminated, discount)

    def without_discount(*case: Any) -> np.ndarray:
        """The discount is missing."""
        rewards, values, next_values, terminated, _ = case
        return exact(rewards, values, next_values, terminated, 1.0)

    rewards, values, next_values, terminated, _ = _steps()
    return compare_function(
        answer,
        exact,
        [(rewards, values, next_values, terminated, discount) for discount in (0.9, 0.5)],
        mistakes=[next_value_after_termination, last_reward_masked, without_discount],
    )


def gae(answer: Callable[..., Any]) -> Verdict:
    """Advantages (T,), from rewards, values, next_values, terminated, truncated, discount, lam."""

    def exact(*case: Any) -> np.ndarray:
        *steps, discount, lam = case
        return estimators.gae(*steps, discount=discount, lam=lam)

    def truncation_as_termination(*case: Any) -> np.ndarray:
        """A truncation is not a termination: V(s') still counts after it."""
        rewards, values, next_values, terminated, truncated, discount, lam = case
        ended = terminated | truncated
        return exact(rewards, values, next_values, ended, truncated, discount, lam)

    def trace_across_truncation(*case: Any) -> np.ndarray:
        """The trace must stop at a truncation too: the next row is another episode."""
        rewards, values, next_values, terminated, _, discount, lam = case
        deltas = estimators.td_errors(rewards, values, next_values, terminated, discount)
        return estimators.discounted_sums(deltas, terminated, discount * lam)

    def trace_without_lam(*case: Any) -> np.ndarray:
        """The trace decays by the factor discount times lam."""
        return exact(*case[:-1], 1.0)

    return compare_function(
        answer,
        exact,
        [(*_steps(), 0.9, 0.8), (*_steps(), 0.5, 0.3)],
        mistakes=[truncation_as_termination, trace_across_truncation, trace_without_lam],
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

    def bootstrapped_at_the_end(
        rewards: np.ndarray, next_values: np.ndarray, discount: float, lam: float
    ) -> np.ndarray:
        """The episode ends with the last row: its next value is 0, whatever next_values is."""
        last = rewards[-1] + discount * next_values[-1]
        return exact(np.append(rewards[:-1], last), next_values, discount, lam)

    def weights_exchanged(
        rewards: np.ndarray, next_values: np.ndarray, discount: float, lam: float
    ) -> np.ndarray:
        """The weight of the following return is lam, that of the critic 1 - lam."""
        return exact(rewards, next_values, discount, 1 - lam)

    def without_critic(
        rewards: np.ndarray, next_values: np.ndarray, discount: float, lam: float
    ) -> np.ndarray:
        """This is the return without a critic; the critic has the weight 1 - lam."""
        return exact(rewards, next_values, discount, 1.0)

    rewards, _, next_values, _, _ = _steps()
    return compare_function(
        answer,
        exact,
        [(rewards, next_values, 0.9, 0.8), (rewards[:3], next_values[:3], 0.5, 0.3)],
        mistakes=[bootstrapped_at_the_end, weights_exchanged, without_critic],
    )


def constant_error(answer: Callable[..., Any]) -> Verdict:
    """Bias of GAE in a task without end if the critic is V + c: answer(c, discount, lam)."""

    def exact(c: float, discount: float, lam: float) -> float:
        mdp = FiniteMDP.from_gymnasium(Chain(length=3, endless=True), discount)
        policy = np.full((3, 2), 0.5)
        critic = tabular.state_values(mdp, policy) + c
        estimate = tabular.expected_gae(mdp, policy, critic, lam)
        return float((estimate - tabular.advantages(mdp, policy))[0, 0])

    def opposite_sign(c: float, discount: float, lam: float) -> float:
        """The sign is wrong: V(s_t) is subtracted, and its error with it."""
        return -exact(c, discount, lam)

    def of_one_td_error(c: float, discount: float, lam: float) -> float:
        """This is the bias of one TD error; GAE is a sum of many."""
        return exact(c, discount, 0.0)

    def with_lam_1(c: float, discount: float, lam: float) -> float:
        """This is the bias for lam = 1; for a smaller lam, later errors cancel a part."""
        return exact(c, discount, 1.0)

    def next_value_without_error(c: float, discount: float, lam: float) -> float:
        """The next value is too high by c as well: each TD error is off by discount c - c."""
        return -c / (1 - discount * lam)

    return compare_function(
        answer,
        exact,
        [(1.0, 0.9, 0.5), (-0.3, 0.99, 0.95), (2.0, 0.5, 0.0)],
        mistakes=[opposite_sign, of_one_td_error, with_lam_1, next_value_without_error],
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
    only_the_exit = [True, False, False, False]
    return compare(
        answer,
        exact,
        mistakes={
            "a limit set by the experimenter is no termination: the task can continue": [True] * 4,
            "the largest length of a sentence is part of the task: no word can follow": (
                only_the_exit
            ),
            "the answers are inverted: True means a termination": np.logical_not(exact),
        },
    )
