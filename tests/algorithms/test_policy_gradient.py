"""The policy gradient against the exact gradient of a whole MDP and finite differences."""

from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from helpers import chain_mdp, exact_batch, learning_problem, logits_of, table_policy

import minirl  # noqa: F401  (registers the environments)
from minirl.algorithms import PolicyGradient
from minirl.algorithms.policy_gradient import entropy_bonus, policy_gradient_loss
from minirl.checks import finite_difference
from minirl.distributions import Categorical, DiagonalGaussian
from minirl.exact import FiniteMDP, tabular
from minirl.optimizers import SGD

RNG = np.random.default_rng


def gradient(policy, batch):
    distribution, cache = policy.forward(batch.observations)
    return -policy.vjp(cache, policy_gradient_loss(distribution, batch)[1])


@pytest.mark.parametrize("env", ["minirl/Chain-v0", "FrozenLake-v1"])
def test_exact_weights_of_all_pairs_give_the_exact_gradient(env):
    mdp = FiniteMDP.from_gymnasium(gym.make(env), 0.95)
    policy = table_policy(mdp, RNG(0))
    truth = tabular.policy_gradient(mdp, logits_of(mdp, policy))
    assert np.allclose(gradient(policy, exact_batch(mdp, policy)), truth.ravel(), atol=1e-12)


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize("loss", ["policy_gradient_loss", "entropy_bonus"])
def test_loss_derivatives_against_finite_differences(loss, continuous):
    rng = RNG(4)
    _, batch = learning_problem(4, continuous=continuous, n=12)
    kind = DiagonalGaussian if continuous else Categorical
    eta = rng.standard_normal((12, 4 if continuous else 3))

    def evaluate(eta):
        if loss == "entropy_bonus":
            return entropy_bonus(kind(eta), batch, 0.3)
        return policy_gradient_loss(kind(eta), batch)

    for _ in range(5):
        direction = rng.standard_normal(eta.shape)
        truth = finite_difference(lambda eta: evaluate(eta)[0], eta, direction)
        assert np.isclose((evaluate(eta)[1] * direction).sum(), truth, atol=1e-8)


def test_one_update_is_one_sgd_step_up_the_gradient():
    mdp = chain_mdp()
    policy = table_policy(mdp, RNG(6))
    batch = exact_batch(mdp, policy)
    algorithm = PolicyGradient(learning_rate=0.5, optimizer=SGD(), normalize_advantages=False)
    state, metrics = algorithm.update(algorithm.init(policy), batch, RNG(0))
    expected = policy.parameters + 0.5 * gradient(policy, batch)
    assert np.allclose(state.policy.parameters, expected, atol=1e-15)
    assert np.isclose(metrics["gradient_norm"], np.linalg.norm(gradient(policy, batch)))
    assert metrics["gradient_equivalents"] == len(batch)


def test_without_an_entropy_bonus_an_action_may_be_ruled_out():
    """A logit of -inf, for which the entropy has no gradient that a computer could find."""
    policy, batch = learning_problem(8)
    batch = replace(batch, actions=np.minimum(batch.actions, 1))
    theta = policy.parameters.copy()
    theta[-1] = -np.inf
    algorithm = PolicyGradient()
    with np.errstate(invalid="ignore"):  # the entropy is reported as nan
        state, metrics = algorithm.update(
            algorithm.init(policy.with_parameters(theta)), batch, RNG(0)
        )
    assert np.isfinite(metrics["gradient_norm"])
    np.testing.assert_array_equal(np.isfinite(state.policy.parameters), np.isfinite(theta))
