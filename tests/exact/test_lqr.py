"""The LQR oracle against sums over time, derivatives, fixed points and the environment itself."""

import gymnasium
import numpy as np
import pytest
from helpers import gradient_by_differences

import minirl.envs
from minirl.exact.lqr import (
    LQRProblem,
    expected_return,
    expected_return_finite,
    optimal_gain,
    policy_gradient,
    state_moments,
)

minirl.envs.register_environments()


def default_problem(discount=0.95):
    return LQRProblem.from_gymnasium(gymnasium.make("minirl/LQR-v0"), discount)


def random_problem(rng, n=3, m=2, discount=0.9):
    def covariance(size):
        root = rng.normal(size=(size, size))
        return root @ root.T + 0.1 * np.eye(size)

    A = rng.normal(size=(n, n))
    A *= 0.8 / np.abs(np.linalg.eigvals(A)).max()
    Q, R, noise, start = covariance(n), covariance(m), covariance(n), covariance(n)
    return LQRProblem(A, rng.normal(size=(n, m)), Q, R, noise, start, discount)


def random_stable_gain(rng, problem):
    return optimal_gain(problem) + 0.02 * rng.normal(size=problem.B.T.shape)


@pytest.mark.parametrize("seed", range(3))
def test_return_and_moments_are_sums_over_time(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng)
    gain, log_std = random_stable_gain(rng, problem), rng.normal(size=2)
    loop = problem.A + problem.B @ gain
    noise = problem.noise_covariance + problem.B @ np.diag(np.exp(2 * log_std)) @ problem.B.T
    now, moments = problem.start_covariance, np.zeros((3, 3))
    for t in range(600):
        moments += 0.9**t * now
        now = loop @ now @ loop.T + noise
    np.testing.assert_allclose(state_moments(problem, gain, log_std), moments, rtol=1e-9)
    earned = -np.trace((problem.Q + gain.T @ problem.R @ gain) @ moments)
    earned -= np.diag(problem.R) @ np.exp(2 * log_std) / (1 - 0.9)
    assert expected_return(problem, gain, log_std) == pytest.approx(earned, rel=1e-9)
    finite = expected_return_finite(problem, gain, log_std, 600)
    assert finite == pytest.approx(earned, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_is_the_derivative_of_the_return(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng)
    gain, log_std = random_stable_gain(rng, problem), rng.normal(size=2)
    by_gain, by_log_std = policy_gradient(problem, gain, log_std)
    numeric_gain = gradient_by_differences(lambda k: expected_return(problem, k, log_std), gain)
    numeric_std = gradient_by_differences(lambda x: expected_return(problem, gain, x), log_std)
    np.testing.assert_allclose(by_gain, numeric_gain, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(by_log_std, numeric_std, rtol=1e-7)


@pytest.mark.parametrize("seed", range(3))
def test_riccati_gain_is_stationary_for_every_noise_and_beats_its_neighbours(seed):
    rng = np.random.default_rng(seed)
    problem = random_problem(rng)
    best = optimal_gain(problem)
    for log_std in (np.zeros(2), np.array([-1.0, 0.5])):
        by_gain, _ = policy_gradient(problem, best, log_std)
        np.testing.assert_allclose(by_gain, 0.0, atol=1e-8)
        top = expected_return(problem, best, log_std)
        for _ in range(10):
            neighbour = best + 0.01 * rng.normal(size=best.shape)
            assert expected_return(problem, neighbour, log_std) < top


def test_environment_earns_the_expected_return():
    env = gymnasium.make("minirl/LQR-v0")
    problem, rng = LQRProblem.from_gymnasium(env, 0.95), np.random.default_rng(0)
    gain, log_std = np.array([[-0.5, -0.3]]), np.array([-0.5])
    returns = np.zeros(500)
    env.reset(seed=1)
    for episode in range(len(returns)):
        observation, _ = env.reset()
        for t in range(50):
            force = gain @ observation + np.exp(log_std) * rng.standard_normal(1)
            observation, reward, terminated, truncated, _ = env.step(force)
            returns[episode] += 0.95**t * reward
        assert truncated
        assert not terminated
    error = returns.mean() - expected_return_finite(problem, gain, log_std, 50)
    assert abs(error) < 4 * returns.std() / np.sqrt(len(returns))


def test_unstable_gains_are_explained():
    problem = default_problem()
    for ask in (expected_return, state_moments, policy_gradient):
        with pytest.raises(ValueError, match=r"gain must be stable.*spectral radius is"):
            ask(problem, [[5.0, 5.0]], [0.0])
    assert np.isfinite(expected_return_finite(problem, [[5.0, 5.0]], [0.0], 10))
    assert expected_return_finite(problem, [[5.0, 5.0]], [0.0], 0) == 0


def test_discounting_alone_can_make_a_gain_stable():
    """A scalar random walk left alone: E[s_t**2] = 1 + t, J = -sum_t (1 + t) / 2**t = -4."""
    one = [[1.0]]
    walk = LQRProblem(one, one, one, one, one, one, discount=0.5)
    assert expected_return(walk, [[0.0]], [-np.inf]) == pytest.approx(-4.0)


def test_a_gain_on_the_edge_of_stability_has_no_finite_return():
    """A state that doubles in every step, at discount 1/4: each step costs as much as the last."""
    one = [[1.0]]
    edge = LQRProblem([[2.0]], one, one, one, one, one, discount=0.25)
    with pytest.raises(ValueError, match="spectral radius is 1 for gain"):
        expected_return(edge, [[0.0]], [0.0])


def test_everything_is_computed_in_float64_whatever_is_handed_in():
    base = random_problem(np.random.default_rng(3))
    names = ("A", "B", "Q", "R", "noise_covariance", "start_covariance")
    short = [getattr(base, name).astype("float32") for name in names]
    problem, exact = (
        LQRProblem(*matrices, 0.9) for matrices in (short, [m.astype(float) for m in short])
    )
    assert problem.A.dtype == problem.start_covariance.dtype == np.float64
    gain = optimal_gain(exact).astype("float32")
    log_std = np.array([0.1, -0.2], dtype="float32")
    found = expected_return(problem, gain, log_std)
    assert found == expected_return(exact, gain.astype(float), log_std.astype(float))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"A": np.eye(3)}, r"A must have shape \(2, 2\), got \(3, 3\)"),
        ({"B": np.ones(2)}, "B must be a matrix"),
        ({"R": np.eye(2)}, r"R must have shape \(1, 1\)"),
        ({"Q": np.full((2, 2), np.nan)}, "Q must hold finite numbers"),
        ({"discount": 1.0}, r"discount must be in \[0, 1\), got 1.0"),
        ({"discount": np.nan}, r"discount must be in \[0, 1\), got nan"),
    ],
)
def test_wrong_problems_are_named(changes, message):
    fields = {"A": np.eye(2), "B": np.ones((2, 1)), "Q": np.eye(2), "R": [[1.0]]}
    fields |= {"noise_covariance": np.eye(2), "start_covariance": np.eye(2), "discount": 0.9}
    LQRProblem(**fields)
    with pytest.raises(ValueError, match=message):
        LQRProblem(**(fields | changes))


@pytest.mark.parametrize("name", ["Q", "R", "noise_covariance", "start_covariance"])
@pytest.mark.parametrize("wrong", [[[-1.0]], [[-1e-13]], [[np.nan]]])
def test_costs_and_covariances_are_semidefinite(name, wrong):
    """A negative covariance gave a higher return without a word."""
    one = {key: [[1.0]] for key in ("A", "B", "Q", "R", "noise_covariance", "start_covariance")}
    LQRProblem(**one, discount=0.0)
    with pytest.raises(ValueError, match=f"^{name} must"):
        LQRProblem(**{**one, name: wrong}, discount=0.5)


def test_covariances_are_symmetric_whatever_their_scale():
    two = {key: np.eye(2) for key in ("A", "B", "Q", "R", "noise_covariance", "start_covariance")}
    for scale in (1e-12, 1.0, 1e12):
        root = np.random.default_rng(0).normal(size=(2, 1))
        LQRProblem(**{**two, "noise_covariance": scale * root @ root.T}, discount=0.5)
        skew = scale * np.array([[1.0, 0.5], [0.0, 1.0]])
        with pytest.raises(ValueError, match="noise_covariance must be symmetric"):
            LQRProblem(**{**two, "noise_covariance": skew}, discount=0.5)


@pytest.mark.parametrize(
    ("gain", "log_std", "horizon", "message"),
    [
        ([[0.0], [0.0]], [0.0], 9, r"gain must have shape \(m, n\) = \(1, 2\), got \(2, 1\)"),
        ([[np.nan, 0.0]], [0.0], 9, "gain must hold finite numbers"),
        ([[0.0, 0.0]], 0.0, 9, r"log_std must have shape \(1,\), got \(\)"),
        ([[0.0, 0.0]], [np.nan], 9, "log_std must be numbers below 100, or -inf"),
        ([[0.0, 0.0]], [400.0], 9, "log_std must be numbers below 100, or -inf"),
        ([[0.0, 0.0]], [0.0], -1, "horizon must be a whole number of at least 0"),
        ([[0.0, 0.0]], [0.0], 2.5, "horizon must be a whole number of at least 0"),
        ([[1e300, 0.0]], [0.0], 3, "gain is so large"),
    ],
)
def test_wrong_arguments_are_named(gain, log_std, horizon, message):
    with pytest.raises(ValueError, match=message):
        expected_return_finite(default_problem(), gain, log_std, horizon)
    if horizon == 9:
        with pytest.raises(ValueError, match=message):
            expected_return(default_problem(), gain, log_std)


def test_an_environment_that_is_no_lqr_is_named():
    with pytest.raises(ValueError, match=r"lacks \['A', 'B'"):
        LQRProblem.from_gymnasium(gymnasium.make("CartPole-v1"), 0.9)
