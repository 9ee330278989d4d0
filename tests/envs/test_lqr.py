"""LQR: the step is the published linear dynamics, cost and noise."""

import numpy as np
import pytest

from minirl.envs.lqr import LQR


def test_a_step_without_noise_by_hand():
    env = LQR(noise_covariance=np.zeros((2, 2)))
    env.reset(seed=0)
    env.state = np.array([1.0, 2.0])
    observation, reward, terminated, truncated, _ = env.step(np.array([3.0], np.float32))
    np.testing.assert_allclose(env.state, [1.0 + 0.4, -0.1 + 1.6 + 0.6], rtol=1e-15)
    np.testing.assert_array_equal(observation, env.state.astype(np.float32))
    assert reward == pytest.approx(-(1.0 + 0.1 * 4.0 + 0.1 * 9.0))
    assert isinstance(reward, float)
    assert not terminated
    assert not truncated


def test_start_and_noise_have_the_published_covariances():
    env = LQR(
        A=np.zeros((2, 2)),
        noise_covariance=[[1.0, 0.5], [0.5, 0.25]],  # singular on purpose
        start_covariance=[[2.0, -1.0], [-1.0, 3.0]],
    )
    draws = 4000
    env.reset(seed=0)
    starts = np.array([env.reset()[0] for _ in range(draws)], np.float64)
    noises = np.array([env.step(np.zeros(1))[0] for _ in range(draws)], np.float64)
    for samples, covariance in [(starts, env.start_covariance), (noises, env.noise_covariance)]:
        variances = np.diag(covariance)
        sigma = np.sqrt((np.outer(variances, variances) + covariance**2) / draws)
        assert (np.abs(samples.T @ samples / draws - covariance) < 4 * sigma).all()
        assert (np.abs(samples.mean(0)) < 4 * np.sqrt(variances / draws)).all()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"A": np.eye(3)}, r"A must have shape \(2, 2\)"),
        ({"A": np.full((2, 2), np.nan)}, "A must hold finite numbers"),
        ({"B": np.ones(2)}, "B must be a matrix"),
        ({"B": [[np.inf], [0]]}, "B must hold finite numbers"),
        ({"R": np.eye(2)}, r"R must have shape \(1, 1\)"),
        *(
            ({name: matrix}, f"{name} must be symmetric positive semidefinite")
            for name in ("noise_covariance", "start_covariance", "Q")
            for matrix in (
                -1e-13 * np.eye(2),  # a small matrix may be wrong as well
                [[1e-10, 9e-11], [0.0, 1e-10]],
                [[np.nan, 0.0], [0.0, 1.0]],
                [[np.inf, 0.0], [0.0, 1.0]],
            )
        ),
    ],
)
def test_wrong_matrices_are_named(kwargs, message):
    with pytest.raises(ValueError, match=message):
        LQR(**kwargs)


def test_a_large_matrix_may_be_rounded():
    root = 1e6 * np.random.default_rng(0).normal(size=(2, 1))
    assert LQR(start_covariance=root @ root.T).start_covariance[0, 0] > 0
