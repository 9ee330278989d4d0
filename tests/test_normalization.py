"""Running moments against NumPy's mean and variance of all samples at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minirl.normalization import RunningMoments

quick = settings(derandomize=True, max_examples=50, deadline=None, database=None)


@quick
@given(
    st.integers(1, 20).flatmap(
        lambda n: arrays("float64", (n, 2), elements=st.floats(-1e3, 1e3, width=32))
    ),
    st.lists(st.integers(0, 20), max_size=4),
)
def test_any_split_into_chunks_gives_the_moments_of_the_whole(samples, cuts):
    """Cuts that coincide or lie outside make empty chunks, which change nothing."""
    moments = RunningMoments.empty((2,))
    for chunk in np.split(samples, sorted(cuts)):
        moments = moments.update(chunk)
    assert moments.count == len(samples)
    np.testing.assert_allclose(moments.mean, samples.mean(axis=0), rtol=1e-12, atol=1e-10)
    np.testing.assert_allclose(moments.variance, samples.var(axis=0), rtol=1e-10, atol=1e-8)


def test_a_large_offset_does_not_drown_the_variance():
    """The textbook formula E[x^2] - E[x]^2 is off by hundreds of percent here."""
    samples = 1e8 + np.random.default_rng(0).normal(size=(1000, 1))
    moments = RunningMoments.empty((1,))
    for chunk in np.split(samples, 10):
        moments = moments.update(chunk)
    np.testing.assert_allclose(moments.variance, samples.var(axis=0), rtol=1e-6)
    naive = (samples**2).mean() - samples.mean() ** 2
    assert abs(naive / samples.var() - 1) > 0.1


def test_scalars_are_samples_too():
    moments = RunningMoments.empty(()).update(np.array([1.0, 3.0])).update(np.array([5.0]))
    assert moments.mean == 3.0
    np.testing.assert_allclose(moments.variance, 8 / 3, rtol=1e-15)


def test_float32_samples_are_counted_in_float64():
    samples = np.full((1000, 1), 0.1, dtype="float32")
    moments = RunningMoments.empty((1,)).update(samples)
    assert moments.mean.dtype == moments.variance.dtype == np.float64
    np.testing.assert_allclose(moments.mean, np.float32(0.1), rtol=1e-15)
    samples = np.random.default_rng(2).normal(1e3, 1e-2, size=(1000, 1)).astype("float32")
    moments = RunningMoments.empty((1,)).update(samples)
    exact = samples.astype("float64").var(axis=0)
    np.testing.assert_allclose(moments.variance, exact, rtol=1e-12)


def test_an_update_leaves_the_old_moments_alone():
    old = RunningMoments.empty((1,)).update(np.array([[1.0], [3.0]]))
    mean, variance = old.mean.copy(), old.variance.copy()
    samples = np.array([[7.0]])
    old.update(samples)
    old.normalize(samples)
    np.testing.assert_array_equal(old.mean, mean)
    np.testing.assert_array_equal(old.variance, variance)
    assert old.count == 2
    assert samples == [[7.0]]


def test_no_samples_no_change():
    samples = np.array([[1e6, -3.0]])
    np.testing.assert_array_equal(RunningMoments.empty((2,)).normalize(samples), samples)


def test_clipped_at_ten_deviations():
    moments = RunningMoments(2, np.array([1.0]), np.array([4.0]))
    samples = np.array([[1.0 + 2 * 9.9], [1.0 + 2 * 10.1], [-1e30], [np.inf]])
    np.testing.assert_allclose(moments.normalize(samples), [[9.9], [10], [-10], [10]], rtol=1e-8)


@pytest.mark.parametrize("constant", [0.0, 7.3])
def test_a_constant_feature_is_zero_and_its_first_change_finite(constant):
    moments = RunningMoments.empty((1,)).update(np.full((50, 1), constant))
    samples = constant + np.array([[0.0], [1.0], [-1.0]])
    for _ in range(2):  # the second time with the divisor of the first
        np.testing.assert_array_equal(moments.normalize(samples), [[0.0], [10.0], [-10.0]])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mean", [0.0, 5.0])
@pytest.mark.parametrize("unit", [1e-30, 1e-8, 1e-6, 1.0, 1e30])
def test_normalised_features_do_not_depend_on_the_unit(unit, mean, dtype):
    samples = (unit * np.random.default_rng(3).normal(mean, 1, (1000, 1))).astype(dtype)
    normalized = RunningMoments.empty((1,)).update(samples).normalize(samples)
    np.testing.assert_allclose(normalized.std(), 1.0, rtol=1e-10)


def test_the_variance_of_equal_samples_is_exactly_zero():
    moments = RunningMoments.empty((1,))
    for _ in range(7):
        moments = moments.update(np.full((1001, 1), 0.1))
    assert moments.variance == 0
    assert moments.mean == 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_spread_of_the_last_bit_is_not_blown_up(dtype):
    one = np.ones(1, dtype)
    samples = np.where(np.arange(100)[:, None] % 2, one, np.nextafter(one, 2, dtype=dtype))
    assert samples.dtype == dtype
    normalized = RunningMoments.empty((1,)).update(samples).normalize(samples)
    assert np.abs(normalized).max() <= 1 / 8
