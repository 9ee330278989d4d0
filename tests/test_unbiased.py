"""Sampled estimates against the exact gradient of a whole task, by Monte Carlo.

Every episode, or group of episodes, contributes one independent number per direction, so the mean
has a standard error and every claim a z-score: below 4 along eight fixed directions (and, for
sentences, along the gradient) if true, beyond 10 if it is false.
"""

import numpy as np
import pytest
from cat import describe_the_cat
from gymnasium.vector import SyncVectorEnv
from helpers import table_policy

from minirl.advantages import GAE, LeaveOneOut, RewardToGo
from minirl.algorithms.policy_gradient import policy_gradient_loss
from minirl.batch import flatten
from minirl.envs.chain import Chain
from minirl.envs.token_generation import TokenGenerationVectorEnv
from minirl.exact import FiniteMDP, sequences, tabular
from minirl.networks import Table
from minirl.policy import Critic
from minirl.rlhf.language_model import full_prefix_policy, log_table
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


def z_scores(
    rollout, estimator, truth, state_discount, policy=POLICY, directions=DIRECTIONS, unit=None
):
    """z of the sampled gradient's projections; `unit` (E,) numbers what is independent."""
    advantages, returns = estimator(rollout)
    batch = flatten(
        rollout, advantages, returns, per="episode", state_discount=state_discount, dtype="float64"
    )
    distribution, cache = policy.forward(batch.observations)
    _, d_eta = policy_gradient_loss(distribution, batch)
    unit = np.arange(rollout.valid.shape[1]) if unit is None else unit
    units = unit.max() + 1
    of_row = unit[np.nonzero(rollout.valid)[1]]
    z = []
    for direction in directions:
        rows = -(d_eta * policy.jvp(cache, direction)).sum(axis=1) * units
        # The sum over rows is the gradient's projection: jvp is the transpose of vjp.
        assert np.isclose(rows.sum(), -(policy.vjp(cache, d_eta) @ direction) * units)
        contributions = np.bincount(of_row, rows, units)
        error = contributions.std(ddof=1) / np.sqrt(units)
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


def test_weights_per_transition_divide_the_gradient_by_the_mean_length(rollouts):
    """`flatten`'s promise: the same direction, one over the mean length of an episode."""
    rollout = rollouts["right"]
    gradients = []
    for per in ("episode", "transition"):
        batch = flatten(
            rollout, *GAE(DISCOUNT)(rollout), per=per, state_discount=DISCOUNT, dtype="float64"
        )
        distribution, cache = POLICY.forward(batch.observations)
        _, d_eta = policy_gradient_loss(distribution, batch)
        gradients.append(-POLICY.vjp(cache, d_eta))
    length = rollout.episode_lengths.mean()
    assert length > 3
    assert np.allclose(gradients[1], gradients[0] / length, rtol=1e-12)
    assert np.allclose(gradients[0], TRUE_GRADIENT.ravel(), atol=0.05)


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


TASK = describe_the_cat()
SENTENCES = 20_000
WRITER = full_prefix_policy(TASK, np.random.default_rng(4).normal(scale=0.7, size=(2, 13, 4)))
LOG_POLICY = log_table(TASK, WRITER)
SENTENCE_VALUES = np.append(
    sequences.action_values(LOG_POLICY, LOG_POLICY, TASK.utilities, beta=0.0)[1], 0.0
)
SENTENCE_GRADIENT = np.append(  # nothing is learned from the row of 'ended'
    sequences.policy_gradient(LOG_POLICY, LOG_POLICY, TASK.utilities, beta=0.0), np.zeros(4)
)
SENTENCE_DIRECTIONS = np.vstack(
    [np.random.default_rng(5).standard_normal((8, len(SENTENCE_GRADIENT))), SENTENCE_GRADIENT]
)


@pytest.fixture(scope="module")
def sentences():
    """The same sentences seen by a right critic, one that is wrong, and one that knows nothing."""
    envs = TokenGenerationVectorEnv(SENTENCES, TASK)
    wrong = SENTENCE_VALUES + np.random.default_rng(6).normal(size=len(SENTENCE_VALUES))
    critics = {"right": SENTENCE_VALUES, "wrong": wrong, "zero": 0 * SENTENCE_VALUES}
    return {
        name: collect_episodes(
            envs,
            WRITER,
            Critic(Table(len(values), 1), values),
            np.random.default_rng(7),
            max_steps=TASK.max_words,
            seed=8,
            group_size=4,
        )
        for name, values in critics.items()
    }


def group_mean_baseline(rollout):
    """The return less the mean of the group, its own return included."""
    returns = np.array([rollout.rewards[rollout.valid[:, e], e].sum() for e in range(SENTENCES)])
    advantages = returns - np.repeat(returns.reshape(-1, 4).mean(axis=1), 4)
    return np.broadcast_to(advantages, rollout.rewards.shape), rollout.rewards


def sentence_z(rollout, estimator, truth=SENTENCE_GRADIENT):
    return z_scores(rollout, estimator, truth, 1.0, WRITER, SENTENCE_DIRECTIONS, rollout.group)


UNBIASED_FOR_SENTENCES = {
    "leave one out": ("zero", LeaveOneOut()),
    "reward-to-go": ("zero", RewardToGo(1.0)),
    "reward-to-go, critic baseline": ("right", RewardToGo(1.0, baseline="critic")),
    "reward-to-go, wrong critic baseline": ("wrong", RewardToGo(1.0, baseline="critic")),
    "GAE(0.9), right critic": ("right", GAE(1.0, 0.9)),
    "GAE(1), no critic": ("zero", GAE(1.0, 1.0)),
    "GAE(1), wrong critic": ("wrong", GAE(1.0, 1.0)),
}


@pytest.mark.parametrize("name", UNBIASED_FOR_SENTENCES)
def test_the_sampled_gradient_of_sentences_is_unbiased(sentences, name):
    critic, estimator = UNBIASED_FOR_SENTENCES[name]
    assert sentence_z(sentences[critic], estimator).max() < 4


def test_the_plain_group_mean_gives_three_quarters_of_the_gradient(sentences):
    assert sentence_z(sentences["zero"], group_mean_baseline, 0.75 * SENTENCE_GRADIENT).max() < 4
    assert sentence_z(sentences["zero"], group_mean_baseline).max() > 10


def test_gae_of_sentences_with_a_wrong_critic_is_biased(sentences):
    assert sentence_z(sentences["wrong"], GAE(1.0, 0.5)).max() > 10
