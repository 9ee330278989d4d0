"""The linear-quadratic regulator: a continuous control problem with exact answers.

The default is a cart on a rail with friction, pulled to the middle by a weak spring. The state is
(position, velocity), the action is a force, and a step takes 0.2 seconds.
"""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from minirl.support.arguments import check_arguments
from minirl.support.validation import require_seed

FloatArray = NDArray[np.float64]


class LQR(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """Linear dynamics with Gaussian noise, and a quadratic cost.

    With state s (n,) and action u (m,), the reward of a step is ``-(s' Q s + u' R u)`` and the next
    state is ``A s + B u + noise``. The first state and the noise are Gaussian with mean 0. No
    episode terminates: the registered time limit truncates, so the value of a state is that of the
    infinite horizon. The dynamics are computed in float64, and observations are returned as
    float32.

    Parameters
    ----------
    A, B : array_like (n, n), (n, m)
        Dynamics.
    Q, R : array_like (n, n), (m, m)
        Cost of the state and of the action, symmetric, positive semidefinite.
    noise_covariance, start_covariance : array_like (n, n)
        Covariance of each step's noise and of the first state, symmetric, positive semidefinite.

    Attributes
    ----------
    A, B, Q, R, noise_covariance, start_covariance : ndarray
        The problem, as float64.

    Raises
    ------
    ValueError
        If a matrix has the wrong shape, or is not symmetric positive semidefinite where it must be.
    """

    def __init__(
        self,
        A: ArrayLike = ((1.0, 0.2), (-0.1, 0.8)),
        B: ArrayLike = ((0.0,), (0.2,)),
        Q: ArrayLike = ((1.0, 0.0), (0.0, 0.1)),
        R: ArrayLike = ((0.1,),),
        noise_covariance: ArrayLike = ((0.001, 0.0), (0.0, 0.01)),
        start_covariance: ArrayLike = ((1.0, 0.0), (0.0, 1.0)),
    ) -> None:
        self.A, self.B = np.array(A, np.float64), np.array(B, np.float64)
        if self.B.ndim != 2:
            raise ValueError(f"B must be a matrix (n, m), got shape {self.B.shape}")
        n, m = self.B.shape
        if self.A.shape != (n, n):
            raise ValueError(f"A must have shape {(n, n)} to go with B, got {self.A.shape}")
        for name, matrix in (("A", self.A), ("B", self.B)):
            if not np.isfinite(matrix).all():
                raise ValueError(f"{name} must hold finite numbers, got {matrix.tolist()}")
        self.Q, self.R = _semidefinite("Q", Q, n), _semidefinite("R", R, m)
        self.noise_covariance = _semidefinite("noise_covariance", noise_covariance, n)
        self.start_covariance = _semidefinite("start_covariance", start_covariance, n)
        self._noise_factor = _factor(self.noise_covariance)
        self._start_factor = _factor(self.start_covariance)
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (n,), np.float32)
        self.action_space = gymnasium.spaces.Box(-np.inf, np.inf, (m,), np.float32)
        self.state = np.zeros(n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Draw the first state; returns it with an empty info."""
        require_seed(seed, optional=True)
        super().reset(seed=seed)
        self.state = self._start_factor @ self.np_random.standard_normal(len(self.A))
        return self.state.astype(np.float32), {}

    def step(
        self, action: ArrayLike
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """The next state A s + B u + noise and the reward -(s' Q s + u' R u); never ends."""
        force = np.asarray(action, np.float64)
        reward = -float(self.state @ self.Q @ self.state + force @ self.R @ force)
        noise = self._noise_factor @ self.np_random.standard_normal(len(self.A))
        self.state = self.A @ self.state + self.B @ force + noise
        return self.state.astype(np.float32), reward, False, False, {}


def _semidefinite(name: str, matrix: ArrayLike, size: int) -> FloatArray:
    """`matrix` as float64, checked to be (size, size), symmetric and positive semidefinite."""
    checked = np.array(matrix, np.float64)
    if checked.shape != (size, size):
        raise ValueError(f"{name} must have shape {(size, size)}, got {checked.shape}")
    finite = np.isfinite(checked).all()
    # The tolerance is relative to the largest entry, so that small covariances are checked too.
    rounding = 1e-12 * size * np.abs(checked).max()
    if (
        not finite
        or np.abs(checked - checked.T).max() > rounding
        or np.linalg.eigvalsh(checked).min() < -rounding
    ):
        raise ValueError(f"{name} must be symmetric positive semidefinite, got {checked.tolist()}")
    return checked


def _factor(covariance: FloatArray) -> FloatArray:
    """A matrix F with ``F F' = covariance``; unlike Cholesky's it may be singular."""
    variances, directions = np.linalg.eigh(covariance)
    return np.asarray(directions * np.sqrt(np.maximum(variances, 0.0)))


check_arguments(__name__, often=("LQR.step",))
