"""Objectives of the group-relative methods: losses by hand, derivatives by differences."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import gradient_by_differences, make_batch

from minirl.algorithms import PPO
from minirl.algorithms.ppo import Clipped, clipped_surrogate_loss
from minirl.algorithms.ratio_objectives import (
    ClippedWeight,
    SequenceClip,
    SequenceRatio,
    SoftGate,
    Uncorrected,
    sequence_log_ratios,
)

EPISODES = np.array([3, 3, 3, 5, 5, 8])  # episodes of a minibatch keep their numbers
LENGTHS = np.array([3, 2, 1])
ROWS = len(EPISODES)


def batch_of(advantages, weight=None):
    if weight is None:
        weight = np.random.default_rng(0).uniform(0.5, 1.5, ROWS)
    advantages = np.asarray(advantages, dtype=float)
    return make_batch(ROWS, advantages=advantages, weight=weight, episodes=EPISODES)


RATIO = np.exp([0.3, -0.4, 0.1, 0.6, 0.2, -0.5])
ADVANTAGES = np.array([1.0, 1.0, 1.0, -2.0, -2.0, 0.5])
BATCH = batch_of(ADVANTAGES)
SMOOTH = [
    SequenceClip(0.4, 0.6),  # wide: no ratio is at a corner
    SoftGate(1.0, 1.05),
    SoftGate(3.0, 0.5),
    Uncorrected(),
    Clipped(0.2, 0.28),
]


@pytest.mark.parametrize("objective", SMOOTH, ids=repr)
def test_derivative_is_the_finite_difference(objective):
    _, derivative = objective.loss(RATIO, BATCH)
    numeric = gradient_by_differences(
        lambda log_ratio: objective.loss(np.exp(log_ratio), BATCH)[0], np.log(RATIO), step=1e-6
    )
    np.testing.assert_allclose(derivative, numeric, rtol=1e-8, atol=1e-9)
    assert np.abs(derivative).max() > 0.1


CONSTANT_WEIGHTS = [ClippedWeight(0.5), SequenceRatio(), SequenceRatio(largest=1.0)]


@pytest.mark.parametrize("objective", [*SMOOTH, *CONSTANT_WEIGHTS], ids=repr)
def test_all_have_the_policy_gradient_where_the_ratios_are_one(objective):
    weight = 1 / LENGTHS.repeat(LENGTHS) if isinstance(objective, SequenceClip) else None
    batch = batch_of(ADVANTAGES, weight=weight)
    _, derivative = objective.loss(np.ones(ROWS), batch)
    np.testing.assert_allclose(derivative, -batch.weight * ADVANTAGES, rtol=1e-14)


def test_sequence_ratio_is_the_product_of_its_tokens():
    log_ratios, lengths = sequence_log_ratios(RATIO, np.array([0, 0, 0, 1, 1, 2]))
    np.testing.assert_allclose(np.exp(log_ratios), [RATIO[:3].prod(), RATIO[3:5].prod(), RATIO[5]])
    np.testing.assert_array_equal(lengths, LENGTHS)
    loss, derivative = SequenceRatio().loss(RATIO, BATCH)
    whole = np.exp(log_ratios).repeat(LENGTHS)
    assert loss == pytest.approx(-(BATCH.weight * ADVANTAGES * whole).sum(), rel=1e-14)
    np.testing.assert_allclose(derivative, -BATCH.weight * ADVANTAGES * whole, rtol=1e-14)


def test_a_truncated_sequence_ratio_is_a_constant_weight_above_the_bound():
    _, derivative = SequenceRatio(largest=1.1).loss(RATIO, BATCH)
    whole = np.array([np.exp(0.0), np.exp(0.8), np.exp(-0.5)])
    expected = -BATCH.weight * ADVANTAGES * np.minimum(whole, 1.1).repeat(LENGTHS)
    np.testing.assert_allclose(derivative, expected, rtol=1e-14)


def test_gspo_clips_the_geometric_mean_of_each_response():
    objective = SequenceClip(3e-4, 4e-4)
    roots = np.array([np.exp(0.0), np.exp(0.4), np.exp(-0.5)])
    loss, derivative = objective.loss(RATIO, BATCH)
    weights = np.bincount([0, 0, 0, 1, 1, 2], BATCH.weight)
    # Response 1: inside. Response 2 (A < 0, ratio above 1): not clipped. Response 3 (A > 0, ratio
    # below 1): not clipped either, since the gradient leads back.
    expected = weights * [1.0, -2.0, 0.5] * roots
    assert loss == pytest.approx(-expected.sum(), rel=1e-14)
    np.testing.assert_allclose(derivative, -(expected / LENGTHS).repeat(LENGTHS), rtol=1e-14)
    _, opposite = objective.loss(RATIO, batch_of(-ADVANTAGES))
    np.testing.assert_array_equal(opposite[3:], 0.0)  # now both are clipped


def test_cispo_keeps_a_gradient_where_ppo_has_none():
    ratio, batch = np.full(ROWS, 4.0), batch_of(np.ones(ROWS))
    _, ppo = clipped_surrogate_loss(ratio, batch, 0.2)
    np.testing.assert_array_equal(ppo, 0.0)
    _, cispo = ClippedWeight(0.5).loss(ratio, batch)
    np.testing.assert_allclose(cispo, -1.5 * batch.weight)
    _, below = ClippedWeight(0.5).loss(np.full(ROWS, 0.1), batch)
    np.testing.assert_allclose(below, -0.1 * batch.weight)  # never clipped from below


def test_dapo_clips_at_its_own_upper_bound():
    weight = np.ones(ROWS)
    ratio = np.array([1.25, 1.29, 0.79, 1.25, 0.79, 0.81])
    batch = batch_of([1, 1, 1, -1, -1, -1], weight=weight)
    _, derivative = Clipped(0.2, 0.28).loss(ratio, batch)
    np.testing.assert_allclose(derivative, [-1.25, 0, -0.79, 1.25, 0, 0.81])
    _, symmetric = Clipped(0.2).loss(ratio, batch)
    np.testing.assert_allclose(symmetric, [0, 0, -0.79, 1.25, 0, 0.81])


OBJECTIVES = [*SMOOTH, ClippedWeight(), SequenceRatio(), SequenceRatio(largest=2.0)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=repr)
def test_ratios_that_overflow_give_finite_numbers(objective):
    batch = batch_of([0, 1, 1, -1, -1, 0], weight=np.ones(ROWS))
    ratio = np.array([np.inf, 1e300, 1.0, np.inf, 1.0, 0.0])
    with np.errstate(over="ignore", invalid="ignore"):
        _, derivative = objective.loss(ratio, batch)
    assert np.isfinite(derivative).all()


@pytest.mark.parametrize("objective", [SequenceRatio(), SequenceClip()])
def test_sequence_objectives_need_whole_episodes(objective):
    with pytest.raises(ValueError, match=r"needs whole episodes: .*whole_episodes=True"):
        objective.loss(RATIO, replace(BATCH, episodes=None))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SequenceRatio(0.0), "largest must be a finite number above 0, got 0.0"),
        (lambda: SequenceClip(low=-1.0), "low must be a finite number above 0, got -1.0"),
        (lambda: ClippedWeight(np.nan), "high must be a finite number above 0, got nan"),
        (lambda: SoftGate(tau_negative=0), "tau_negative must be a finite number above 0, got 0"),
        (lambda: Clipped(0.2, 0.0), "epsilon_high must be a finite number above 0, got 0.0"),
        (lambda: PPO(objective="gspo"), "objective must be a Clipped, .*SoftGate .*got .*'gspo'"),
        (lambda: PPO(penalty="k3"), "penalty must be an object with init, loss, got"),
    ],
)
def test_bad_values(make, message):
    with pytest.raises(ValueError, match=message):
        make()
