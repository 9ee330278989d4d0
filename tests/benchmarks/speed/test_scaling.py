"""The page on scaling shows the stored file; what the script computes from it; PyTorch's twins.

CI has no PyTorch and skips the twins. With it:

    .venv-peers/bin/pip install pytest
    .venv-peers/bin/python -m pytest tests/benchmarks/speed/test_scaling.py
"""

import numpy as np
import pytest

from benchmarks.speed import scaling as script


def test_quartiles_and_ratios_within_a_turn():
    seconds = np.array([[1.0, 2.0], [2.0, 2.0], [3.0, 12.0]]) * 1e-6
    ours, bound = script.measurements("w", (64, 8, 0, 0), ("minirl", "bound"), seconds)
    assert (ours.contender, ours.width, ours.rows) == ("minirl", 64, 8)
    np.testing.assert_allclose([ours.lower, ours.median, ours.upper], [1.5, 2, 2.5])
    assert ours.ratio_lower == ours.ratio == ours.ratio_upper == 1
    np.testing.assert_allclose([bound.lower, bound.median, bound.upper], [2, 2, 7])
    # of 2, 1 and 4: not the ratio of the medians, which is 1
    np.testing.assert_allclose([bound.ratio_lower, bound.ratio, bound.ratio_upper], [1.5, 2, 3])


def test_the_file_comes_back_as_it_was_written():
    rows = script.STUDY.rows()
    assert [script.cells(line) for line in script.from_rows(rows)] == [[*r.values()] for r in rows]


def test_contexts_are_those_of_the_task():
    for words, length in [(2, 1), (3, 4)]:
        task = script.token_task(words, length)
        line = script.Measurement("w", 0, 0, words, length, "minirl", *[0.0] * 6)
        assert script.contexts(line) == task.num_observations - 1


def assert_same(twin, ours):
    """Equal up to float32 rounding, at the scale of the largest entry."""
    twin = twin.detach().numpy()
    np.testing.assert_allclose(twin, ours, rtol=0, atol=1e-5 * np.abs(ours).max())


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def test_the_twin_networks_have_minirls_outputs(torch):
    policy, critic = script.bounds.cartpole_networks(8)
    observations = script.bounds.random_batch(16).observations
    twins = [
        script.torch_network(ours)(torch.from_numpy(observations)) for ours in (policy, critic)
    ]
    assert_same(twins[0], policy(observations).eta)
    assert_same(twins[1][:, 0], critic.values(observations))


def test_the_twin_step_has_minirls_gradients(torch):
    ours, _ = script.bounds.ppo_step(8, 16)
    (policy, *_), (critic, *_) = ours()
    (step,) = script.torch_ppo_step(8, 16)
    twins = step()
    for twin, network, adam in [
        (twins[0], policy.policy.network, policy.optimizer),
        (twins[1], critic.critic.network, critic.optimizer),
    ]:
        gradient = torch.cat([parameter.grad.ravel() for parameter in twin.parameters()])
        # after its first step Adam's mean is a tenth of the gradient
        assert_same(gradient, 10 * script.torch_vector(network, adam.mean).numpy())


def test_the_twin_has_minirls_fisher_vector_product(torch):
    ours, _ = script.bounds.fisher_product(8, 16)
    network = script.bounds.cartpole_networks(8)[0].network
    (product,) = script.torch_fisher_product(8, 16)
    assert_same(product(), script.torch_vector(network, ours()).numpy())
