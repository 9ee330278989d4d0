"""Sampled learning reaches the exact optimum's neighbourhood: small, seeded, with room to spare."""

import gymnasium as gym
import numpy as np
import pytest

import minirl
from minirl import (
    GAE,
    TRPO,
    CriticFit,
    DiagonalGaussian,
    Linear,
    Policy,
    Settings,
    WithLogStd,
    train,
)
from minirl.exact import FiniteMDP, LQRProblem, lqr, tabular

DISCOUNT = 0.99  # of the presets


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(
    ("env", "name", "total_steps", "least"),
    [
        ("FrozenLake-v1", "trpo", 200_000, 0.95),
        ("FrozenLake-v1", "policy-gradient", 250_000, 0.90),
        ("minirl/GridWorld-v0", "trpo", 60_000, 0.95),
        ("minirl/GridWorld-v0", "policy-gradient", 60_000, 0.90),
    ],
)
def test_the_share_of_the_optimum_computed_exactly(env, name, total_steps, least, seed):
    mdp = FiniteMDP.from_gymnasium(gym.make(env), DISCOUNT)
    optimum = mdp.start @ tabular.optimal_values(mdp)[0]
    policy = train(env, name, total_steps=total_steps, seed=seed).policy
    probs = tabular.softmax_policy(policy.parameters.reshape(mdp.rewards.shape))
    assert tabular.expected_return(mdp, probs) >= least * optimum


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_sampled_linear_policy_comes_within_five_percent_of_riccati(seed):
    problem = LQRProblem.from_gymnasium(gym.make("minirl/LQR-v0"), 0.95)
    quiet = np.array([-20.0])  # log std: the noise of learning left out
    optimum = lqr.expected_return(problem, lqr.optimal_gain(problem), quiet)
    network = WithLogStd(Linear(2, 1), 1, initial_log_std=-0.5)
    policy = Policy(network, DiagonalGaussian, network.init(np.random.default_rng(0)))
    start = lqr.expected_return(problem, np.zeros((1, 2)), quiet)
    assert start < 1.5 * optimum  # returns are negative: far below the optimum
    policy = train(
        "minirl/LQR-v0",
        TRPO(max_kl=0.02, damping=1e-3, normalize_advantages=True),
        total_steps=60_000,
        seed=seed,
        settings=Settings(advantages=GAE(0.95, 0.95), critic_fit=CriticFit(learning_rate=3e-3)),
        policy=policy,
    ).policy
    gain = policy.parameters[:2].reshape(2, 1).T
    assert lqr.expected_return(problem, gain, quiet) > 1.05 * optimum


@pytest.mark.parametrize("name", ["policy-gradient", "natural-gradient", "trpo", "ppo"])
def test_cartpole_is_learned(name):
    """A random policy earns about 22; here all four are beyond 100 after 25,000 steps."""
    result = train("CartPole-v1", name, total_steps=25_000, seed=0)
    assert result.history.final_return() > 80
    assert minirl.evaluate("CartPole-v1", result.policy, episodes=20).mean > 150
