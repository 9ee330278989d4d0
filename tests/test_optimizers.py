"""Optimizers against the formulas of the papers, written out entry by entry."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from minirl import PPO, Clipped, CriticFit, Settings
from minirl.optimizers import SGD, Adam, LinearSchedule, at_progress, clip_by_norm

quick = hypothesis_settings(derandomize=True, max_examples=40, deadline=None, database=None)


def literal_adam(theta, gradients, rates, beta1, beta2, epsilon):
    """Algorithm 1 of Kingma and Ba, one parameter at a time; yields theta after each step."""
    theta = list(theta)
    m, v = [0.0] * len(theta), [0.0] * len(theta)
    for t, (g, alpha) in enumerate(zip(gradients, rates, strict=True), start=1):
        for i in range(len(theta)):
            m[i] = beta1 * m[i] + (1 - beta1) * g[i]
            v[i] = beta2 * v[i] + (1 - beta2) * g[i] ** 2
            m_hat = m[i] / (1 - beta1**t)
            v_hat = v[i] / (1 - beta2**t)
            theta[i] -= alpha * m_hat / (math.sqrt(v_hat) + epsilon)
        yield list(theta)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "settings_", [(0.9, 0.999, 1e-8), (0.5, 0.7, 1e-2), (0.0, 0.0, 1e-5), (0.9, 0.0, 1e-3)]
)
def test_adam_equals_the_papers_formula_and_changes_no_argument(settings_, dtype):
    rng = np.random.default_rng(0)
    theta, rates = rng.normal(size=4).astype(dtype), rng.uniform(0.01, 0.1, size=8)
    gradients = (rng.normal(size=(8, 4)) * np.array([1.0, 1e-3, 10.0, 0.0])).astype(dtype)
    adam = Adam(*settings_)
    state = adam.init(theta)
    expected = literal_adam(theta.tolist(), gradients.astype(float), rates, *settings_)
    for gradient, rate, truth in zip(gradients, rates, expected, strict=True):
        arguments = [theta, gradient, state.mean, state.square]
        copies = [array.copy() for array in arguments]
        state, theta = adam.step(state, theta, gradient, rate)
        for array, copy in zip(arguments, copies, strict=True):
            np.testing.assert_array_equal(array, copy)
        assert theta.dtype == state.mean.dtype == state.square.dtype == dtype
        np.testing.assert_allclose(theta, truth, rtol=1e-12 if dtype == "float64" else 1e-4)
    assert state.steps == 8


@pytest.mark.parametrize("later", [1, 40])
def test_adam_of_few_entries_is_adam_of_all(later):
    """Only entries that have had a gradient have moments; in the end two, or every entry."""
    rng, theta = np.random.default_rng(1), np.arange(40.0)
    gradients = np.zeros((6, 40))
    gradients[0, 7], gradients[2, :later], gradients[4, 7] = 2.0, rng.normal(size=later), -1.0
    adam, rates = Adam(), [0.1] * 6
    state = adam.init(theta)
    expected = literal_adam(theta.tolist(), gradients, rates, 0.9, 0.999, 1e-8)
    sizes = []
    for gradient, rate, truth in zip(gradients, rates, expected, strict=True):
        before, copy = theta, theta.copy()
        state, theta = adam.step(state, theta, gradient, rate)
        np.testing.assert_array_equal(before, copy)
        np.testing.assert_allclose(theta, truth, rtol=1e-12)
        sizes.append(state.mean.size)
    assert sizes == [1, 1, *[max(2, later)] * 4]


def test_sgd_goes_down_the_gradient():
    theta, gradient = np.ones(2, "float32"), np.array([2.0, -4.0], "float32")
    state, new = SGD().step(SGD().init(theta), theta, gradient, 0.25)
    assert state is None
    assert new.dtype == np.float32
    assert new.tolist() == [0.5, 2.0]
    assert (theta.tolist(), gradient.tolist()) == ([1, 1], [2, -4])


def test_clip_by_norm_by_hand():
    gradient = np.array([3.0, 4.0])
    clipped, norm = clip_by_norm(gradient, 1.0)
    np.testing.assert_allclose(clipped, [0.6, 0.8], rtol=1e-15)
    assert norm == 5.0
    for limit in (None, 5.0, 6.0):
        unclipped, norm = clip_by_norm(gradient, limit)
        np.testing.assert_array_equal(unclipped, [3.0, 4.0])
        assert norm == 5.0
    np.testing.assert_array_equal(gradient, [3.0, 4.0])


@quick
@given(
    arrays("float64", 4, elements=st.floats(-1e6, 1e6, allow_subnormal=False)), st.floats(1e-6, 1e6)
)
def test_clip_by_norm_shortens_but_never_turns(gradient, limit):
    clipped, norm = clip_by_norm(gradient, limit)
    np.testing.assert_allclose(norm, math.hypot(*gradient), rtol=1e-12, atol=1e-150)
    length = math.hypot(*clipped)
    np.testing.assert_allclose(length, min(norm, limit), rtol=1e-12, atol=1e-150)
    np.testing.assert_allclose(clipped * norm, gradient * length, rtol=1e-9, atol=1e-150)


def test_clip_by_norm_keeps_float32_and_survives_zero():
    clipped, norm = clip_by_norm(np.array([30.0, 40.0], dtype="float32"), 1.0)
    assert clipped.dtype == np.float32
    assert norm == 50.0
    for limit in (1.0, 0.0):
        clipped, norm = clip_by_norm(np.zeros(2), limit)
        np.testing.assert_array_equal(clipped, [0.0, 0.0])
        assert norm == 0.0


def test_a_schedule_is_a_straight_line():
    falling, rising = LinearSchedule(3e-4), LinearSchedule(1.0, 5.0)
    assert at_progress(falling, 0.0) == 3e-4
    assert at_progress(falling, 1.0) == 0.0
    assert at_progress(falling, 0.5) == 1.5e-4
    assert [at_progress(rising, p) for p in (0.0, 0.25, 1.0)] == [1.0, 2.0, 5.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adam(beta1=1.0), "beta1 .* got 1.0"),
        (lambda: Adam(beta1=-0.1), "beta1 .* got -0.1"),
        (lambda: Adam(beta2=math.nan), "beta2 .* got nan"),
        (lambda: Adam(beta2=1.5), "beta2 .* got 1.5"),
        (lambda: Adam(epsilon=0.0), "epsilon .* got 0.0"),
        (lambda: LinearSchedule(-1.0), "start .* got -1.0"),
        (lambda: LinearSchedule(1.0, math.inf), "end .* got inf"),
    ],
)
def test_impossible_settings_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_every_schedule_in_a_value_is_resolved_nested_ones_included():
    half = LinearSchedule(1.0, 0.0)
    algorithm = PPO(objective=Clipped(half), learning_rate=half, entropy_coefficient=half)
    resolved = at_progress(algorithm, 0.25)
    assert resolved == replace(
        algorithm, objective=Clipped(0.75), learning_rate=0.75, entropy_coefficient=0.75
    )
    settings = Settings(critic_fit=CriticFit(learning_rate=half))
    assert at_progress(settings, 0.5).critic_fit.learning_rate == 0.5
    assert at_progress(PPO(), 0.5) == PPO()
    unchanged = PPO()
    assert at_progress(unchanged, 0.5) is unchanged
    for other in ("text", PPO, None, 3):
        assert at_progress(other, 0.5) is other


@pytest.mark.parametrize("progress", [-0.1, 1.1, np.nan])
def test_progress_is_a_fraction(progress):
    with pytest.raises(ValueError, match="progress must lie in"):
        at_progress(LinearSchedule(1.0), progress)


def test_a_schedule_that_reaches_an_update_says_how_to_resolve_it():
    with pytest.raises(ValueError, match=r"algorithm = at_progress\(algorithm, progress\)"):
        float(LinearSchedule(1.0))
