"""Fisher-vector products against dense matrices and the KL's curvature; the natural direction."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from helpers import chain_mdp, exact_batch, logits_of, table_policy

import minirl  # noqa: F401  (registers the environments)
from minirl.algorithms import NaturalGradient
from minirl.algorithms.natural_gradient import fisher_vector_product, natural_direction
from minirl.algorithms.policy_gradient import policy_gradient_loss
from minirl.checks import finite_difference
from minirl.exact import FiniteMDP, tabular
from minirl.policy import make_policy

RNG = np.random.default_rng


def gradient_of(policy, batch):
    old, cache = policy.forward(batch.observations)
    return old, cache, -policy.vjp(cache, policy_gradient_loss(old, batch)[1])


@pytest.mark.parametrize("action_space", [spaces.Discrete(3), spaces.Box(-1, 1, (2,))])
def test_the_product_is_the_second_derivative_of_the_mean_kl(action_space):
    rng = RNG(1)
    policy = make_policy(
        spaces.Box(-1, 1, (3,)), action_space, rng, hidden_sizes=(5,), dtype="float64"
    )
    policy = policy.with_parameters(0.5 * rng.standard_normal(policy.network.size))
    observations, weight = rng.standard_normal((9, 3)), rng.uniform(0.1, 1, 9)
    old, cache = policy.forward(observations)

    def grad_kl(theta):
        new, new_cache = policy.with_parameters(theta).forward(observations)
        return policy.vjp(new_cache, weight[:, None] * old.grad_kl(new, wrt="other"))

    for _ in range(4):
        vector = rng.standard_normal(policy.network.size)
        truth = finite_difference(grad_kl, policy.parameters, vector, step=1e-5)
        found = fisher_vector_product(policy, cache, old, weight, vector)
        assert np.allclose(found, truth, atol=1e-7)


@pytest.mark.parametrize("env", ["minirl/Chain-v0", "FrozenLake-v1", "minirl/GridWorld-v0"])
def test_undamped_converged_direction_is_the_exact_natural_gradient(env):
    mdp = FiniteMDP.from_gymnasium(gym.make(env), 0.9)
    policy = table_policy(mdp, RNG(3), scale=0.3)
    batch = exact_batch(mdp, policy)
    old, cache, gradient = gradient_of(policy, batch)
    solution = natural_direction(
        policy, cache, old, batch, gradient, damping=0.0, iterations=policy.network.size
    )
    truth = tabular.natural_gradient(mdp, logits_of(mdp, policy)).ravel()
    # The least-norm solution leaves states that are never visited alone, as the truth does.
    assert np.allclose(solution.x, truth, atol=1e-6 * np.abs(truth).max())


@pytest.mark.parametrize("damping", [0.01, 1.0])
def test_the_damped_direction_solves_the_damped_dense_system(damping):
    mdp = chain_mdp()
    policy = table_policy(mdp, RNG(7))
    old, cache, gradient = gradient_of(policy, batch := exact_batch(mdp, policy))
    fisher = tabular.fisher_matrix(mdp, logits_of(mdp, policy))
    truth = np.linalg.solve(fisher + damping * np.eye(len(fisher)), gradient)
    solution = natural_direction(
        policy, cache, old, batch, gradient, damping=damping, iterations=20
    )
    assert np.allclose(solution.x, truth, rtol=1e-9, atol=1e-12)


def test_one_update_is_one_step_of_fixed_size():
    mdp = chain_mdp()
    policy = table_policy(mdp, RNG(4))
    algorithm = NaturalGradient(
        step_size=0.3, damping=0.0, cg_iterations=10, normalize_advantages=False
    )
    state, metrics = algorithm.update(algorithm.init(policy), exact_batch(mdp, policy), RNG(0))
    step = (state.policy.parameters - policy.parameters).reshape(mdp.rewards.shape)
    truth = 0.3 * tabular.natural_gradient(mdp, logits_of(mdp, policy))
    assert np.allclose(step, truth, atol=1e-8)
    assert metrics["cg_residual"] < 1e-6


def test_zero_advantages_move_nothing():
    mdp = chain_mdp()
    policy = table_policy(mdp, RNG(6))
    batch = exact_batch(mdp, policy)
    batch = replace(batch, advantages=np.zeros(len(batch)))
    algorithm = NaturalGradient()
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(0))
    assert np.array_equal(state.policy.parameters, policy.parameters)
    assert metrics["cg_residual"] == 0
