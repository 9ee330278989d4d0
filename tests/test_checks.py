"""The oracles themselves: each passes right code and catches code broken in the usual ways."""

import numpy as np
import pytest
from helpers import chain_mdp, logits_of, table_policy

from minirl.checks import (
    check_fisher_product,
    check_jvp,
    check_vjp,
    enumerated_batch,
    finite_difference,
    three_sigma,
)
from minirl.distributions import Categorical, DiagonalGaussian
from minirl.exact import tabular
from minirl.networks import MLP, Table

NETWORK = MLP((3, 4, 2), dtype="float64")


class FlippedJvp(MLP):
    def jvp(self, cache, dtheta):
        return -super().jvp(cache, dtheta)


class ForgottenBias(MLP):
    def jvp(self, cache, dtheta):
        dtheta = dtheta.copy()
        dtheta[-2:] = 0.0
        return super().jvp(cache, dtheta)

    def vjp(self, cache, dy):
        dtheta = super().vjp(cache, dy)
        dtheta[-2:] = 0.0
        return dtheta


class ForgottenSlope(MLP):
    def jvp(self, cache, dtheta):
        cache._slopes = [np.ones_like(slope) for slope in cache.slopes()]
        return super().jvp(cache, dtheta)

    def vjp(self, cache, dy):
        cache._slopes = [np.ones_like(slope) for slope in cache.slopes()]
        return super().vjp(cache, dy)


class FlippedVjp(MLP):
    def vjp(self, cache, dy):
        return -super().vjp(cache, dy)


class OverwritingTable(Table):
    """Assigns where repeated states must be added up."""

    def vjp(self, cache, dy):
        dtheta = np.zeros((self.states, self.outputs))
        dtheta[cache] = dy
        return dtheta.ravel()


class NanJvp(MLP):
    def jvp(self, cache, dtheta):
        return super().jvp(cache, dtheta) * np.nan


def point(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=NETWORK.size), rng.normal(size=(5, 3)), rng


def test_finite_difference_of_known_functions():
    x, d = np.array([0.3, -1.2]), np.array([2.0, 0.5])  # orthogonal: x^T d = 0
    np.testing.assert_allclose(finite_difference(np.sin, x, d), np.cos(x) * d, atol=1e-9)
    cubic = finite_difference(lambda v: (v**3).sum(), x, d)
    np.testing.assert_allclose(cubic, 3 * x**2 @ d, rtol=1e-8)
    # Central, not one-sided: exact on a parabola whatever the step.
    np.testing.assert_allclose(finite_difference(lambda v: v @ v, x, d, step=0.5), 0.0, atol=1e-15)


def test_right_derivatives_pass_and_their_error_is_returned():
    theta, x, rng = point()
    assert 0 <= check_jvp(NETWORK, theta, x, rng) < 1e-8
    assert 0 <= check_vjp(NETWORK, theta, x, rng) < 1e-8


@pytest.mark.parametrize("broken", [FlippedJvp, ForgottenBias, ForgottenSlope, NanJvp])
def test_a_broken_jvp_is_caught(broken):
    theta, x, rng = point()
    with pytest.raises(AssertionError, match=r"jvp is off by .* \(tolerance 1e-07\)"):
        check_jvp(broken((3, 4, 2), dtype="float64"), theta, x, rng)


@pytest.mark.parametrize("broken", [FlippedVjp, ForgottenBias, ForgottenSlope])
def test_a_broken_vjp_is_caught(broken):
    theta, x, rng = point()
    with pytest.raises(AssertionError, match="vjp is off by"):
        check_vjp(broken((3, 4, 2), dtype="float64"), theta, x, rng)


def test_a_table_that_overwrites_is_caught_only_by_repeated_states():
    rng = np.random.default_rng(1)
    table, theta = OverwritingTable(3, 2), rng.normal(size=6)
    check_vjp(table, theta, np.array([0, 2]), rng)
    with pytest.raises(AssertionError, match="vjp is off by"):
        check_vjp(table, theta, np.array([0, 2, 2]), rng)


class SignlessFisher(Categorical):
    """Forgets the p p^T."""

    def fisher_product(self, d_eta):
        return self.probs * d_eta


class HalfFisher(DiagonalGaussian):
    """Counts the log std once, not twice."""

    def fisher_product(self, d_eta):
        product = super().fisher_product(d_eta)
        product[:, product.shape[1] // 2 :] /= 2
        return product


class NegativeFisher(Categorical):
    def fisher_product(self, d_eta):
        return -super().fisher_product(d_eta)


def test_fisher_products_right_and_broken():
    rng = np.random.default_rng(2)
    eta = rng.normal(size=(3, 4))
    for right in (Categorical, DiagonalGaussian):
        assert 0 <= check_fisher_product(right, eta, rng) < 1e-8
    for broken in (SignlessFisher, HalfFisher, NegativeFisher):
        with pytest.raises(AssertionError, match="fisher_product is off by"):
            check_fisher_product(broken, eta, rng)


def test_the_tolerance_is_the_callers():
    theta, x, rng = point()
    with pytest.raises(AssertionError, match="jvp is off by"):
        check_jvp(NETWORK, theta, x, rng, tolerance=1e-16)
    check_jvp(FlippedJvp((3, 4, 2), dtype="float64"), theta, x, rng, tolerance=10.0)


class OffByAQuarter:
    """y = theta x, with a derivative a quarter too large."""

    def forward(self, theta, x):
        return theta * x, x

    def jvp(self, cache, dtheta):
        return dtheta * cache + 0.25


@pytest.mark.parametrize(("x", "error"), [(1e-3, 0.25), (1e3, 0.25 / 1e3)])
def test_errors_are_relative_to_the_truth_above_one_and_absolute_below(x, error):
    """And an error of the tolerance itself is tolerated."""

    class Ones:
        def standard_normal(self, shape):
            return np.ones(shape)

    arguments = OffByAQuarter(), np.zeros(1), np.array([x]), Ones()
    found = check_jvp(*arguments, tolerance=1.0)
    assert found == pytest.approx(error, rel=1e-6)
    assert check_jvp(*arguments, tolerance=found) == found


def test_z_scores_by_hand():
    """Samples 1, 2, 3: mean 2, standard error 1 / sqrt(3)."""
    samples = np.array([1.0, 2.0, 3.0])
    np.testing.assert_allclose(three_sigma(samples, 1.0), np.sqrt(3), rtol=1e-14)
    np.testing.assert_allclose(three_sigma(samples, 3.0), -np.sqrt(3), rtol=1e-14)
    assert three_sigma(samples, 2.0) == 0.0
    with pytest.raises(AssertionError, match=r"3\.5 standard errors"):
        three_sigma(samples, 0.0)
    three_sigma(samples, 0.0, sigmas=4.0)
    z = float(three_sigma(samples, 1.0))
    assert three_sigma(samples, 1.0, sigmas=z) == z  # the bound itself is inside


def test_each_entry_has_its_own_mean_and_spread_and_one_that_is_wrong_is_enough():
    """Entries 1, 2, 3 and 10, 20, 30: standard errors 1 / sqrt(3) and 10 / sqrt(3)."""
    samples = np.array([[[1.0, 10.0]], [[2.0, 20.0]], [[3.0, 30.0]]])
    z = three_sigma(samples, [[2.0, 10.0]])
    np.testing.assert_allclose(z, [[0.0, np.sqrt(3)]], rtol=1e-14)
    with pytest.raises(AssertionError, match="standard errors"):
        three_sigma(samples, [[2.0, 0.0]])


@pytest.mark.parametrize("distance", [0.5, 10.0, 1e6])
def test_samples_without_spread_are_right_only_if_equal(distance):
    three_sigma(np.full(5, 3.0), 3.0)
    with pytest.raises(AssertionError, match="standard errors"):
        three_sigma(np.full(5, 3.0 + distance), 3.0)


def test_a_nan_is_never_right():
    with pytest.raises(AssertionError, match="nan standard errors"):
        three_sigma(np.array([1.0, np.nan, 2.0]), 1.0)


def test_sums_over_an_enumerated_batch_are_exact_expectations():
    mdp = chain_mdp()
    policy = table_policy(mdp, np.random.default_rng(0))
    probs = tabular.softmax_policy(logits_of(mdp, policy))
    visitation = tabular.state_visitation(mdp, probs)
    batch = enumerated_batch(policy, visitation, tabular.action_values(mdp, probs))
    rewards = mdp.rewards[batch.observations, batch.actions]
    values = tabular.state_values(mdp, probs)
    assert np.isclose(batch.weight @ rewards, tabular.expected_return(mdp, probs))
    assert np.allclose(batch.advantages, tabular.advantages(mdp, probs).ravel())
    assert np.allclose(batch.values, values[batch.observations])
    assert np.allclose(batch.returns - batch.values, batch.advantages)
    assert np.allclose(np.exp(batch.log_probs), probs.ravel())
