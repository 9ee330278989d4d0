"""pass@k against the enumeration of all groups, and its gradient against finite differences."""

import itertools
import math
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import scipy.special
from helpers import gradient_by_differences

from minirl.exact import sequences
from minirl.exact.groups import expected_update
from minirl.exact.pass_at_k import (
    centred_gradient_weights,
    gradient_weights,
    pass_at_k,
    pass_at_k_estimate,
    pass_at_k_gradient,
)

RNG = np.random.default_rng(0)
LOG_POLICY = scipy.special.log_softmax(RNG.normal(size=(2, 3, 3)), axis=-1)
REWARDS = np.array([[1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 1, 0]], dtype=float)


def groups_of(p, n):
    """Every group of n verdicts (n,), with its probability."""
    for verdicts in itertools.product([0, 1], repeat=n):
        group = np.array(verdicts)
        yield group, float(np.prod(np.where(group == 1, p, 1 - p)))


def test_pass_at_k_is_the_probability_of_a_right_response():
    for k in (1, 2, 5):
        expected = sum(chance for group, chance in groups_of(0.3, k) if group.any())
        np.testing.assert_allclose(pass_at_k(0.3, k), expected, rtol=1e-13)
    np.testing.assert_allclose(pass_at_k([0.1, 0.2], 1), [0.1, 0.2], rtol=1e-13)


@pytest.mark.parametrize(("n", "k"), [(3, 1), (4, 2), (5, 5), (6, 4)])
def test_the_estimate_is_unbiased_over_all_groups_and_the_plain_one_is_too_small(n, k):
    p, mean, plain = 0.23, 0.0, 0.0
    for group, chance in groups_of(p, n):
        mean += chance * pass_at_k_estimate(n, group.sum(), k)
        plain += chance * (1 - (1 - group.mean()) ** k)
    np.testing.assert_allclose(mean, pass_at_k(p, k), rtol=1e-13)
    if k > 1:
        assert plain < pass_at_k(p, k) - 0.01


@pytest.mark.parametrize("k", [1, 2, 7])
def test_the_gradient_is_that_of_finite_differences(k):
    def value(logits):
        log_probs = sequences.response_log_probs(scipy.special.log_softmax(logits, axis=-1))
        return np.mean(1 - (1 - (np.exp(log_probs) * REWARDS).sum(axis=1)) ** k)

    gradient = pass_at_k_gradient(LOG_POLICY, REWARDS, k)
    numeric = gradient_by_differences(value, LOG_POLICY, step=1e-6)
    np.testing.assert_allclose(gradient, numeric, rtol=0, atol=1e-9)
    if k > 1:  # the gradient of pass@1 is another one, in direction too
        other = pass_at_k_gradient(LOG_POLICY, REWARDS, 1)
        cosine = (gradient * other).sum() / np.linalg.norm(gradient) / np.linalg.norm(other)
        assert cosine < 0.99


@pytest.mark.parametrize(("n", "k"), [(3, 1), (3, 2), (4, 4), (6, 3)])
def test_the_weights_are_unbiased_over_all_groups(n, k):
    """Per unit of grad p, a score is 1/p for a right response and -1/(1 - p) for a wrong one."""
    p, plain, centred, right_only = 0.35, 0.0, 0.0, 0.0
    weights, centred_weights = gradient_weights(n, k), centred_gradient_weights(n, k)
    for group, chance in groups_of(p, n):
        score = np.where(group == 1, 1 / p, -1 / (1 - p))
        plain += chance * weights[group, group.sum()] @ score
        centred += chance * centred_weights[group, group.sum()] @ score
        right_only += chance * weights[1, group.sum()] * score[group == 1].sum()
    np.testing.assert_allclose([plain, centred], k * (1 - p) ** (k - 1), rtol=1e-12)
    if k > 1:  # k/n for right responses and nothing for wrong ones is biased
        assert abs(right_only - k * (1 - p) ** (k - 1)) > 0.05


def test_the_centred_weights_have_the_published_form_and_less_variance():
    n, k, p = 8, 4, 0.5
    centred = centred_gradient_weights(n, k)
    np.testing.assert_allclose(centred[0], 0, atol=1e-15)
    c = np.arange(1, n + 1)
    published = k / n * scipy.special.comb(n - c, k - 1) / scipy.special.comb(n - 1, k - 1)
    np.testing.assert_allclose(centred[1, 1:], published, atol=1e-15)

    def variance(weights):
        sums, chances = [], []
        for group, chance in groups_of(p, n):
            score = np.where(group == 1, 1 / p, -1 / (1 - p))
            sums.append(weights[group, group.sum()] @ score)
            chances.append(chance)
        mean = np.dot(chances, sums)
        return np.dot(chances, (np.array(sums) - mean) ** 2)

    assert variance(centred) < 0.1 * variance(gradient_weights(n, k))


@pytest.mark.parametrize("k", [2, 3])
def test_the_expected_update_of_the_weights_is_the_gradient_of_pass_at_k(k):
    truth = pass_at_k_gradient(LOG_POLICY, REWARDS, k)
    for weights in (gradient_weights(4, k), centred_gradient_weights(4, k)):
        update = expected_update(LOG_POLICY, REWARDS, 4, advantage=4 * weights)
        np.testing.assert_allclose(update, truth, rtol=0, atol=1e-15)
    other = expected_update(LOG_POLICY, REWARDS, 4, advantage=4 * gradient_weights(4, k - 1))
    assert np.abs(other - truth).max() > 1e-3


@pytest.mark.parametrize(("n", "c", "k"), [(2000, 10, 1000), (100, 3, 64), (5000, 1, 2500)])
def test_the_estimate_of_many_samples_is_that_of_whole_numbers(n, c, k):
    """The binomial coefficients overflow float64, and Python's whole numbers do not."""
    share = Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k_estimate(n, c, k) == pytest.approx(float(1 - share), rel=1e-12)
    assert abs(pass_at_k_estimate(n, c, k - 1) - float(1 - share)) > 1e-6
    assert pass_at_k_estimate(n, n - k + 1, k) == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (partial(pass_at_k, 1.5, 2), r"p must lie in \[0, 1\], got 1.5"),
        (partial(pass_at_k, 0.5, 0), "k must be at least 1, got 0"),
        (partial(pass_at_k_estimate, 4, 2, 5), "k must be from 0 to n, 4, got 5; .* sample"),
        (partial(pass_at_k_estimate, 4, 5, 2), "c must be from 0 to n, 4, got 5"),
        (partial(gradient_weights, 4, 5), "k must be at most .* 4, got 5; sample more"),
        (partial(gradient_weights, 4, 0), "k must be at least 1, got 0"),
        (partial(pass_at_k_estimate, 4, 1.5, 2), "c must be a whole number, got 1.5"),
        (partial(pass_at_k_estimate, 4, 2, 1.5), "k must be a whole number, got 1.5"),
        (partial(pass_at_k_estimate, 4.5, 2, 1), "n must be a whole number, got 4.5"),
        (partial(gradient_weights, 4, 1.5), "k must be a whole number, got 1.5"),
        (partial(pass_at_k, 0.5, 1.5), "k must be a whole number, got 1.5"),
        (partial(pass_at_k_gradient, LOG_POLICY, 2 * REWARDS, 2), "rewards must be 0 or 1, got 2"),
        (
            partial(expected_update, LOG_POLICY, REWARDS, 3, advantage=gradient_weights(4, 2)),
            r"advantage must have the shape \(2, group_size \+ 1\), \(2, 4\), got \(2, 5\)",
        ),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
