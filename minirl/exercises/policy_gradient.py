"""Checks of notebook 1: returns, scores, gradients and baselines."""

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv

from minirl.advantages import discounted_sums
from minirl.batch import Rollout, flatten
from minirl.distributions import Categorical
from minirl.envs.chain import Chain
from minirl.exact import FiniteMDP, tabular
from minirl.exercises.verdict import Verdict, compare_function
from minirl.networks import Table
from minirl.policy import Policy
from minirl.rollout import collect_episodes

__all__ = [
    "discounted_returns",
    "softmax_score",
    "bandit_gradient",
    "visitation",
    "best_baseline",
]

LOGITS = np.array([0.3, -0.8, 1.1])
REWARDS = np.array([1.0, 0.5, -2.0])


def discounted_returns(answer: Callable[..., Any]) -> Verdict:
    """Rewards-to-go G_t (T,) of one terminating episode, from rewards (T,) and discount."""

    def exact(rewards: np.ndarray, discount: float) -> np.ndarray:
        return discounted_sums(rewards, np.zeros(len(rewards), bool), discount)

    cases = [(REWARDS, 0.5), (np.array([0.0, 0.0, 0.0, 1.0]), 0.9), (np.ones(1), 0.9)]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "the discount is missing": lambda r, discount: exact(r, 1.0),
            "the discount must count from t, not from the start of the episode": (
                lambda r, discount: exact(r * discount ** np.arange(len(r)), 1.0)
            ),
            "this is the return of the whole episode; G_t excludes the rewards before t": (
                lambda r, discount: np.full(len(r), exact(r, discount)[0])
            ),
        },
    )


def softmax_score(answer: Callable[..., Any]) -> Verdict:
    """d log pi(a) / d logits (A,) of a softmax, from its logits (A,) and the action."""

    def exact(logits: np.ndarray, action: int) -> np.ndarray:
        return Categorical(logits[None]).grad_log_prob(np.array([action]))[0]

    return compare_function(
        answer,
        exact,
        [(LOGITS, 0), (LOGITS, 2), (np.zeros(4), 1)],
        mistakes={
            "this is the derivative of pi(a); divide it by pi(a) to get that of log pi(a)": (
                lambda logits, a: exact(logits, a) * tabular.softmax_policy(logits[None])[0, a]
            ),
            "the sign is wrong": lambda logits, a: -exact(logits, a),
            "the normalisation depends on every logit: something must be subtracted": (
                lambda logits, a: np.eye(len(logits))[a]
            ),
        },
    )


def bandit_gradient(answer: Callable[..., Any]) -> Verdict:
    """Gradient (A,) of the expected reward of a one-step task, from logits and rewards (A,)."""

    def exact(logits: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        mdp = FiniteMDP(np.zeros((1, len(logits), 1)), rewards[None], np.ones(1), discount=1.0)
        return tabular.policy_gradient(mdp, logits[None])[0]

    def probs(logits: np.ndarray) -> np.ndarray:
        return tabular.softmax_policy(logits[None])[0]

    return compare_function(
        answer,
        exact,
        [(LOGITS, REWARDS), (np.zeros(2), np.array([1.0, 0.0]))],
        mistakes={
            "a constant added to all rewards must not matter: subtract the mean reward": (
                lambda logits, rewards: probs(logits) * rewards
            ),
            "an action that is never taken has no influence: the factor pi(a) is missing": (
                lambda logits, rewards: rewards - probs(logits) @ rewards
            ),
            "use the mean reward under the policy, not the unweighted mean": (
                lambda logits, rewards: probs(logits) * (rewards - rewards.mean())
            ),
        },
    )


def visitation(answer: Callable[..., Any]) -> Verdict:
    """Estimate (S,) of d(s) from a rollout of whole episodes, the discount and S."""
    policy = Policy(Table(3, 2), Categorical, np.array([0.0, 0.5, 0.0, 1.0, 0.2, 0.0]))
    envs = SyncVectorEnv([lambda: Chain(length=3)] * 6)
    rng = np.random.default_rng(0)
    rollout = collect_episodes(envs, policy, None, rng, max_steps=100, seed=0)
    envs.close()

    def exact(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        unused = rollout.rewards
        batch = flatten(
            rollout, unused, unused, per="episode", state_discount=discount, dtype="float64"
        )
        return np.bincount(batch.observations, batch.weight, states)

    def all_rows(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        weight = discount**rollout.time / rollout.valid.shape[1]
        return np.bincount(rollout.observations.ravel(), weight.ravel(), states)

    def per_row(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        return exact(rollout, discount, states) * rollout.valid.shape[1] / rollout.valid.sum()

    return compare_function(
        answer,
        exact,
        [(rollout, 0.9, 3), (rollout, 0.5, 4)],
        mistakes={
            "later visits have a smaller weight: the factor discount**time is missing": (
                lambda rollout, discount, states: exact(rollout, 1.0, states)
            ),
            "rows after the end of an episode are counted too: use only valid rows": all_rows,
            "divide by the number of episodes, not of rows: d is a count per episode": per_row,
        },
    )


def best_baseline(answer: Callable[..., Any]) -> Verdict:
    """The constant b that minimises the variance of (r_a - b) score(a), from (A,) arrays."""

    def squared_scores(logits: np.ndarray) -> np.ndarray:
        every = np.arange(len(logits))
        rows = Categorical(np.tile(logits, (len(logits), 1)))
        return (rows.grad_log_prob(every) ** 2).sum(axis=1)

    def exact(logits: np.ndarray, rewards: np.ndarray) -> float:
        # The variance is a parabola in b; its mean, the gradient, does not depend on b.
        weight = tabular.softmax_policy(logits[None])[0] * squared_scores(logits)
        return float(weight @ rewards / weight.sum())

    def unsquared(logits: np.ndarray, rewards: np.ndarray) -> float:
        weight = tabular.softmax_policy(logits[None])[0] * np.sqrt(squared_scores(logits))
        return float(weight @ rewards / weight.sum())

    return compare_function(
        answer,
        exact,
        [(LOGITS, REWARDS), (np.array([2.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0]))],
        mistakes={
            "this is the mean reward; rewards with a longer score must have more weight": (
                lambda logits, rewards: tabular.softmax_policy(logits[None])[0] @ rewards
            ),
            "the weight must contain the squared length of the score": unsquared,
            "the weight must contain the probability of the action: pi(a) is missing": (
                lambda logits, rewards: (
                    squared_scores(logits) @ rewards / squared_scores(logits).sum()
                )
            ),
        },
    )
