"""What several test files share: a small MDP, rollouts, batches and policies to learn from."""

from dataclasses import astuple

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from minirl.batch import Batch, Rollout
from minirl.checks import enumerated_batch
from minirl.distributions import Categorical
from minirl.exact import FiniteMDP, tabular
from minirl.networks import Table
from minirl.policy import Policy, make_policy
from minirl.support.history import TIMES


def chain_mdp(discount=0.9):
    return FiniteMDP.from_gymnasium(gym.make("minirl/Chain-v0"), discount)


def table_policy(mdp, rng, scale=0.5):
    states, actions = mdp.rewards.shape
    theta = scale * rng.standard_normal(states * actions)
    return Policy(Table(states, actions), Categorical, theta)


def logits_of(mdp, policy):
    return policy.parameters.reshape(mdp.rewards.shape)


def exact_batch(mdp, policy):
    """The batch of all state-action pairs, weighted by their exact visitation."""
    probs = tabular.softmax_policy(logits_of(mdp, policy))
    visitation = tabular.state_visitation(mdp, probs)
    return enumerated_batch(policy, visitation, tabular.action_values(mdp, probs))


def gradient_by_differences(function, point, step=1e-5):
    """Derivative of function(point), entry by entry."""
    gradient = np.zeros(point.shape)
    for index in np.ndindex(point.shape):
        bump = np.zeros(point.shape)
        bump[index] = step
        gradient[index] = (function(point + bump) - function(point - bump)) / (2 * step)
    return gradient


def every_path(words, longest, node=0, steps=()):
    """(number, [(context, token), ...]) of each response of a tree; the token `words` is EOS."""
    if len(steps) == longest:
        yield node, [*steps]
        return
    yield node, [*steps, (node, words)]
    for word in range(words):
        yield from every_path(words, longest, words * node + 1 + word, (*steps, (node, word)))


def make_rollout(shape, **columns):
    """T rows of E environments, (T, E) = `shape`: zeros and valid, except for `columns`."""
    zeros, nothing = np.zeros(shape), np.zeros(0)
    names = ("observations", "actions", "log_probs", "rewards", "values", "next_values")
    return Rollout(
        **dict.fromkeys(names, zeros)
        | {"terminated": zeros > 0, "truncated": zeros > 0, "valid": zeros == 0}
        | {"time": zeros.astype(int)}
        | dict.fromkeys(("episode_ends", "episode_returns", "episode_lengths"), nothing)
        | columns
    )


def make_batch(n, dtype="float64", **columns):
    """Zeros in `n` rows of weight 1/n each, except for `columns`."""
    names = ("observations", "actions", "log_probs", "values", "advantages", "returns")
    zeros = dict.fromkeys(names, np.zeros(n, dtype))
    return Batch(**zeros | {"weight": np.full(n, 1 / n, dtype)} | columns)


def learning_problem(seed, *, continuous=False, dtype="float64", n=64):
    """A random policy on four numbers, and a batch of its own actions, random advantages."""
    rng = np.random.default_rng(seed)
    space = spaces.Box(-1, 1, (2,)) if continuous else spaces.Discrete(3)
    policy = make_policy(spaces.Box(-1, 1, (4,)), space, rng, hidden_sizes=(8,), dtype=dtype)
    theta = policy.parameters + 0.5 * rng.standard_normal(policy.network.size)
    policy = policy.with_parameters(theta)
    observations = rng.standard_normal((n, 4)).astype(dtype)
    actions = policy.act(observations, rng)
    log_probs = policy(observations).log_prob(actions)
    advantages = rng.standard_normal(n).astype(dtype)
    return policy, make_batch(
        n,
        dtype,
        observations=observations,
        actions=actions,
        log_probs=log_probs,
        advantages=advantages,
    )


def assert_same_run(first, second):
    """Two results are equal bit for bit, except for the times that they took."""
    columns, others = first.history.columns(), second.history.columns()
    assert columns.keys() == others.keys()
    for name in columns.keys() - set(TIMES):
        np.testing.assert_array_equal(columns[name], others[name], err_msg=name)
    for name in ("episode_ends", "episode_returns", "episode_lengths"):
        np.testing.assert_array_equal(getattr(first.history, name), getattr(second.history, name))
    np.testing.assert_array_equal(first.policy.parameters, second.policy.parameters)
    np.testing.assert_array_equal(first.critic.parameters, second.critic.parameters)
    statistics = (run.policy.observation_statistics for run in (first, second))
    np.testing.assert_equal(*(found and astuple(found) for found in statistics))
    assert first.description == second.description
