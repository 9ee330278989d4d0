"""Statistics of a few seeds: interquartile means, bootstrap intervals and comparisons.

A training run is one draw from a distribution, and five seeds are five draws. The summaries are
those of Agarwal et al. (2021), "Deep reinforcement learning at the edge of the statistical
precipice". One algorithm is summarised by the interquartile mean, which is the mean of the middle
half, with a percentile bootstrap interval over seeds. Neither a lucky nor a collapsed seed changes
it much. Two algorithms are compared by the probability that a run of the first has a higher score
than a run of the second.

Bootstrap intervals of few seeds are too narrow, also in every figure drawn with them. For normal
scores the nominal 95 % interval of the interquartile mean covers the true value in about 74 % of
the cases with 3 seeds, 90 % with 5, 94 % with 10 and 95 % with 40 (6000 simulated experiments
each).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

__all__ = [
    "PairComparison",
    "band",
    "bootstrap_interval",
    "compare_scores",
    "interquartile_mean",
    "interval_text",
    "probability_of_improvement",
    "summarize",
    "with_interval",
]

Array = NDArray[np.float64]
Interval = tuple[float, float]
NO_INTERVAL: Interval = (float("nan"), float("nan"))


def interquartile_mean(scores: ArrayLike, axis: int = -1) -> Any:
    """Mean of the middle half of the scores: a quarter is cut off at each end.

    The number of scores cut off is rounded down, so this is the plain mean of fewer than four
    scores. It is nan if any score is nan.

    Parameters
    ----------
    scores : array_like
        One score per seed along `axis`.
    axis : int
        The axis of the seeds.

    Returns
    -------
    float, or an array without `axis` if `scores` has more than one axis.

    Raises
    ------
    ValueError
        If there are no scores.

    Examples
    --------
    One seed collapsed and one was lucky. The result is the mean of the others, (10 + 20 + 30) / 3:

    >>> interquartile_mean([10.0, -500.0, 30.0, 20.0, 900.0])
    20.0
    """
    samples = np.asarray(scores, dtype=np.float64)
    if samples.size == 0:
        raise ValueError("scores is empty: a mean needs at least one score")
    # SciPy before 1.17 sorts a nan to the end and cuts it off with the best quarter.
    undefined = np.isnan(samples).any(axis=axis)
    middle = np.where(undefined, np.nan, stats.trim_mean(samples, 0.25, axis=axis))
    return float(middle) if np.ndim(middle) == 0 else middle


def bootstrap_interval(
    scores: ArrayLike,
    rng: np.random.Generator,
    statistic: Callable[..., Any] = interquartile_mean,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> Interval:
    """Percentile bootstrap interval of a statistic over seeds.

    Parameters
    ----------
    scores : array_like, shape (seeds,)
    rng : numpy.random.Generator
    statistic : callable
        From scores to a number; if it takes `axis`, all resamples are computed at once.
    confidence : float in (0, 1)
    resamples : int
        Number of times that the seeds are drawn again, with replacement.

    Returns
    -------
    (low, high) : floats
        Both nan if there are fewer than two scores or one is not finite: there is no interval.

    Raises
    ------
    ValueError
        If `scores` is not one-dimensional, or `confidence` is not between 0 and 1.
    """
    samples = _one_dimensional("scores", scores)
    if samples.size < 2 or not np.isfinite(samples).all():
        return NO_INTERVAL
    return _resampled_interval((samples,), statistic, rng, confidence, resamples)


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """Probability that a run of `x` has a higher score than one of `y`: P(X > Y) + P(X = Y) / 2.

    This is the Mann-Whitney statistic U divided by the number of pairs. 1/2 means that neither is
    ahead. The probability says how often a run is better, not by how much.

    Parameters
    ----------
    x, y : array_like, shapes (n,) and (m,)
        Scores of the two algorithms, one per seed.

    Raises
    ------
    ValueError
        If one of them is empty or not one-dimensional.

    Examples
    --------
    Of the six pairs, 3 wins against 1 and 2 and loses to 5; 5 wins against 1 and 2 and ties
    with 5. Four wins and one tie make (4 + 1/2) / 6:

    >>> probability_of_improvement([3.0, 5.0], [1.0, 2.0, 5.0])
    0.75
    """
    return float(_win_fraction(_scores("x", x), _scores("y", y)))


@dataclass(frozen=True)
class PairComparison:
    """Comparison of the scores of a first algorithm with those of a second.

    Attributes
    ----------
    probability_of_improvement : float
        P(first > second) + P(first = second) / 2.
    probability_interval : (float, float)
        Its bootstrap interval; nan if there is none.
    iqm_difference : float
        Interquartile mean of the first minus that of the second, in the unit of the scores.
    difference_interval : (float, float)
        Its bootstrap interval; nan if there is none.
    distinguishable : bool
        True only if `difference_interval` excludes 0 and a permutation test agrees at 5 %.
    seeds : (int, int)
        Number of scores of each.
    """

    probability_of_improvement: float
    probability_interval: Interval
    iqm_difference: float
    difference_interval: Interval
    distinguishable: bool
    seeds: tuple[int, int]

    def describe(self, first: str, second: str) -> str:
        """One plain sentence about the two algorithms of these names."""
        probability = with_interval(
            self.probability_of_improvement, *self.probability_interval, ".2f"
        )
        interval = interval_text(*self.difference_interval, ".1f")
        return (
            f"{first} vs {second}: probability of improvement {probability}; "
            f"IQM difference {self.iqm_difference:+.1f}{interval}, {self._verdict(first, second)}"
        )

    def _verdict(self, first: str, second: str) -> str:
        n, m = self.seeds
        seeds = f"{n} and {m} seeds" if n != m else f"{n} seeds" if n > 1 else "1 seed"
        if self.distinguishable:
            ahead = first if self.iqm_difference > 0 else second
            return f"significant with {seeds}: {ahead} is ahead"
        low, high = self.difference_interval
        if low > 0 or high < 0:
            return f"not significant with {seeds} according to a permutation test"
        return f"not significant with {seeds}"


def compare_scores(
    x: ArrayLike,
    y: ArrayLike,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 2000,
) -> PairComparison:
    """Compare two algorithms by their scores, the seeds of each resampled independently.

    With fewer than two seeds in either group, or a score that is not finite, there are no
    intervals (nan) and the two are never distinguishable.

    Bootstrap intervals of few seeds are too narrow (see the top of this file), so a two-sided
    permutation test of the same difference must agree. With 3 against 3 seeds it never does,
    because there are only 20 ways to divide six scores into two groups of three.

    Parameters
    ----------
    x, y : array_like, shapes (n,) and (m,)
        Scores of the first and the second algorithm, one per seed.
    rng : numpy.random.Generator
    confidence : float in (0, 1)
    resamples : int

    Raises
    ------
    ValueError
        If one of them is empty or not one-dimensional, or `confidence` is not between 0 and 1.

    Examples
    --------
    >>> pair = compare_scores([500.0], [20.0], np.random.default_rng(0))
    >>> pair.probability_of_improvement, pair.iqm_difference, pair.distinguishable
    (1.0, 480.0, False)
    """
    first, second = _scores("x", x), _scores("y", y)
    everything = np.concatenate([first, second])
    probability_interval = difference_interval = NO_INTERVAL
    if min(first.size, second.size) >= 2 and np.isfinite(everything).all():
        pair = (first, second)
        probability_interval = _resampled_interval(pair, _win_fraction, rng, confidence, resamples)
        difference_interval = _resampled_interval(pair, _iqm_difference, rng, confidence, resamples)
    # Equal scores averaged over different counts can differ in their last bits.
    rounding = 1e-12 * np.abs(everything).max()
    low, high = difference_interval
    excludes_zero = bool(low > rounding or high < -rounding)
    return PairComparison(
        probability_of_improvement=float(_win_fraction(first, second)),
        probability_interval=probability_interval,
        iqm_difference=float(_iqm_difference(first, second)),
        difference_interval=difference_interval,
        distinguishable=excludes_zero and _permutation_p(first, second, rng) <= 1 - confidence,
        seeds=(first.size, second.size),
    )


def summarize(scores: ArrayLike, rng: np.random.Generator) -> dict[str, Any]:
    """Summary of the scores of one algorithm for JSON: numbers that are not finite become None.

    Parameters
    ----------
    scores : array_like, shape (seeds,)
    rng : numpy.random.Generator

    Returns
    -------
    dict with "iqm" (float), "ci95" ([low, high]) and "per_seed" (list of floats).

    Examples
    --------
    >>> summarize([7.0], np.random.default_rng(0))
    {'iqm': 7.0, 'ci95': [None, None], 'per_seed': [7.0]}
    """
    samples = _scores("scores", scores)
    return {
        "iqm": _json_number(interquartile_mean(samples)),
        "ci95": [_json_number(bound) for bound in bootstrap_interval(samples, rng)],
        "per_seed": [_json_number(score) for score in samples],
    }


def with_interval(
    middle: float, low: float, high: float, form: str | Callable[[float], str]
) -> str:
    """The text "middle [low, high]"; only "middle" if there is no interval (nan).

    Parameters
    ----------
    middle, low, high : float
    form : str or callable
        A format specification, or the function that returns the text of a number.

    Examples
    --------
    >>> with_interval(0.5, -1.0, 2.0, ".1f")
    '0.5 [-1.0, 2.0]'
    >>> with_interval(0.5, *NO_INTERVAL, ".1f")
    '0.5'
    """
    text = form(middle) if callable(form) else f"{middle:{form}}"
    return text + interval_text(low, high, form)


def interval_text(low: float, high: float, form: str | Callable[[float], str]) -> str:
    """The text " [low, high]" after a number; empty if there is no interval (nan).

    Parameters
    ----------
    low, high : float
    form : str or callable
        As for `with_interval`.
    """
    if np.isnan(low):
        return ""
    ends = [form(end) if callable(form) else f"{end:{form}}" for end in (low, high)]
    return f" [{', '.join(ends)}]"


def band(
    curves: Sequence[tuple[ArrayLike, ArrayLike]],
    grid: ArrayLike,
    rng: np.random.Generator,
    confidence: float = 0.95,
    resamples: int = 1000,
) -> tuple[Array, Array, Array]:
    """Interquartile mean over seeds and its bootstrap interval, along a curve.

    Each seed's curve is interpolated linearly between its finite points and not extrapolated. One
    resample draws whole seeds, the same ones at all grid points.

    Parameters
    ----------
    curves : list of (x, y)
        One pair of arrays per seed, `x` not decreasing.
    grid : array_like, shape (G,)
    rng : numpy.random.Generator
    confidence : float in (0, 1)
    resamples : int

    Returns
    -------
    iqm, low, high : arrays, shape (G,)
        nan where a seed is undefined; `low` and `high` are nan everywhere for a single seed.

    Raises
    ------
    ValueError
        If there are no curves, lengths differ, or an `x` decreases.

    Examples
    --------
    >>> curve = ([0.0, 10.0, 20.0], [float("nan"), 1.0, 3.0])
    >>> band([curve], [5.0, 10.0, 15.0, 25.0], np.random.default_rng(0))[0]
    array([nan,  1.,  2., nan])
    """
    if not curves:
        raise ValueError("curves is empty: a band needs at least one seed")
    points = np.asarray(grid, dtype=np.float64)
    values = np.stack([_interpolate(i, x, y, points) for i, (x, y) in enumerate(curves)])
    defined = np.isfinite(values).all(axis=0)
    iqm, low, high = np.full((3, points.size), np.nan)
    if not defined.any():
        return iqm, low, high
    iqm[defined] = interquartile_mean(values[:, defined], axis=0)
    if len(curves) >= 2:
        samples = (values[:, defined].T,)
        low[defined], high[defined] = _resampled_interval(
            samples, interquartile_mean, rng, confidence, resamples
        )
    return iqm, low, high


def _interpolate(seed: int, x: ArrayLike, y: ArrayLike, grid: Array) -> Array:
    """Linear between the finite points of one curve, nan outside them."""
    positions, values = _curve(f"curve {seed}", x, y)
    finite = np.isfinite(values)
    if not finite.any():
        return np.full(grid.shape, np.nan)
    if (np.diff(positions) < 0).any():
        raise ValueError(f"curve {seed}: x decreases; it must be sorted")
    return np.interp(grid, positions[finite], values[finite], left=np.nan, right=np.nan)


def _resampled_interval(
    samples: tuple[Array, ...],
    statistic: Callable[..., Any],
    rng: np.random.Generator,
    confidence: float,
    resamples: int,
) -> Any:
    """Percentile bootstrap over the last axis; each group is drawn independently."""
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}: it must lie between 0 and 1, such as 0.95")
    interval = stats.bootstrap(
        samples,
        statistic,
        axis=-1,
        n_resamples=resamples,
        confidence_level=confidence,
        method="percentile",
        rng=rng,
    ).confidence_interval
    if samples[0].ndim == 1:
        return float(interval.low), float(interval.high)
    return interval.low, interval.high


def _permutation_p(x: Array, y: Array, rng: np.random.Generator) -> float:
    """Two-sided p-value of the IQM difference if the group of each score were random.

    It is exact if there are at most 10,000 ways to assign the groups.
    """

    def difference(x: Array, y: Array, axis: int) -> Array:
        return np.asarray(_iqm_difference(x, y, axis))

    test = stats.permutation_test(
        (x, y), difference, vectorized=True, n_resamples=9_999, axis=-1, rng=rng
    )
    return float(test.pvalue)


def _win_fraction(x: Array, y: Array, axis: int = -1) -> Any:
    """Mean over all pairs of 1 for a win, 1/2 for a tie, 0 for a loss; nan if a score is nan."""
    first, second = np.moveaxis(x, axis, -1), np.moveaxis(y, axis, -1)
    signs = np.sign(first[..., :, None] - second[..., None, :])
    return (1 + signs.mean(axis=(-2, -1))) / 2


def _iqm_difference(x: Array, y: Array, axis: int = -1) -> Any:
    return interquartile_mean(x, axis=axis) - interquartile_mean(y, axis=axis)


def _one_dimensional(name: str, scores: ArrayLike) -> Array:
    samples = np.asarray(scores, dtype=np.float64)
    if samples.ndim != 1:
        raise ValueError(f"{name} has shape {samples.shape}: one score per seed is needed, (n,)")
    return samples


def _scores(name: str, scores: ArrayLike) -> Array:
    samples = _one_dimensional(name, scores)
    if samples.size == 0:
        raise ValueError(f"{name} is empty: at least one score is needed")
    return samples


def _curve(name: str, x: ArrayLike, y: ArrayLike) -> tuple[Array, Array]:
    positions, values = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if positions.ndim != 1 or positions.shape != values.shape:
        raise ValueError(
            f"{name}: x has shape {positions.shape} and y {values.shape}; "
            "two arrays of one common length are needed"
        )
    return positions, values


def _json_number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
