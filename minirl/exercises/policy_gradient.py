"""Checks of notebook 1: returns, scores, REINFORCE, visits and variance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv

from minirl.advantages import RewardToGo, discounted_sums
from minirl.algorithms.policy_gradient import PolicyGradient
from minirl.batch import Rollout, flatten
from minirl.distributions import Categorical
from minirl.envs.chain import Chain
from minirl.envs.gridworld import GridWorld
from minirl.exact import FiniteMDP, tabular
from minirl.exercises.verdict import Verdict, compare_function
from minirl.networks import Table
from minirl.optimizers import SGD
from minirl.policy import Policy
from minirl.rollout import collect_episodes

__all__ = [
    "discounted_returns",
    "softmax_score",
    "reinforce",
    "visitation",
    "estimator_variance",
]

LOGITS = np.array([0.3, -0.8, 1.1])
REWARDS = np.array([1.0, 0.5, -2.0])
LAYOUT = """
S.G
..X
"""


def discounted_returns(answer: Callable[..., Any]) -> Verdict:
    """Rewards-to-go G_t (T,) of one terminating episode, from rewards (T,) and discount."""

    def exact(rewards: np.ndarray, discount: float) -> np.ndarray:
        return discounted_sums(rewards, np.zeros(len(rewards), bool), discount)

    def without_discount(rewards: np.ndarray, discount: float) -> np.ndarray:
        """The discount is missing."""
        return exact(rewards, 1.0)

    def discounted_from_the_start(rewards: np.ndarray, discount: float) -> np.ndarray:
        """The discount must count from t, not from the start of the episode."""
        return exact(rewards * discount ** np.arange(len(rewards)), 1.0)

    def return_of_the_episode(rewards: np.ndarray, discount: float) -> np.ndarray:
        """This is the return of the whole episode; G_t excludes the rewards before t."""
        return np.full(len(rewards), exact(rewards, discount)[0])

    cases = [(REWARDS, 0.5), (np.array([0.0, 0.0, 0.0, 1.0]), 0.9), (np.ones(1), 0.9)]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[without_discount, discounted_from_the_start, return_of_the_episode],
    )


def softmax_score(answer: Callable[..., Any]) -> Verdict:
    """d log pi(a) / d logits (A,) of a softmax, from its logits (A,) and the action."""

    def exact(logits: np.ndarray, action: int) -> np.ndarray:
        return Categorical(logits[None]).grad_log_prob(np.array([action]))[0]

    def of_the_probability(logits: np.ndarray, action: int) -> np.ndarray:
        """This is the derivative of pi(a); divide it by pi(a) to get that of log pi(a)."""
        return exact(logits, action) * tabular.softmax_policy(logits[None])[0, action]

    def opposite_sign(logits: np.ndarray, action: int) -> np.ndarray:
        """The sign is wrong."""
        return -exact(logits, action)

    def overwritten_entry(logits: np.ndarray, action: int) -> np.ndarray:
        """The entry of the action is 1 - pi(a): add 1 to -pi(a) instead of overwriting it."""
        score = exact(logits, action)
        score[action] = 1.0
        return score

    def without_normalisation(logits: np.ndarray, action: int) -> np.ndarray:
        """The normalisation depends on every logit: something must be subtracted."""
        return np.eye(len(logits))[action]

    return compare_function(
        answer,
        exact,
        [(LOGITS, 0), (LOGITS, 2), (np.zeros(4), 1)],
        mistakes=[of_the_probability, opposite_sign, overwritten_entry, without_normalisation],
    )


@dataclass(frozen=True)
class EpisodeSampler:
    """Whole episodes of a small grid world; the same logits and update give the same episodes.

    Parameters
    ----------
    episodes : int
        Number of episodes of a call.
    seed : int
        Of the environments and of the actions.
    """

    episodes: int
    seed: int

    def rollout(self, logits: np.ndarray, update: int) -> Rollout:
        """The episodes of the softmax table `logits` (S, A) as a `Rollout`."""
        policy = Policy(Table(*logits.shape), Categorical, np.array(logits, np.float64).ravel())
        envs = SyncVectorEnv([lambda: GridWorld(LAYOUT)] * self.episodes)
        rng = np.random.default_rng([self.seed, update])
        rollout = collect_episodes(envs, policy, None, rng, max_steps=1000, seed=1000 * update)
        envs.close()
        return rollout

    def __call__(self, logits: np.ndarray, update: int) -> list[tuple[np.ndarray, ...]]:
        """One tuple (states, actions, rewards) of arrays (T,) per episode."""
        rollout = self.rollout(logits, update)
        columns = rollout.observations, rollout.actions, rollout.rewards
        return [
            tuple(column[valid, e] for column in columns) for e, valid in enumerate(rollout.valid.T)
        ]


def reinforce(answer: Callable[..., Any]) -> Verdict:
    """Logits (S, A) after REINFORCE: answer(logits, sample, discount, learning_rate, updates).

    Its baseline is the mean reward-to-go of all steps of the previous update, and 0 in the first.
    """

    def exact(
        logits: np.ndarray, sample: EpisodeSampler, discount: float, rate: float, updates: int
    ) -> np.ndarray:
        algorithm = PolicyGradient(learning_rate=rate, optimizer=SGD())
        policy = Policy(Table(*logits.shape), Categorical, logits.ravel())
        state, baseline = algorithm.init(policy), 0.0
        for update in range(updates):
            rollout = sample.rollout(state.policy.parameters.reshape(logits.shape), update)
            to_go, _ = RewardToGo(discount)(rollout)
            batch = flatten(
                rollout,
                to_go - baseline,
                to_go,
                per="episode",
                state_discount=discount,
                dtype="float64",
            )
            state, _ = algorithm.update(state, batch, np.random.default_rng(0))
            baseline = to_go[rollout.valid].mean()
        return state.policy.parameters.reshape(logits.shape)

    def gradient_descent(*case: Any) -> np.ndarray:
        """The sign is wrong: the expected return should rise, so add the gradient."""
        return _plain_reinforce(*case, sign=-1)

    def without_state_discount(*case: Any) -> np.ndarray:
        """The factor discount**t of the score at time t is missing."""
        return _plain_reinforce(*case, state_discount=False)

    def whole_returns(*case: Any) -> np.ndarray:
        """The score at time t is multiplied by G_t, not by the return of the whole episode."""
        return _plain_reinforce(*case, to_go=False)

    def mean_over_steps(*case: Any) -> np.ndarray:
        """Divide the sum by the number of episodes, not by the number of steps."""
        return _plain_reinforce(*case, per="step")

    def sum_over_episodes(*case: Any) -> np.ndarray:
        """The gradient is the mean over the episodes: divide the sum by their number."""
        return _plain_reinforce(*case, per="batch")

    def one_row_per_state(*case: Any) -> np.ndarray:
        """`gradient[states] += rows` adds only one row per state; use np.add.at or a loop."""
        return _plain_reinforce(*case, repeated=False)

    def old_episodes(*case: Any) -> np.ndarray:
        """Sample new episodes in every update: old ones come from another policy."""
        return _plain_reinforce(*case, fresh=False)

    def baseline_of_this_update(*case: Any) -> np.ndarray:
        """Subtract the previous update's mean; the current one holds the episode's own return."""
        return _plain_reinforce(*case, baseline="current")

    def without_baseline(*case: Any) -> np.ndarray:
        """The baseline is missing: subtract the mean G_t of the previous update."""
        return _plain_reinforce(*case, baseline=None)

    cases = [
        (np.zeros((6, 4)), EpisodeSampler(episodes, episodes), discount, 0.5, updates)
        for episodes, discount, updates in [(4, 0.9, 1), (8, 0.8, 3)]
    ]
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            gradient_descent,
            without_state_discount,
            whole_returns,
            mean_over_steps,
            sum_over_episodes,
            one_row_per_state,
            old_episodes,
            baseline_of_this_update,
            without_baseline,
        ],
    )


def _plain_reinforce(
    logits: np.ndarray,
    sample: EpisodeSampler,
    discount: float,
    rate: float,
    updates: int,
    *,
    sign: int = 1,
    state_discount: bool = True,
    to_go: bool = True,
    per: str = "episode",
    repeated: bool = True,
    fresh: bool = True,
    baseline: str | None = "previous",
) -> np.ndarray:
    """The answer to `reinforce` as a plain loop; each option makes one mistake."""
    first, mean = logits, 0.0
    for update in range(updates):
        episodes = sample(logits, update) if fresh else sample(first, 0)
        returns = [discounted_sums(r, np.zeros(len(r), bool), discount) for _, _, r in episodes]
        steps = np.concatenate(returns)
        if baseline == "current":
            mean = steps.mean()
        gradient, probs = np.zeros_like(logits), tabular.softmax_policy(logits)
        for (states, actions, _), from_here in zip(episodes, returns, strict=True):
            factor = (from_here if to_go else from_here[0]) - mean
            if state_discount:
                factor = factor * discount ** np.arange(len(states))
            rows = np.eye(logits.shape[1])[actions] - probs[states]
            rows = rows * np.broadcast_to(factor, len(states))[:, None]
            if repeated:
                np.add.at(gradient, states, rows)
            else:
                gradient[states] += rows
        count = {"episode": len(episodes), "step": len(steps), "batch": 1}[per]
        logits = logits + sign * rate * gradient / count
        if baseline == "previous":
            mean = steps.mean()
    return logits


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

    def without_discount(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """Later visits have a smaller weight: the factor discount**time is missing."""
        return exact(rollout, 1.0, states)

    def all_rows(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """Rows after the end of an episode are counted too: use only valid rows."""
        weight = discount**rollout.time / rollout.valid.shape[1]
        return np.bincount(rollout.observations.ravel(), weight.ravel(), states)

    def mean_over_rows(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """Divide by the number of episodes, not of rows: d is a count per episode."""
        return exact(rollout, discount, states) * rollout.valid.shape[1] / rollout.valid.sum()

    def mean_over_time_steps(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """Divide by the number of episodes only, not also by the T time steps."""
        return exact(rollout, discount, states) / len(rollout.valid)

    def sum_over_episodes(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """d is a mean over the episodes: divide the sum by their number."""
        return exact(rollout, discount, states) * rollout.valid.shape[1]

    def normalised(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """d is not a distribution: do not divide by its sum."""
        visits = exact(rollout, discount, states)
        return visits / visits.sum()

    def mean_over_visits(rollout: Rollout, discount: float, states: int) -> np.ndarray:
        """d is not the mean weight of a visit: do not divide by the visits of each state."""
        visits = np.bincount(rollout.observations[rollout.valid], minlength=states)
        return sum_over_episodes(rollout, discount, states) / np.maximum(visits, 1)

    return compare_function(
        answer,
        exact,
        [(rollout, 0.9, 3), (rollout, 0.5, 4)],
        mistakes=[
            without_discount,
            all_rows,
            mean_over_rows,
            mean_over_time_steps,
            sum_over_episodes,
            normalised,
            mean_over_visits,
        ],
    )


def estimator_variance(answer: Callable[..., Any]) -> Verdict:
    """Variance of (r_a - b) score(a), summed over coordinates: answer(logits, rewards, b)."""

    def estimates(logits: np.ndarray, rewards: np.ndarray, b: float) -> np.ndarray:
        every = np.arange(len(logits))
        rows = Categorical(np.tile(logits, (len(logits), 1)))
        return (rewards - b)[:, None] * rows.grad_log_prob(every)

    def mean_of_the_squares(logits: np.ndarray, rewards: np.ndarray, b: float) -> float:
        """This is the mean of the squares; subtract the squared mean."""
        squares = (estimates(logits, rewards, b) ** 2).sum(axis=1)
        return float(tabular.softmax_policy(logits[None])[0] @ squares)

    def exact(logits: np.ndarray, rewards: np.ndarray, b: float) -> float:
        mdp = FiniteMDP(np.zeros((1, len(logits), 1)), rewards[None], np.ones(1), discount=1.0)
        gradient = tabular.policy_gradient(mdp, logits[None])
        return mean_of_the_squares(logits, rewards, b) - float((gradient**2).sum())

    def unweighted(logits: np.ndarray, rewards: np.ndarray, b: float) -> float:
        """Actions are not equally likely: weight each one with its probability."""
        return float(estimates(logits, rewards, b).var(axis=0).sum())

    def of_the_reward(logits: np.ndarray, rewards: np.ndarray, b: float) -> float:
        """This is the variance of the reward; the score multiplies it."""
        probs = tabular.softmax_policy(logits[None])[0]
        return float(probs @ (rewards - probs @ rewards) ** 2)

    def baseline_in_the_mean(logits: np.ndarray, rewards: np.ndarray, b: float) -> float:
        """The mean of the estimate does not depend on b: use the gradient pi(a) (r_a - V)."""
        mean = tabular.softmax_policy(logits[None])[0] * (rewards - b)
        return mean_of_the_squares(logits, rewards, b) - float((mean**2).sum())

    other = np.array([2.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])
    return compare_function(
        answer,
        exact,
        [(LOGITS, REWARDS, 0.0), (LOGITS, REWARDS, -1.0), (*other, 0.7)],
        mistakes=[mean_of_the_squares, unweighted, of_the_reward, baseline_in_the_mean],
    )
