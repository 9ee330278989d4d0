"""What benchmarks/speed/bounds.py times: both sides of each ratio do what they are named after."""

import numpy as np

from benchmarks.speed import bounds as script


def test_bare_products_are_those_of_a_forward_and_a_backward_pass():
    products = script.BareProducts(5, (3, 4, 2))
    inputs, last = products.layers[0].copy(), products.tangents[-1].copy()
    products.forward_and_backward()
    hidden = np.tanh(inputs @ products.weights[0])
    np.testing.assert_allclose(products.gradients[1], hidden.T @ last, rtol=1e-5)
    expected = inputs.T @ (last @ products.weights[1].T)
    np.testing.assert_allclose(products.gradients[0], expected, rtol=1e-5)


def test_bare_products_of_a_fisher_vector_product():
    products = script.BareProducts(5, (3, 4, 2))
    tangent = products.layers[1] @ products.weights[1]
    products.fisher_product()
    np.testing.assert_allclose(products.gradients[1], products.layers[1].T @ tangent, rtol=1e-5)


def test_a_timed_step_moves_policy_and_critic():
    policy, critic = script.cartpole_networks(8)
    work, bound = script.ppo_step(8, 16)
    bound()
    (after, *_), (critic_after, *_) = work()
    assert np.abs(after.policy.parameters - policy.parameters).max() > 0
    assert np.abs(critic_after.critic.parameters - critic.parameters).max() > 0


def test_a_timed_run_has_the_updates_of_its_bound(monkeypatch):
    work, bound = script.whole_run(updates=2)
    calls = []
    monkeypatch.setattr(script.BareProducts, "forward", lambda self: calls.append("forward"))
    monkeypatch.setattr(script.BareProducts, "backward", lambda self: calls.append("backward"))
    bound()
    assert calls.count("backward") == 2 * 2 * 4 * 1024 // 256  # actor and critic, four epochs
    assert calls.count("forward") == 2 * 128 + calls.count("backward")
    assert work().history.rows[-1]["environment_steps"] >= 2 * 1024


def test_the_timed_fisher_product_is_positive():
    work, bound = script.fisher_product(8, 16)
    bound()
    product = work()
    assert product @ script.random_vector(product.size) > 0


def test_settings_of_the_learning_times_differ_in_what_they_name():
    (ppo, settings), (fast, fast_settings) = script.RL_ZOO, script.FASTEST
    assert (ppo.epochs, fast.epochs) == (20, 5)
    assert settings.critic_fit.learning_rate.start == 1e-3
    assert fast_settings.critic_fit.learning_rate.start == 1e-2
    assert (settings.num_envs, fast_settings.num_envs) == (8, 32)
