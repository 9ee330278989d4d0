"""Statistics over seeds, against numbers worked by hand and SciPy's own tests."""

import json

import numpy as np
import pytest
from scipy import stats

from minirl.experiments.statistics import (
    PairComparison,
    band,
    bootstrap_interval,
    compare_scores,
    interquartile_mean,
    probability_of_improvement,
    summarize,
)

NAN = float("nan")


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),  # fewer than four: nothing is cut
        ([100.0, 1.0, 3.0, -50.0], 2.0),  # one cut at each end
        ([10.0, -500.0, 30.0, 20.0, 900.0], 20.0),
        ([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 100.0], 5.5),  # the middle 4, 5, 6, 7
    ],
)
def test_interquartile_mean_by_hand(scores, expected):
    assert interquartile_mean(scores) == expected
    columns = np.transpose([scores, np.multiply(scores, 2)])
    np.testing.assert_array_equal(interquartile_mean(columns, axis=0), [expected, 2 * expected])
    assert np.isnan(interquartile_mean([*scores, NAN]))


def test_a_nan_is_not_cut_off_with_the_best_quarter(monkeypatch):
    """SciPy before 1.17 sorts it to the end: a seed without an episode would vanish."""

    def trim_mean(samples, share, axis):
        ordered = np.sort(samples, axis=axis)
        cut = int(share * ordered.shape[axis])
        return np.take(ordered, range(cut, ordered.shape[axis] - cut), axis=axis).mean(axis=axis)

    monkeypatch.setattr(stats, "trim_mean", trim_mean)
    scores = np.array([[1.0, 2.0, 3.0, NAN], [1.0, 2.0, 3.0, 4.0]])
    assert np.isnan(interquartile_mean(scores[0]))
    assert interquartile_mean(scores[1]) == 2.5
    np.testing.assert_array_equal(interquartile_mean(scores), [NAN, 2.5])
    np.testing.assert_array_equal(interquartile_mean(scores.T, axis=0), [NAN, 2.5])


@pytest.mark.parametrize("scores", [[], [3.0], [1.0, NAN, 2.0]])
def test_no_interval_without_two_finite_scores(scores):
    assert np.isnan(bootstrap_interval(scores, rng())).all()
    assert bootstrap_interval([500.0] * 5, rng()) == (500.0, 500.0)  # negative control


def test_bootstrap_of_two_scores_is_the_exact_distribution():
    # The mean of a resample of {0, 1} is 0, 1/2, 1 with probability 1/4, 1/2, 1/4.
    assert bootstrap_interval([0.0, 1.0], rng(), confidence=0.95) == (0.0, 1.0)
    assert bootstrap_interval([0.0, 1.0], rng(), confidence=0.40) == (0.5, 0.5)


def test_bootstrap_of_the_mean_matches_the_central_limit():
    scores = rng(1).normal(size=400)
    low, high = bootstrap_interval(scores, rng(2), statistic=np.mean, resamples=4000)
    half_width = 1.96 * scores.std() / 20
    np.testing.assert_allclose(
        [low, high], scores.mean() + half_width * np.array([-1, 1]), atol=0.01
    )


def test_a_statistic_without_axis_works_too():
    scores = [1.0, 5.0, 2.0, 8.0]
    plain = bootstrap_interval(scores, rng(), statistic=lambda sample: float(np.max(sample)))
    assert plain == bootstrap_interval(scores, rng(), statistic=np.max)


def test_few_seeds_cover_less_as_the_module_warns():
    generator = rng(4)
    experiments = generator.normal(size=(400, 3))
    intervals = np.array([bootstrap_interval(s, generator, resamples=300) for s in experiments])
    coverage = np.mean((intervals[:, 0] <= 0.0) & (intervals[:, 1] >= 0.0))
    assert 0.67 <= coverage <= 0.81


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda c=c: bootstrap_interval([1.0, 2.0], rng(), confidence=c), "between 0 and 1")
            for c in (0.0, 1.0, 95.0, NAN)
        ),
        (lambda: interquartile_mean([]), "scores is empty"),
        (lambda: bootstrap_interval(np.ones((2, 2)), rng()), r"scores has shape \(2, 2\)"),
        (lambda: probability_of_improvement([], [1.0]), "x is empty"),
        (lambda: probability_of_improvement([1.0], []), "y is empty"),
        (lambda: band([], [0.5], rng()), "curves is empty"),
        (
            lambda: band([([0.0, 1.0], [1.0])], [0.5], rng()),
            r"curve 0: x has shape \(2,\) and y \(1,\)",
        ),
        (
            lambda: band([([0.0], [1.0]), ([1.0, 0.0], [1.0, 2.0])], [0.5], rng()),
            "curve 1: x decreases",
        ),
    ],
)
def test_wrong_scores_and_curves_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_probability_of_improvement_is_mann_whitney():
    x = rng(5).integers(0, 6, size=9).astype(float)  # with ties
    y = rng(6).integers(1, 8, size=7).astype(float)
    u = stats.mannwhitneyu(x, y).statistic
    assert probability_of_improvement(x, y) == pytest.approx(u / (9 * 7), rel=1e-14)
    assert probability_of_improvement(y, x) == pytest.approx(1 - u / (9 * 7), rel=1e-14)


def test_separated_groups_are_distinguishable():
    high_scores, low_scores = 500.0 - 5 * np.arange(5), 10.0 + 5 * np.arange(5)
    result = compare_scores(high_scores, low_scores, rng())
    assert result.probability_of_improvement == 1.0
    assert result.probability_interval == (1.0, 1.0)
    assert result.iqm_difference == 470.0
    low, high = result.difference_interval
    assert 450.0 <= low < 470.0 < high <= 490.0
    reverse = compare_scores(low_scores, high_scores, rng())
    assert result.distinguishable == reverse.distinguishable is True
    for text in (result.describe("ppo", "pg"), reverse.describe("pg", "ppo")):
        assert text.endswith("significant with 5 seeds: ppo is ahead")


def test_equal_algorithms_are_rarely_told_apart():
    draws = rng(3).normal(size=(300, 2, 5))
    mistakes = sum(compare_scores(x, y, rng(), resamples=200).distinguishable for x, y in draws)
    assert mistakes <= 24  # 5 % of 300 is 15; 24 is 2.4 standard deviations above


def test_groups_are_resampled_independently():
    # Paired resampling of y = x would give differences of exactly 0.
    scores = rng(7).normal(size=30)
    result = compare_scores(scores, scores, rng(), resamples=4000)
    low, high = result.difference_interval
    one = np.subtract(*bootstrap_interval(scores, rng(8), resamples=4000)[::-1])
    assert high - low == pytest.approx(np.sqrt(2) * one, rel=0.1)  # variances add
    assert result.probability_of_improvement == 0.5


@pytest.mark.parametrize(
    ("x", "y"), [([500.0], [1.0, 2.0, 3.0]), ([9.0, 8.0], [1.0]), ([9.0, NAN], [1.0, 2.0])]
)
def test_too_few_or_undefined_scores_are_never_distinguishable(x, y):
    result = compare_scores(x, y, rng())
    assert not result.distinguishable
    assert np.isnan([*result.probability_interval, *result.difference_interval]).all()


def test_what_cannot_be_told_apart():
    result = compare_scores([1.0, 5.0, 9.0, 4.0, 6.0], [2.0, 5.0, 8.0, 3.0, 5.0], rng())
    assert result.difference_interval[0] < 0 < result.difference_interval[1]
    assert not result.distinguishable
    # 2 of the 20 ways to deal six scores are as extreme as the best one: p is 0.1
    result = compare_scores([500.0, 490.0, 480.0], [10.0, 20.0, 30.0], rng())
    assert min(result.difference_interval) > 0
    assert not result.distinguishable
    result = compare_scores([0.1] * 5, [0.1] * 8, rng())
    assert result.iqm_difference != 0.0  # the trap: 3 and 4 tenths averaged, last bit
    assert not result.distinguishable


def test_describe_is_one_plain_sentence():
    result = PairComparison(0.72, (0.4, 0.96), 12.3, (-3.1, 30.2), False, (5, 5))
    assert result.describe("ppo", "trpo") == (
        "ppo vs trpo: probability of improvement 0.72 [0.40, 0.96]; "
        "IQM difference +12.3 [-3.1, 30.2], not significant with 5 seeds"
    )
    single = compare_scores([3.0], [4.0, 5.0], rng()).describe("a", "b")
    assert single == (
        "a vs b: probability of improvement 0.00; "
        "IQM difference -1.5, not significant with 1 and 2 seeds"
    )


@pytest.mark.parametrize(
    ("scores", "summary"),
    [
        ([1.0, 2.0, 3.0, 4.0, 100.0], {"iqm": 3.0}),
        (np.array([5.0]), {"iqm": 5.0, "ci95": [None, None], "per_seed": [5.0]}),
        ([NAN, 5.0], {"iqm": None, "ci95": [None, None], "per_seed": [None, 5.0]}),
    ],
)
def test_summary_is_ready_for_json(scores, summary):
    found = summarize(scores, rng(9))
    finite = {"ci95": list(bootstrap_interval(scores, rng(9))), "per_seed": scores}
    assert found == (finite if "ci95" not in summary else {}) | summary
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_band_interpolates_and_never_extrapolates():
    first = ([0.0, 10.0, 20.0], [NAN, 1.0, 3.0])  # defined on [10, 20]
    second = ([5.0, 15.0], [2.0, 4.0])  # defined on [5, 15]
    iqm, low, high = band([first, second], [5.0, 10.0, 12.0, 15.0, 15.1, 20.0], rng())
    # at 10: 1 and 3; at 12: 1.4 and 3.4; at 15: 2 and 4
    np.testing.assert_allclose(iqm, [NAN, 2.0, 2.4, 3.0, NAN, NAN])
    np.testing.assert_allclose(low, [NAN, 1.0, 1.4, 2.0, NAN, NAN])
    np.testing.assert_allclose(high, [NAN, 3.0, 3.4, 4.0, NAN, NAN])


def test_band_bridges_a_hole_and_ends_at_the_last_finite_point():
    curve = ([0.0, 1.0, 2.0, 3.0], [0.0, NAN, 4.0, NAN])
    iqm, low, high = band([curve], [0.0, 1.0, 2.0, 2.5], rng())
    np.testing.assert_allclose(iqm, [0.0, 2.0, 4.0, NAN])
    assert np.isnan([low, high]).all()  # one seed has no band


def test_band_is_the_interval_of_the_scores_at_each_point():
    steps = np.arange(4.0)
    returns = rng(10).normal(size=(6, 4))
    iqm, low, high = band([(steps, r) for r in returns], steps, rng(11), resamples=300)
    for i in range(4):
        expected = bootstrap_interval(returns[:, i], rng(11), resamples=300)
        assert (low[i], high[i]) == pytest.approx(expected, rel=1e-14)
        assert iqm[i] == pytest.approx(np.sort(returns[:, i])[1:5].mean(), rel=1e-14)


def test_band_is_undefined_where_seeds_never_meet_or_never_finish_an_episode():
    apart = [([0.0, 1.0], [1.0, 1.0]), ([2.0, 3.0], [1.0, 1.0])]
    assert np.isnan(band(apart, [0.5, 2.5], rng())).all()
    silent = [([0.0, 1.0], [NAN, NAN]), ([0.0, 1.0], [1.0, 1.0])]
    assert np.isnan(band(silent, [0.5], rng())).all()
