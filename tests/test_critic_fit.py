"""The value loss by hand and by differences; the fit against the least-squares solution."""

import math

import helpers
import numpy as np
import pytest
from gymnasium import spaces

from minirl.checks import finite_difference
from minirl.critic_fit import CriticFit, TableFit, explained_variance, value_loss
from minirl.networks import Linear, Table
from minirl.optimizers import SGD
from minirl.policy import Critic, make_critic


def make_batch(observations, returns, *, dtype="float64", **columns):
    columns["returns"] = np.asarray(returns, dtype)
    if "values" in columns:
        columns["values"] = np.asarray(columns["values"], dtype)
    if "weight" in columns:
        columns["weight"] = np.asarray(columns["weight"])
    return helpers.make_batch(len(returns), dtype, observations=np.asarray(observations), **columns)


def test_value_loss_by_hand():
    """Errors 1 and -2 with weights 1/4 and 3/4: (1/4 + 3) / 2."""
    batch = make_batch([0, 0], [0.0, 3.0], weight=[0.25, 0.75])
    loss, derivative = value_loss(np.array([1.0, 1.0]), batch)
    assert loss == 1.625
    np.testing.assert_array_equal(derivative, [0.25, -1.5])


@pytest.mark.parametrize(
    ("value", "target", "loss", "derivative"),
    [
        # The old value is 1, the range 0.5: values beyond 0.5 .. 1.5 are clipped to it.
        (1.2, 3.0, 0.5 * 1.8**2, -1.8),  # inside: as without clipping
        (2.0, 3.0, 0.5 * 1.5**2, 0.0),  # moved towards the target, far enough: no more push
        (2.0, 0.0, 0.5 * 2.0**2, 2.0),  # moved away: pulled back with full force
        (0.0, -2.0, 0.5 * 2.5**2, 0.0),  # towards it from above
        (0.0, 2.0, 0.5 * 2.0**2, -2.0),  # away from it, below
        (2.0, 1.9, 0.5 * 0.4**2, 0.0),  # overshot, yet nearer than the clipped value: no push
        (3.0, 1.9, 0.5 * 1.1**2, 1.1),  # overshot beyond it: pulled back
        (2.0, 1.75, 0.5 * 0.25**2, 0.25),  # overshot, the two losses equal: as without clipping
    ],
)
def test_clipped_value_loss_by_hand(value, target, loss, derivative):
    batch = make_batch([0], [target], values=[1.0], weight=[1.0])
    found_loss, found = value_loss(np.array([value]), batch, 0.5)
    np.testing.assert_allclose(found_loss, loss, rtol=1e-14)
    np.testing.assert_allclose(found, [derivative], rtol=1e-14)


@pytest.mark.parametrize("clip_range", [None, 0.3, 100.0])
def test_value_loss_derivative_equals_central_differences(clip_range):
    rng = np.random.default_rng(0)
    old, values, returns = rng.normal(size=(3, 200))
    batch = make_batch(np.zeros(200), returns, values=old, weight=rng.uniform(size=200))
    _, derivative = value_loss(values, batch, clip_range)
    for row, unit in enumerate(np.eye(200)):
        truth = finite_difference(lambda v: value_loss(v, batch, clip_range)[0], values, unit)
        np.testing.assert_allclose(derivative[row], truth, atol=1e-7)
    if clip_range == 0.3:
        assert 20 < (derivative == 0).sum() < 180  # both branches were met


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rounding_never_clips_a_value_inside_the_range(dtype):
    """old + (value - old) need not equal value to the last bit; the derivative must not care."""
    rng = np.random.default_rng(1)
    old = rng.normal(size=10_000).astype(dtype)
    values = (old + rng.uniform(-0.1, 0.1, size=10_000)).astype(dtype)
    batch = make_batch(old, rng.normal(size=10_000), values=old, dtype=dtype)
    loss, derivative = value_loss(values, batch, 0.2)
    unclipped_loss, unclipped = value_loss(values, batch)
    np.testing.assert_array_equal(derivative, unclipped)
    np.testing.assert_allclose(loss, unclipped_loss, rtol=1e-5)
    assert derivative.dtype == dtype


def test_a_value_on_the_edge_of_the_range_is_not_clipped():
    """0.8 - (0.8 - 0.2) is 0.2 less 4e-17, further from 0.3 than the value itself."""
    old, value, target = 0.8, 0.2, 0.3
    batch = make_batch([0], [target], values=[old], weight=[1.0])
    _, derivative = value_loss(np.array([value]), batch, clip_range=old - value)
    np.testing.assert_allclose(derivative, [value - target], rtol=1e-14)


@pytest.mark.parametrize("clip_range", [None, 0.2])
def test_a_column_of_values_does_not_broadcast_into_a_square(clip_range):
    with pytest.raises((TypeError, ValueError)):
        value_loss(np.zeros((4, 1)), make_batch(np.zeros(4), np.zeros(4)), clip_range)


def test_explained_variance_by_hand():
    returns = np.array([0.0, 2.0, 4.0])
    assert explained_variance(returns, returns) == 1.0
    assert explained_variance(returns + 7.0, returns) == 1.0  # blind to a constant offset
    assert explained_variance(np.full(3, 2.0), returns) == 0.0
    np.testing.assert_allclose(explained_variance(returns / 2, returns), 0.75, rtol=1e-15)
    np.testing.assert_allclose(explained_variance(-returns, returns), -3.0, rtol=1e-15)
    assert explained_variance(np.array([1e-9, 2e-9]), np.array([1e-9, 2e-9])) == 1
    # returns that differ by rounding only have none
    assert math.isnan(explained_variance(np.zeros(2), np.array([0.3, 0.1 + 0.2])))


def test_explained_variance_of_float32_is_computed_in_float64():
    """A thousand returns near 1000 that vary by a hundredth."""
    returns = np.random.default_rng(11).normal(1e3, 1e-2, 1000).astype("float32")
    values = (returns + np.random.default_rng(12).normal(0, 5e-3, 1000)).astype("float32")
    exact = 1 - np.var((returns - values).astype(float)) / np.var(returns.astype(float))
    np.testing.assert_allclose(explained_variance(values, returns), exact, rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("constant", [0.0, 1.0, 0.1, -3.3])
@pytest.mark.parametrize("n", [1, 3, 1000])
def test_explained_variance_of_constant_returns_is_nan(dtype, constant, n):
    values = np.arange(n, dtype=dtype)
    assert math.isnan(explained_variance(values, np.full(n, constant, dtype=dtype)))


def test_the_fit_of_a_line_reaches_the_weighted_least_squares_solution():
    rng = np.random.default_rng(4)
    x, returns, weight = rng.normal(size=(30, 2)), rng.normal(size=30), rng.uniform(size=30)
    batch = make_batch(x, returns, weight=weight / weight.sum())
    fit = CriticFit(learning_rate=0.5, epochs=300, minibatch_size=30, optimizer=SGD())
    state, _ = fit.fit(fit.init(Critic(Linear(2, 1), np.zeros(2))), batch, rng)
    root = np.sqrt(weight)
    truth = np.linalg.lstsq(root[:, None] * x, root * returns)[0]
    np.testing.assert_allclose(state.critic.parameters, truth, atol=1e-10)


def test_one_step_by_hand_with_and_without_a_gradient_limit():
    """One state, value 0, return 4: the gradient is -4, and the metrics say so."""
    batch = make_batch([0, 0], [3.0, 5.0])
    for limit, moved in ((None, 0.4), (1.0, 0.1), (10.0, 0.4)):
        fit = CriticFit(learning_rate=0.1, epochs=1, optimizer=SGD(), max_gradient_norm=limit)
        old = Critic(Table(1, 1), np.zeros(1))
        rng = np.random.default_rng(5)
        state, metrics = fit.fit(fit.init(old), batch, rng)
        np.testing.assert_allclose(state.critic.parameters, [moved], rtol=1e-14)
        np.testing.assert_array_equal(old.parameters, [0.0])
        np.testing.assert_allclose(metrics["value_loss"], 0.5 * (9 + 25) / 2)
        np.testing.assert_allclose(metrics["critic_gradient_norm"], 4.0)


@pytest.mark.parametrize("fit", [CriticFit(learning_rate=1e-9), TableFit()])
def test_the_reported_loss_does_not_depend_on_the_sum_of_the_weights(fit):
    batch = make_batch([0, 0], [3.0, 5.0], weight=np.array([0.01, 0.03]))
    state = fit.init(Critic(Table(1, 1), np.zeros(1)))
    _, metrics = fit.fit(state, batch, np.random.default_rng(0))
    np.testing.assert_allclose(metrics["value_loss"], 0.5 * (0.25 * 9 + 0.75 * 25), rtol=1e-6)


def test_metrics_of_a_fit():
    rng = np.random.default_rng(6)
    returns = rng.normal(size=40)
    batch = make_batch(np.zeros(40, dtype=int), returns, values=returns / 2)
    fit = CriticFit(learning_rate=0.1, epochs=3, minibatch_size=10)
    _, metrics = fit.fit(fit.init(Critic(Table(1, 1), np.zeros(1))), batch, rng)
    np.testing.assert_allclose(metrics["explained_variance"], 0.75)  # of the values before
    assert metrics["critic_gradient_equivalents"] == 3 * 40
    assert set(metrics) == {
        "value_loss",
        "explained_variance",
        "critic_gradient_norm",
        "critic_gradient_equivalents",
    }


def test_value_clipping_holds_the_critic_near_its_old_values():
    """Without it the table reaches 4; with it, just past old value + range, and stays."""
    batch = make_batch([0], [4.0], values=[0.0])
    for clip_range, low, high in ((None, 3.999, 4.001), (0.5, 0.5, 0.9)):
        fit = CriticFit(learning_rate=0.1, epochs=200, value_clip=clip_range, optimizer=SGD())
        state = fit.init(Critic(Table(1, 1), np.zeros(1)))
        state, _ = fit.fit(state, batch, np.random.default_rng(8))
        assert low <= state.critic.parameters[0] <= high


def table_fit(fit, batch, values):
    state = fit.init(Critic(Table(len(values), 1), np.asarray(values)))
    return fit.fit(state, batch, np.random.default_rng(0))


def test_table_fit_by_hand():
    """State 0 returned 1 and, with three times the weight, 5; state 2 returned 8."""
    batch = make_batch([0, 2, 0], [1.0, 8.0, 5.0], values=[2.0, 4.0, 2.0], weight=[0.1, 0.6, 0.3])
    old = np.array([2.0, 7.0, 4.0, 9.0])
    state, metrics = table_fit(TableFit(rate=0.25), batch, old)
    np.testing.assert_allclose(state.critic.parameters, [2.5, 7.0, 5.0, 9.0], rtol=1e-14)
    assert old.tolist() == [2.0, 7.0, 4.0, 9.0]
    # before the move: errors 1, -4 and -3
    np.testing.assert_allclose(metrics["value_loss"], (0.1 * 1 + 0.6 * 16 + 0.3 * 9) / 2)
    # residuals of values against returns: -1, 4, 3 with mean 2; returns vary by 74/9
    np.testing.assert_allclose(metrics["explained_variance"], 1 - (14 / 3) / (74 / 9))
    assert metrics["critic_gradient_equivalents"] == 3
    assert len(metrics) == 3


@pytest.mark.parametrize("rate", [0.0, -0.5, 1.5, math.nan])
def test_an_impossible_rate_is_named(rate):
    assert TableFit(rate=1.0).rate == 1.0
    with pytest.raises(ValueError, match=rf"^rate must lie in \(0, 1\], got {rate}"):
        TableFit(rate=rate)


def test_table_fit_refuses_what_is_no_table_before_training():
    critic = make_critic(spaces.Box(-1, 1, (2,)), np.random.default_rng(0))
    with pytest.raises(ValueError, match="TableFit fits tables .* got MLP.*use CriticFit"):
        TableFit().init(critic)
