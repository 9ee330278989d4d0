"""A batch of every state-action pair of a small MDP with its exact weight and advantage."""

import gymnasium as gym
import numpy as np

from minirl.batch import Batch
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
    """weight = d(s) pi(a|s), advantages = A(s, a): sums over rows are exact expectations."""
    probs = tabular.softmax_policy(logits_of(mdp, policy))
    states, actions = (index.ravel() for index in np.indices(probs.shape))
    visitation = tabular.state_visitation(mdp, probs)
    values = tabular.state_values(mdp, probs)
    return Batch(
        observations=states,
        actions=actions,
        log_probs=np.log(probs).ravel(),
        values=values[states],
        advantages=tabular.advantages(mdp, probs).ravel(),
        returns=tabular.action_values(mdp, probs).ravel(),
        weight=(visitation[:, None] * probs).ravel(),
    )
