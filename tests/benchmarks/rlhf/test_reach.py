"""Fractions of the optimum over beta, corpora and seeds: the runs, summaries and tables."""

import numpy as np
import pytest
from scipy.special import expit, log_softmax

from benchmarks.rlhf import reach as script


def row(method, beta, corpus, seed, fraction=0.0, settings="preset"):
    cells = {"method": method, "settings": settings, "beta": beta, "corpus": corpus, "seed": seed}
    return {key: str(value) for key, value in (cells | {"fraction": fraction}).items()}


def test_every_method_runs_everywhere_and_no_run_twice():
    found = script.wanted()
    assert len(set(found)) == len(found)
    everywhere = len(script.BETAS) * len(script.CORPORA) * len(script.SEEDS)
    presets = [key for key in found if key[script.STUDY.key.index("settings")] == "preset"]
    assert len(presets) == len(script.METHODS) * everywhere


def test_seeds_are_averaged_before_corpora():
    fractions = {100: (0.5, 0.7), 101: (0.6, 1.0), 102: (0.8, 1.0), 103: (1.0, 1.0)}
    rows = [
        row("ppo", "0.3", corpus, seed, fraction)
        for corpus, pair in fractions.items()
        for seed, fraction in enumerate(pair)
    ]
    rows += [row("ppo", "1", 100, 0, -5.0), row("trpo", "0.3", 100, 0, -5.0)]
    rows += [row("ppo", "0.3", 100, 0, -5.0, settings="learning rate 9")]
    found = script.summary(rows, "ppo", "preset", 0.3)
    # Means 0.6, 0.8, 0.9, 1.0: the middle half is 0.8 and 0.9.
    assert found.middle == pytest.approx(0.85)
    assert found.smallest == 0.5
    assert 0.6 <= found.low < 0.85 < found.high <= 1.0


def test_a_summary_in_words():
    assert str(script.Summary(0.99123, 0.99, 0.9925, 0.9)) == "0.991 [0.990, 0.993]"
    assert str(script.Summary(-5.4321, -7.5, -4.321, -9.0)) == "-5.4 [-7.5, -4.3]"


def test_win_rates_minimise_the_squares_of_ipo():
    """Sum over y' of ref(y') [h(y, y') - (2 p(y, y') - 1) / (2 tau)] is 0 for every y."""
    rng = np.random.default_rng(0)
    log_reference = log_softmax(rng.normal(size=(2, 6)), axis=1)
    rewards = rng.integers(4, size=(2, 6)).astype(float)
    q, tau = script.win_rates(log_reference, rewards), 0.3
    for prompt in range(2):
        p = expit(rewards[prompt][:, None] - rewards[prompt])
        ratios = (q[prompt][:, None] - q[prompt]) / tau
        residuals = ratios - (2 * p - 1) / (2 * tau)
        slopes = residuals @ np.exp(log_reference[prompt])
        np.testing.assert_allclose(slopes, 0, atol=1e-14)


def test_best_of_one_is_the_reference_and_ipos_optimum_is_a_distribution():
    case = script.Setup(0.3, 0, 0)

    def fraction(outcome):
        return float(dict(zip(script.STUDY.values, case.values(outcome), strict=True))["fraction"])

    assert fraction(case.learn("best-of-n", {"n": 1})) == pytest.approx(0.0, abs=1e-4)
    outcome = case.learn(script.IPO_OPTIMUM, {"tau_divisor": 7})
    np.testing.assert_allclose(np.exp(outcome.log_probs).sum(axis=1), 1.0)
    # At a seventh of beta the two objectives nearly agree ...
    assert 0.99 < fraction(outcome) < 1.0
    # ... because that is the slope of the regression of q on r under the reference.
    log_reference = case.objective.reference_log_probs
    q = script.win_rates(log_reference, case.gold)
    for weights, x, y in zip(np.exp(log_reference), case.gold, q, strict=True):
        covariances = np.cov(x, y, aweights=weights)
        assert 7.2 < covariances[0, 0] / covariances[0, 1] < 7.6


def test_fractions_have_places_that_reach_down_to_any_loss():
    places = script.place([-9.0, 0.0, 0.9, 0.99])
    np.testing.assert_allclose(places, [-1.0, 0.0, 1.0, 2.0])
