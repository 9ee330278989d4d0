"""Statements of docs/rlhf/claims.md that are exact and need no stored runs."""

import numpy as np
import pytest
import scipy.special

from minirl.exact import sequences
from minirl.exact.groups import expected_update, normalized_weight
from minirl.exact.pass_at_k import pass_at_k

RNG = np.random.default_rng(0)
REFERENCE = scipy.special.log_softmax(RNG.normal(size=(2, 3, 3)), axis=-1)
REWARDS = np.array([[1, 0, 0, 1, 0, 0, 1], [0, 1, 0, 0, 0, 1, 0]], dtype=float)


def probabilities(log_policy):
    """P(y|x) of every response, and the success rate of each prompt."""
    probs = np.exp(sequences.response_log_probs(log_policy))
    return probs, (probs * REWARDS).sum(axis=1)


def given_the_verdict(log_policy):
    """P(y | x, the verdict on y)."""
    probs, _ = probabilities(log_policy)
    masses = [(probs * (verdict == REWARDS)).sum(axis=1, keepdims=True) for verdict in (0, 1)]
    return probs / np.where(REWARDS == 1, masses[1], masses[0])


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_optimum_of_a_verifiable_reward_only_reweights_right_and_wrong(beta):
    """p* = p e^(1/beta) / (1 - p + p e^(1/beta)); among right answers, nothing changes."""
    optimum = sequences.soft_optimal_policy(REFERENCE, REWARDS, beta)[0]
    p, best = probabilities(REFERENCE)[1], probabilities(optimum)[1]
    gain = np.exp(1 / beta)
    np.testing.assert_allclose(best, p * gain / (1 - p + p * gain), rtol=1e-12)
    expected = given_the_verdict(REFERENCE)
    np.testing.assert_allclose(given_the_verdict(optimum), expected, rtol=1e-12)
    for k in (1, 4, 64):  # pass@k rises for every prompt and every k
        assert (pass_at_k(best, k) >= pass_at_k(p, k)).all()
    # A step of gradient ascent also changes the answers among the right ones.
    step = expected_update(REFERENCE, REWARDS, 4, advantage="leave-one-out")
    other = scipy.special.log_softmax(REFERENCE + step, axis=-1)
    assert np.abs(given_the_verdict(other) - expected).max() > 1e-3


def test_among_prompts_of_equal_score_the_update_is_longest_near_one_half():
    """w(p) p (1 - p) = E[sqrt(f (1 - f))]: the length of the update, per unit of its score."""
    p = np.linspace(0.01, 0.99, 99)
    lengths = normalized_weight(p, 16) * p * (1 - p)
    assert p[np.argmax(lengths)] == pytest.approx(0.5)
    # The weight itself is smallest there, from groups of four on, and symmetric.
    for group_size in (4, 16, 64):
        weights = normalized_weight(p, group_size)
        assert p[np.argmin(weights)] == pytest.approx(0.5)
        np.testing.assert_allclose(weights, weights[::-1], rtol=1e-12)
