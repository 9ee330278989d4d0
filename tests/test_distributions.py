"""Distributions against scipy, enumeration, quadrature, central differences and samples."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
from helpers import gradient_by_differences
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minirl.checks import three_sigma
from minirl.distributions import Categorical, DiagonalGaussian

FAMILIES = [Categorical, DiagonalGaussian]
quick = settings(derandomize=True, max_examples=40, deadline=None, database=None)


def random_eta(rng, rows=5, width=4):
    return rng.normal(size=(rows, width))


def test_categorical_values_equal_direct_sums_and_scipy():
    rng = np.random.default_rng(0)
    eta, other_eta = random_eta(rng), random_eta(rng)
    p_all, q_all = Categorical(eta), Categorical(other_eta)
    actions = np.array([0, 1, 2, 3, 1])
    for row in range(5):
        p, q = scipy.special.softmax(eta[row]), scipy.special.softmax(other_eta[row])
        np.testing.assert_allclose(p_all.probs[row], p, rtol=1e-14)
        np.testing.assert_allclose(p_all.log_prob(actions)[row], np.log(p[actions[row]]))
        np.testing.assert_allclose(p_all.entropy()[row], scipy.stats.entropy(p), rtol=1e-13)
        np.testing.assert_allclose(p_all.kl(q_all)[row], scipy.stats.entropy(p, q), rtol=1e-12)
        np.testing.assert_allclose(q_all.kl(p_all)[row], scipy.stats.entropy(q, p), rtol=1e-12)


def test_gaussian_values_equal_scipy_and_quadrature():
    rng = np.random.default_rng(1)
    eta, other_eta = random_eta(rng), random_eta(rng)
    p_all, q_all = DiagonalGaussian(eta), DiagonalGaussian(other_eta)
    actions = rng.normal(size=(5, 2))
    for row in range(5):
        p = scipy.stats.multivariate_normal(eta[row, :2], np.diag(np.exp(2 * eta[row, 2:])))
        np.testing.assert_allclose(p_all.log_prob(actions)[row], p.logpdf(actions[row]))
        np.testing.assert_allclose(p_all.entropy()[row], p.entropy())
        divergence = 0.0
        for k in range(2):
            p_k = scipy.stats.norm(eta[row, k], np.exp(eta[row, 2 + k]))
            q_k = scipy.stats.norm(other_eta[row, k], np.exp(other_eta[row, 2 + k]))
            divergence += p_k.expect(lambda a, p=p_k, q=q_k: p.logpdf(a) - q.logpdf(a))
        np.testing.assert_allclose(p_all.kl(q_all)[row], divergence, rtol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_derivatives_equal_central_differences(family):
    rng = np.random.default_rng(2)
    eta, other_eta = random_eta(rng), random_eta(rng)
    distribution, other = family(eta), family(other_eta)
    actions = distribution.sample(rng)
    for found, function, at in (
        (distribution.grad_log_prob(actions), lambda x: family(x).log_prob(actions), eta),
        (distribution.grad_entropy(), lambda x: family(x).entropy(), eta),
        (distribution.grad_kl(other, wrt="self"), lambda x: family(x).kl(other), eta),
        (distribution.grad_kl(other, wrt="other"), lambda x: distribution.kl(family(x)), other_eta),
    ):
        truth = gradient_by_differences(lambda x, f=function: f(x).sum(), at)
        np.testing.assert_allclose(found, truth, rtol=1e-7, atol=1e-8)


def test_categorical_fisher_is_the_enumerated_score_covariance():
    eta = random_eta(np.random.default_rng(3))
    distribution = Categorical(eta)
    columns = [distribution.fisher_product(np.tile(unit, (5, 1))) for unit in np.eye(4)]
    scores = [distribution.grad_log_prob(np.full(5, a)) for a in range(4)]
    for row in range(5):
        p = scipy.special.softmax(eta[row])
        mean = sum(p[a] * scores[a][row] for a in range(4))
        covariance = sum(p[a] * np.outer(scores[a][row], scores[a][row]) for a in range(4))
        np.testing.assert_allclose(mean, np.zeros(4), atol=1e-15)
        found = np.stack([column[row] for column in columns], axis=1)
        np.testing.assert_allclose(found, covariance, atol=1e-15)


def test_gaussian_fisher_is_the_score_covariance_by_quadrature():
    """Gauss-Hermite quadrature on a 5 x 5 grid is exact: squared scores are quartic in z."""
    eta = random_eta(np.random.default_rng(4), rows=1)
    nodes, weights = np.polynomial.hermite_e.hermegauss(5)
    z = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2)
    weight = np.outer(weights, weights).ravel() / (2 * np.pi)
    actions = eta[:, :2] + np.exp(eta[:, 2:]) * z
    scores = DiagonalGaussian(np.repeat(eta, len(z), axis=0)).grad_log_prob(actions)
    np.testing.assert_allclose(weight @ scores, np.zeros(4), atol=1e-12)
    distribution = DiagonalGaussian(np.repeat(eta, 4, axis=0))
    found = distribution.fisher_product(np.eye(4))  # one row each; the matrix is symmetric
    covariance = scores.T @ (weight[:, None] * scores)
    np.testing.assert_allclose(found, covariance, rtol=1e-11, atol=1e-11)


def test_categorical_frequencies():
    rng = np.random.default_rng(8)
    probabilities = np.array([0.5, 0.2, 0.3])
    actions = Categorical(np.log(np.tile(probabilities, (20_000, 1)))).sample(rng)
    assert actions.shape == (20_000,)
    assert actions.dtype == np.int64
    drawn = actions[:, None] == np.arange(3)
    three_sigma(drawn, probabilities)
    with pytest.raises(AssertionError, match="standard errors"):
        three_sigma(drawn, probabilities[::-1])


def test_an_action_is_the_mean_plus_the_spread_times_the_generators_noise():
    """So the same generator moves the actions of two policies alike, never against each other."""
    eta = random_eta(np.random.default_rng(14), rows=3)
    noise = np.random.default_rng(15).standard_normal((3, 2))
    actions = DiagonalGaussian(eta).sample(np.random.default_rng(15))
    np.testing.assert_array_equal(actions, eta[:, :2] + np.exp(eta[:, 2:]) * noise)


class FixedDraws:
    """A generator whose uniform numbers are the given ones."""

    def __init__(self, uniforms):
        self.uniforms = np.array(uniforms)

    def random(self, size):
        assert size == len(self.uniforms)
        return self.uniforms


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("impossible", [(0,), (2,), (4,), (0, 1), (3, 4), (0, 2, 4)])
def test_an_action_of_probability_zero_is_never_drawn(dtype, impossible):
    """Also not by the two extreme uniform numbers, 0 and the one below 1."""
    draws = [0.0, np.nextafter(1.0, 0.0), *np.random.default_rng(10).random(2_000)]
    logits = np.random.default_rng(11).normal(size=(len(draws), 5))
    logits[:, impossible] = -1e4
    distribution = Categorical(logits.astype(dtype))
    assert (distribution.probs[:, impossible] == 0).all()
    actions = distribution.sample(FixedDraws(draws))
    possible = [a for a in range(5) if a not in impossible]
    assert set(actions) == set(possible)


def test_many_rounded_probabilities_never_yield_an_action_too_many():
    """In float32 the sum of 1000 equal probabilities misses 1 by more than the last draw does."""
    distribution = Categorical(np.zeros((1, 1000), dtype="float32"))
    assert distribution.sample(FixedDraws([np.nextafter(1.0, 0.0)])) == [999]


def test_modes():
    eta = np.array([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0]])
    np.testing.assert_array_equal(Categorical(eta).mode(), [1, 0])
    np.testing.assert_array_equal(DiagonalGaussian(np.array([[7.0, 5.0]])).mode(), [[7.0]])


@pytest.mark.parametrize("family", FAMILIES)
def test_float32_is_kept_and_close_to_float64(family):
    rng = np.random.default_rng(12)
    eta, other_eta = random_eta(rng), random_eta(rng)
    actions = family(eta).sample(rng)

    def numbers(dtype):
        distribution, other = family(eta.astype(dtype)), family(other_eta.astype(dtype))
        at = actions.astype(dtype) if family is DiagonalGaussian else actions
        return {
            "log_prob": distribution.log_prob(at),
            "entropy": distribution.entropy(),
            "kl": distribution.kl(other),
            "grad_log_prob": distribution.grad_log_prob(at),
            "grad_entropy": distribution.grad_entropy(),
            "grad_kl": distribution.grad_kl(other, wrt="self"),
            "grad_kl of other": distribution.grad_kl(other, wrt="other"),
            "fisher_product": distribution.fisher_product(other_eta.astype(dtype)),
        }

    exact = numbers("float64")
    for name, short in numbers("float32").items():
        assert short.dtype == np.float32, name
        np.testing.assert_allclose(short, exact[name], rtol=1e-4, atol=1e-4, err_msg=name)
    if family is DiagonalGaussian:
        short = family(eta.astype("float32"))
        assert short.sample(rng).dtype == short.mode().dtype == np.float32


@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_handed_in_is_changed(family):
    rng = np.random.default_rng(13)
    for rows in (1, 5):  # one row: its transpose is contiguous, so a view where others copy
        eta, other_eta, direction = (random_eta(rng, rows) for _ in range(3))
        copies = eta.copy(), other_eta.copy(), direction.copy()
        distribution, other = family(eta), family(other_eta)
        actions = distribution.sample(rng)
        before = distribution.log_prob(actions)
        distribution.grad_log_prob(actions)
        distribution.grad_entropy()
        distribution.grad_kl(other, wrt="self")
        distribution.grad_kl(other, wrt="other")
        distribution.fisher_product(direction)
        np.testing.assert_array_equal(distribution.log_prob(actions), before)
        for array, copy in zip((eta, other_eta, direction), copies, strict=True):
            np.testing.assert_array_equal(array, copy)


def logits(dtype):
    rows = st.integers(1, 3)
    entries = st.floats(-1e4, 1e4, width=32)
    return rows.flatmap(lambda n: arrays(dtype, (2 * n, 4), elements=entries))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@quick
@given(data=st.data())
def test_extreme_logits_leave_everything_finite(dtype, data):
    eta, other_eta = np.split(data.draw(logits(dtype)), 2)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        p, q = Categorical(eta), Categorical(other_eta)
        actions = p.sample(np.random.default_rng(0))
        chosen = p.log_prob(actions)
        outputs = [
            chosen,
            q.log_prob(actions),
            p.entropy(),
            p.kl(q),
            p.grad_log_prob(actions),
            p.grad_entropy(),
            p.grad_kl(q, wrt="self"),
            p.grad_kl(q, wrt="other"),
            p.fisher_product(other_eta),
        ]
    for output in outputs:
        assert np.isfinite(output).all()
    np.testing.assert_allclose(p.probs.sum(axis=1), 1.0, rtol=1e-6 if dtype == "float32" else 1e-14)
    assert (p.probs[np.arange(len(eta)), actions] > 0).all()
    assert (chosen <= 0).all()
    assert (p.entropy() >= 0).all()
    assert (p.entropy() <= np.log(4) + tolerance).all()
    assert (p.kl(q) >= -tolerance).all()


@quick
@given(arrays("float64", (2, 3), elements=st.floats(-20, 20)), st.floats(-1e4, 1e4))
def test_adding_a_constant_to_the_logits_changes_nothing(eta, shift):
    """Up to the rounding of the shifted logits themselves: 1e4 has 12 decimals left."""
    p, shifted = Categorical(eta), Categorical(eta + shift)
    np.testing.assert_allclose(shifted.probs, p.probs, rtol=1e-11)
    np.testing.assert_allclose(shifted.log_prob(np.array([0, 2])), p.log_prob(np.array([0, 2])))
    np.testing.assert_allclose(shifted.kl(p), [0.0, 0.0], atol=1e-11)
    # Nor does a constant in a direction reach the Fisher product.
    np.testing.assert_allclose(p.fisher_product(np.full((2, 3), shift)), 0.0, atol=1e-11)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("excluded", [0, 1, 2])
def test_an_excluded_action_changes_nothing_for_the_others(excluded, dtype):
    """Every value equals that of the distribution over the other two actions."""
    rng = np.random.default_rng(9)
    two, other_two = (rng.normal(size=(4, 2)).astype(dtype) for _ in range(2))
    three, other_three = (np.insert(eta, excluded, -np.inf, axis=1) for eta in (two, other_two))
    p, q = Categorical(two), Categorical(other_two)
    excluding, other = Categorical(three), Categorical(other_three)

    def widened(columns):
        return np.insert(columns, excluded, 0, axis=1)

    tolerance = {"rtol": 1e-4 if dtype == "float32" else 1e-12, "atol": 1e-6}
    with np.errstate(all="raise"):
        np.testing.assert_allclose(excluding.entropy(), p.entropy(), **tolerance)
        np.testing.assert_allclose(excluding.kl(other), p.kl(q), **tolerance)
        np.testing.assert_allclose(excluding.grad_entropy(), widened(p.grad_entropy()), **tolerance)
        for wrt in ("self", "other"):
            np.testing.assert_allclose(
                excluding.grad_kl(other, wrt=wrt), widened(p.grad_kl(q, wrt=wrt)), **tolerance
            )
        direction = rng.normal(size=(4, 2)).astype(dtype)
        np.testing.assert_allclose(
            excluding.fisher_product(np.insert(direction, excluded, 5.0, axis=1)),
            widened(p.fisher_product(direction)),
            **tolerance,
        )
    many = Categorical(np.repeat(three, 1000, axis=0))
    assert not (many.sample(rng) == excluded).any()
    assert not (excluding.mode() == excluded).any()
    assert excluding.entropy().dtype == dtype


def test_excluded_actions_by_hand():
    """Certainty has no entropy; the KL is infinite where only the other excludes an action."""
    certain = Categorical(np.array([[-np.inf, 3.0, -np.inf]]))
    assert certain.entropy().tolist() == certain.kl(certain).tolist() == [0.0]
    assert certain.grad_entropy().tolist() == [[0.0, 0.0, 0.0]]
    fair, excluding = Categorical(np.zeros((1, 2))), Categorical(np.array([[0.0, -np.inf]]))
    assert fair.kl(excluding).tolist() == [np.inf]
    np.testing.assert_allclose(excluding.kl(fair), np.log(2))


@pytest.mark.parametrize("method", ["log_prob", "grad_log_prob"])
@pytest.mark.parametrize(
    ("actions", "message"),
    [
        (np.array([[0], [1], [1]]), r"actions must have shape \(3,\), got \(3, 1\)"),
        (np.array([0, 1]), r"actions must have shape \(3,\), got \(2,\)"),
        (np.array(1), r"actions must have shape \(3,\), got \(\)"),
        (np.array([0, -1, 1]), "actions must lie in 0 .. 1, got -1"),
        (np.array([0, 2, 1], dtype=np.int32), "actions must lie in 0 .. 1, got 2"),
        (np.array([0.0, 1.0, 1.0]), "actions must be whole numbers, got float64"),
        (np.array([True, False, True]), "actions must be whole numbers, got bool"),
    ],
)
def test_actions_that_a_categorical_does_not_have_are_refused(actions, message, method):
    with pytest.raises(ValueError, match=message):
        getattr(Categorical(np.zeros((3, 2))), method)(actions)


@pytest.mark.parametrize("method", ["log_prob", "grad_log_prob"])
@pytest.mark.parametrize("shape", [(3,), (2, 1), (1, 1), (3, 2), (1,)])
def test_actions_of_another_shape_are_refused_by_a_gaussian(shape, method):
    with pytest.raises(ValueError, match=r"actions must have shape \(3, 1\), got"):
        getattr(DiagonalGaussian(np.zeros((3, 2))), method)(np.zeros(shape))


@pytest.mark.parametrize(
    ("family", "shape"),
    [
        (Categorical, (3,)),
        (Categorical, (3, 0)),
        (DiagonalGaussian, (4,)),
        (DiagonalGaussian, (3, 3)),
    ],
)
def test_eta_is_a_table(family, shape):
    with pytest.raises(ValueError, match="eta must"):
        family(np.zeros(shape))


def test_no_rows_have_no_log_probabilities():
    nothing = Categorical(np.zeros((0, 2)))
    assert nothing.log_prob(np.zeros(0, dtype=int)).shape == (0,)
