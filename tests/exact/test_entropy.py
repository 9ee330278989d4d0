"""First-order changes of the entropy, against the entropy after a small step."""

import numpy as np
import pytest
import scipy.special

from minirl.exact import sequences
from minirl.exact.entropy import entropy_slope, frozen_entropy_slope, response_entropy_slope

RNG = np.random.default_rng(0)
LOG_POLICY = scipy.special.log_softmax(RNG.normal(size=(2, 3, 3)), axis=-1)
REWARDS = RNG.normal(size=(2, 7))
ACTION_VALUES, VALUES = sequences.action_values(LOG_POLICY, LOG_POLICY, REWARDS, 0.0)
ADVANTAGES = ACTION_VALUES - VALUES[:, :, None]
GRADIENT = sequences.policy_gradient(LOG_POLICY, LOG_POLICY, REWARDS, 0.0)


def moved(log_policy, step):
    return scipy.special.log_softmax(log_policy + step, axis=-1)


def state_entropies(log_policy):
    return scipy.special.entr(np.exp(log_policy)).sum(axis=-1)


def errors(entropy, slope, direction):
    """How far the entropy after a step is from its prediction, for a step and for half of it."""
    before = entropy(LOG_POLICY)
    return [
        np.abs(entropy(moved(LOG_POLICY, eta * direction)) - before - eta * slope).max()
        for eta in (2e-3, 1e-3)
    ]


def response_entropy(log_policy):
    return sequences.entropy(sequences.response_log_probs(log_policy))


@pytest.mark.parametrize("direction", [ADVANTAGES, GRADIENT], ids=["natural", "vanilla"])
def test_the_error_of_the_first_order_is_quartered_when_the_step_is_halved(direction):
    for entropy, slope in (
        (state_entropies, entropy_slope(LOG_POLICY, direction)),
        (response_entropy, response_entropy_slope(LOG_POLICY, direction)),
    ):
        whole, half = errors(entropy, slope, direction)
        assert 3.9 < whole / half < 4.1
        # A wrong slope leaves an error of first order, which is only halved.
        whole, half = errors(entropy, 1.1 * slope, direction)
        assert 1.9 < whole / half < 2.1


def test_theorems_1_and_2_of_the_paper():
    """Covariances written out: of A in a natural gradient step, of d pi A in a gradient step."""
    policy, visits = np.exp(LOG_POLICY), sequences.visitation(LOG_POLICY)

    def covariance(weights, left, right):
        mean_left, mean_right = (weights * left).sum(-1), (weights * right).sum(-1)
        return (weights * left * right).sum(-1) - mean_left * mean_right

    natural = -covariance(policy, LOG_POLICY, ADVANTAGES)
    np.testing.assert_allclose(entropy_slope(LOG_POLICY, ADVANTAGES), natural, atol=1e-14)
    vanilla = -visits * covariance(policy, LOG_POLICY, policy * ADVANTAGES)
    np.testing.assert_allclose(entropy_slope(LOG_POLICY, GRADIENT), vanilla, atol=1e-14)
    assert np.abs(natural - vanilla).max() > 0.05  # one is not the other


def test_over_whole_responses_the_advantage_is_the_reward_minus_its_mean():
    log_probs = sequences.response_log_probs(LOG_POLICY)
    probs = np.exp(log_probs)
    centred = REWARDS - (probs * REWARDS).sum(axis=1, keepdims=True)
    expected = -np.mean((probs * log_probs * centred).sum(axis=1))
    slope = response_entropy_slope(LOG_POLICY, ADVANTAGES)
    np.testing.assert_allclose(slope, expected, atol=1e-14)
    frozen = frozen_entropy_slope(LOG_POLICY, ADVANTAGES)
    assert abs(frozen - expected) > 0.01


def test_the_slopes_differ_by_the_change_of_the_visits():
    """response = frozen + sum_s d'(s) H(s), with the derivative d' by finite differences."""
    step = 1e-6
    after = sequences.visitation(moved(LOG_POLICY, step * ADVANTAGES))
    before = sequences.visitation(moved(LOG_POLICY, -step * ADVANTAGES))
    change = ((after - before) / (2 * step) * state_entropies(LOG_POLICY)).sum()
    slope = response_entropy_slope(LOG_POLICY, ADVANTAGES)
    frozen = frozen_entropy_slope(LOG_POLICY, ADVANTAGES)
    np.testing.assert_allclose(slope, frozen + change, rtol=0, atol=1e-9)
    assert abs(change) > 0.01


def test_frozen_visits_may_give_the_wrong_sign():
    rng = np.random.default_rng(1)
    wrong = 0
    for _ in range(200):
        log_policy = scipy.special.log_softmax(rng.normal(size=(1, 3, 3)), axis=-1)
        rewards = (rng.random((1, 7)) < 0.4).astype(float)
        values, states = sequences.action_values(log_policy, log_policy, rewards, 0.0)
        advantages = values - states[:, :, None]
        slope = response_entropy_slope(log_policy, advantages)
        wrong += slope * frozen_entropy_slope(log_policy, advantages) < 0
    assert 10 < wrong < 100


@pytest.mark.parametrize("slope", [entropy_slope, response_entropy_slope, frozen_entropy_slope])
def test_a_direction_of_another_shape_is_refused(slope):
    with pytest.raises(ValueError, match=r"direction must have shape \(2, 3, 3\), got \(1, 3, 3\)"):
        slope(LOG_POLICY, ADVANTAGES[:1])
