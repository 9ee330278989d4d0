"""A small MDP, a policy and a batch for it, and a gradient by central differences."""

import gymnasium as gym
import numpy as np

from minirl.checks import enumerated_batch
from minirl.distributions import Categorical
from minirl.exact import FiniteMDP, tabular
from minirl.networks import Table
from minirl.policy import Policy


def chain_mdp(discount=0.9):
    return FiniteMDP.from_gymnasium(gym.make("minirl/Chain-v0"), discount)


def table_policy(mdp, rng, scale=0.5):
    states, actions = mdp.rewards.shape
    theta = scale * rng.standard_normal(states * actions)
    return Policy(Table(states, actions), Categorical, theta)


def logits_of(mdp, policy):
    return policy.parameters.reshape(mdp.rewards.shape)


def exact_batch(mdp, policy):
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
