"""Sampled estimates against the exact gradient of the whole MDP, by Monte Carlo.

Every episode contributes one independent number per direction, so the mean has a standard error
and every claim a z-score: below 4 along eight fixed directions if true, beyond 10 if it is false.
"""

import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv
from support import table_policy

from minirl.advantages import GAE, RewardToGo
from minirl.algorithms.policy_gradient import policy_gradient_loss
from minirl.batch import flatten
from minirl.envs.chain import Chain
from minirl.exact import FiniteMDP, tabular
from minirl.networks import Table
from minirl.policy import Critic
from minirl.rollout import collect_episodes

DISCOUNT = 0.9
EPISODES = 6000
MDP = FiniteMDP.from_gymnasium(Chain(), DISCOUNT)
POLICY = table_policy(MDP, np.random.default_rng(0), scale=0.7)
LOGITS = POLICY.parameters.reshape(5, 2)
PROBS = tabular.softmax_policy(LOGITS)
VALUES = tabular.state_values(MDP, PROBS)
WRONG_VALUES = VALUES + np.array([0.5, -0.4, 0.3, 0.6, -0.5])
DIRECTIONS = np.random.default_rng(1).standard_normal((8, 10))


@pytest.fixture(scope="module")
def rollouts():
    """The same episodes seen by a right and by a wrong critic; they end by themselves."""
    envs = SyncVectorEnv([Chain] * EPISODES)
    collected = {}
    for name, values in {"right": VALUES, "wrong": WRONG_VALUES}.items():
        critic = Critic(Table(5, 1), values)
        collected[name] = collect_episodes(
            envs, POLICY, critic, np.random.default_rng(2), max_steps=1000, seed=3
        )
        assert len(collected[name].episode_returns) == EPISODES
    return collected


def z_scores(rollout, estimator, truth, state_discount):
    """z of the sampled gradient's projections on the eight directions."""
    advantages, returns = estimator(rollout)
    batch = flatten(
        rollout, advantages, returns, per="episode", state_discount=state_discount, dtype="float64"
    )
    distribution, cache = POLICY.forward(batch.observations)
    _, d_eta = policy_gradient_loss(distribution, batch, batch.advantages)
    episode = np.nonzero(rollout.valid)[1]
    z = []
    for direction in DIRECTIONS:
        rows = -(d_eta * POLICY.jvp(cache, direction)).sum(axis=1) * EPISODES
        # The sum over rows is the gradient's projection: jvp is the transpose of vjp.
        assert np.isclose(rows.sum(), -(POLICY.vjp(cache, d_eta) @ direction) * EPISODES)
        contributions = np.bincount(episode, rows, EPISODES)
        error = contributions.std(ddof=1) / np.sqrt(EPISODES)
        z.append((contributions.mean() - direction @ truth.ravel()) / error)
    return np.abs(z)


TRUE_GRADIENT = tabular.policy_gradient(MDP, LOGITS)
UNBIASED = {
    "reward-to-go": ("right", RewardToGo(DISCOUNT)),
    # Its bias, of order 1 / transitions, is far below the error of these episodes.
    "reward-to-go, batch baseline": ("right", RewardToGo(DISCOUNT, baseline="batch")),
    "reward-to-go, critic baseline": ("right", RewardToGo(DISCOUNT, baseline="critic")),
    "reward-to-go, wrong critic baseline": ("wrong", RewardToGo(DISCOUNT, baseline="critic")),
    "GAE(0), right critic": ("right", GAE(DISCOUNT, 0.0)),
    "GAE(0.95), right critic": ("right", GAE(DISCOUNT, 0.95)),
    "GAE(1), wrong critic": ("wrong", GAE(DISCOUNT, 1.0)),
}


@pytest.mark.parametrize("name", UNBIASED)
def test_the_sampled_gradient_is_unbiased(rollouts, name):
    critic, estimator = UNBIASED[name]
    assert z_scores(rollouts[critic], estimator, TRUE_GRADIENT, DISCOUNT).max() < 4


def test_the_check_sees_a_wrong_sign(rollouts):
    z = z_scores(rollouts["right"], RewardToGo(DISCOUNT), -TRUE_GRADIENT, DISCOUNT)
    assert z.max() > 10


@pytest.mark.parametrize("lam", [0.0, 0.6])
def test_gae_with_a_wrong_critic_is_biased_by_exactly_what_theory_says(rollouts, lam):
    expected = tabular.expected_gae(MDP, PROBS, WRONG_VALUES, lam)
    expected -= (PROBS * expected).sum(axis=1, keepdims=True)
    visitation = tabular.state_visitation(MDP, PROBS)
    biased = visitation[:, None] * PROBS * expected
    estimator = GAE(DISCOUNT, lam)
    assert z_scores(rollouts["wrong"], estimator, biased, DISCOUNT).max() < 4
    assert z_scores(rollouts["wrong"], estimator, TRUE_GRADIENT, DISCOUNT).max() > 10


def test_dropping_the_state_discount_estimates_another_gradient(rollouts):
    """What everybody does: advantages of the discounted task, states weighted as visited."""
    other = tabular.policy_gradient(MDP, LOGITS, state_discount=1.0)
    estimator = GAE(DISCOUNT, 0.95)
    assert z_scores(rollouts["right"], estimator, other, 1.0).max() < 4
    assert z_scores(rollouts["right"], estimator, TRUE_GRADIENT, 1.0).max() > 10


def test_the_state_visitation_is_what_episodes_visit(rollouts):
    rollout = rollouts["right"]
    states, episodes = rollout.observations[rollout.valid], np.nonzero(rollout.valid)[1]
    weight = DISCOUNT ** rollout.time[rollout.valid]
    counts = np.zeros((EPISODES, 5))
    np.add.at(counts, (episodes, states), weight)
    error = counts.std(axis=0, ddof=1) / np.sqrt(EPISODES)
    z = (counts.mean(axis=0) - tabular.state_visitation(MDP, PROBS)) / error
    assert np.abs(z).max() < 4


def test_returns_have_the_exact_mean(rollouts):
    rollout = rollouts["right"]
    weight = DISCOUNT**rollout.time * rollout.valid
    returns = (rollout.rewards * weight).sum(axis=0)
    z = (returns.mean() - tabular.expected_return(MDP, PROBS)) / (
        returns.std(ddof=1) / np.sqrt(EPISODES)
    )
    assert abs(z) < 4
