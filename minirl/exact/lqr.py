"""Exact answers for the discounted linear-quadratic regulator (LQR) with a Gaussian policy.

In state s (n,) the policy takes the action ``u = K s + exp(log_std) * noise`` with a gain K (m, n).
A linear network that computes ``s @ W`` therefore has the gain ``K = W.T``. The reward of a step is
``-(s' Q s + u' R u)``, and the next state is ``A s + B u`` plus Gaussian noise. The horizon is
infinite: a time limit that only truncates does not change the answers.

M = A + B K is the closed loop, N = noise covariance + B diag(exp(2 log_std)) B' the covariance of
all noise in one step, and g the discount.

Examples
--------
In one dimension with all matrices 1, no noise of the dynamics and g = 1/2, the gain -1 brings the
state to 0 in one step (M = 0). The value matrix is Q + K R K = 2, the state moments are
1 + g / (1 - g) N = 2, where the noise comes from the policy only, and
J = -2 - (1 + 1/2 * 2) / (1 - 1/2) = -6.

>>> problem = LQRProblem(A=[[1.0]], B=[[1.0]], Q=[[1.0]], R=[[1.0]], noise_covariance=[[0.0]],
...                      start_covariance=[[1.0]], discount=0.5)
>>> value_matrix(problem, [[-1.0]])
array([[2.]])
>>> state_moments(problem, [[-1.0]], [0.0])
array([[2.]])
>>> expected_return(problem, [[-1.0]], [0.0])
-6.0
>>> policy_gradient(problem, [[-1.0]], [0.0])  # -2 (2 * -1 + 1) * 2 and -2 (1 + 1) / (1 - 1/2)
(array([[4.]]), array([-8.]))
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from minirl.support.arguments import check_arguments
from minirl.support.validation import described

FloatArray = NDArray[np.float64]

# A policy with a larger log_std is certainly a mistake; exp(2 log_std) overflows from 355 on.
_LARGEST_LOG_STD = 100.0


@dataclass(frozen=True, eq=False)
class LQRProblem:
    """A discounted LQR problem with n state and m action dimensions.

    Parameters
    ----------
    A, B : array_like (n, n), (n, m)
        Dynamics.
    Q, R : array_like (n, n), (m, m)
        Cost of the state and of the action, symmetric, positive semidefinite.
    noise_covariance, start_covariance : array_like (n, n)
        Covariance of each step's noise and of the first state, both of mean 0; symmetric, positive
        semidefinite.
    discount : float
        In [0, 1): the noise never stops, so without discounting every return is infinite.

    Raises
    ------
    ValueError
        If a shape or the discount is not as above, a number is not finite, or a cost or covariance
        is not symmetric positive semidefinite.
    """

    A: FloatArray
    B: FloatArray
    Q: FloatArray
    R: FloatArray
    noise_covariance: FloatArray
    start_covariance: FloatArray
    discount: float

    def __post_init__(self) -> None:
        matrices = [field.name for field in fields(self) if field.name != "discount"]
        for name in matrices:
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.B.ndim != 2:
            raise ValueError(f"B must be a matrix (n, m), got shape {self.B.shape}")
        n, m = self.B.shape
        for name in matrices:
            matrix = getattr(self, name)
            expected = {"B": (n, m), "R": (m, m)}.get(name, (n, n))
            if matrix.shape != expected:
                raise ValueError(f"{name} must have shape {expected}, got {matrix.shape}")
            if not np.isfinite(matrix).all():
                raise ValueError(f"{name} must hold finite numbers, got {matrix.tolist()}")
            if name not in ("A", "B") and not _is_semidefinite(matrix):
                raise ValueError(
                    f"{name} must be symmetric positive semidefinite, got {matrix.tolist()}"
                )
        if (
            not isinstance(self.discount, int | float | np.floating)
            or not 0.0 <= self.discount < 1.0
        ):
            raise ValueError(f"discount must be in [0, 1), got {self.discount!r}")

    @classmethod
    def from_gymnasium(cls, env: Any, discount: float) -> "LQRProblem":
        """The problem with the matrices of an environment such as ``minirl/LQR-v0``.

        The environment has them as attributes. Raises ValueError if one is missing.
        """
        names = [field.name for field in fields(cls) if field.name != "discount"]
        env = getattr(env, "unwrapped", env)
        missing = [name for name in names if not hasattr(env, name)]
        if missing:
            raise ValueError(
                f'env must publish {names}, as gymnasium.make("minirl/LQR-v0") does, got '
                f"{described(env)} that lacks {missing}"
            )
        matrices = {name: getattr(env, name) for name in names}
        return cls(**matrices, discount=discount)


def optimal_gain(problem: LQRProblem) -> FloatArray:
    """The optimal gain ``K = -(R + g B' X B)^-1 g B' X A`` (m, n), from the Riccati equation.

    X solves ``X = Q + g A' X A - g A' X B (R + g B' X B)^-1 g B' X A``. The gain is optimal for
    every log_std of the policy. With log_std = -inf, it is the optimal policy.
    """
    A, B = np.sqrt(problem.discount) * problem.A, np.sqrt(problem.discount) * problem.B
    values = scipy.linalg.solve_discrete_are(A, B, problem.Q, problem.R)
    return np.asarray(-np.linalg.solve(problem.R + B.T @ values @ B, B.T @ values @ A))


def value_matrix(problem: LQRProblem, gain: ArrayLike) -> FloatArray:
    """The matrix X (n, n) in the value ``-s' X s - constant`` of a state s under `gain`.

    It solves ``X = Q + K' R K + g M' X M`` and does not depend on any noise.

    Raises
    ------
    ValueError
        If the gain is unstable (``sqrt(g) M`` has an eigenvalue outside the unit circle).
    """
    K = _checked_gain(problem, gain)
    loop = np.sqrt(problem.discount) * (problem.A + problem.B @ K)
    return np.asarray(scipy.linalg.solve_discrete_lyapunov(loop.T, problem.Q + K.T @ problem.R @ K))


def state_moments(problem: LQRProblem, gain: ArrayLike, log_std: ArrayLike) -> FloatArray:
    """Discounted second moments (n, n) of the states, ``sum_t g**t E[s_t s_t']``.

    They solve ``X = start covariance + g / (1 - g) N + g M X M'``. Raises ValueError for an
    unstable gain.
    """
    K, g = _checked_gain(problem, gain), problem.discount
    noise = _step_noise(problem, _action_covariance(problem, log_std))
    loop = np.sqrt(g) * (problem.A + problem.B @ K)
    inflow = problem.start_covariance + g / (1.0 - g) * noise
    return np.asarray(scipy.linalg.solve_discrete_lyapunov(loop, inflow))


def expected_return(problem: LQRProblem, gain: ArrayLike, log_std: ArrayLike) -> float:
    """Expected discounted return J over the infinite horizon.

    ``-tr(X start covariance) - (tr(R diag(exp(2 log_std))) + g tr(X N)) / (1 - g)`` with X the
    `value_matrix`. Raises ValueError for an unstable gain.

    Parameters
    ----------
    gain : array_like (m, n)
        K in ``u = K s + exp(log_std) * noise``.
    log_std : array_like (m,)
        Logarithm of the standard deviation of each action; -inf for none.
    """
    X, g = value_matrix(problem, gain), problem.discount
    action_covariance = _action_covariance(problem, log_std)
    per_step = np.trace(problem.R @ action_covariance)
    per_step += g * np.trace(X @ _step_noise(problem, action_covariance))
    return float(-np.trace(X @ problem.start_covariance) - per_step / (1.0 - g))


def policy_gradient(
    problem: LQRProblem, gain: ArrayLike, log_std: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Gradient of `expected_return` with respect to the gain (m, n) and to log_std (m,).

    With X the `value_matrix`, the derivative with respect to the gain is
    ``-2 ((R + g B' X B) K + g B' X A) state_moments``, and the derivative with respect to log_std
    is ``-2 diag(R + g B' X B) exp(2 log_std) / (1 - g)``, elementwise. Raises ValueError for an
    unstable gain.

    References
    ----------
    Fazel, Ge, Kakade and Mesbahi, "Global convergence of policy gradient methods for the linear
    quadratic regulator" (2018), there for cost instead of reward and ``u = -K s``.
    """
    K, g, A, B = _checked_gain(problem, gain), problem.discount, problem.A, problem.B
    X = value_matrix(problem, K)
    action_cost = problem.R + g * B.T @ X @ B
    d_gain = -2.0 * (action_cost @ K + g * B.T @ X @ A) @ state_moments(problem, K, log_std)
    variances = np.diag(_action_covariance(problem, log_std))
    return d_gain, -2.0 * np.diag(action_cost) * variances / (1.0 - g)


def expected_return_finite(
    problem: LQRProblem, gain: ArrayLike, log_std: ArrayLike, horizon: int
) -> float:
    """Expected discounted return of the first `horizon` steps, that is of truncated episodes.

    ``-sum_{t < horizon} g^t (tr((Q + K' R K) S_t) + tr(R diag(exp(2 log_std))))`` with the second
    moments ``S_0 = start covariance``, ``S_{t+1} = M S_t M' + N`` of the state. Any gain is
    allowed. Raises ValueError unless `horizon` is a whole number of at least 0, or if the return
    overflows.
    """
    if not isinstance(horizon, int | np.integer) or horizon < 0:
        raise ValueError(f"horizon must be a whole number of at least 0, got {horizon!r}")
    with np.errstate(over="ignore", invalid="ignore"):  # checked at the end
        K, action_covariance = _matrix_gain(problem, gain), _action_covariance(problem, log_std)
        loop, noise = problem.A + problem.B @ K, _step_noise(problem, action_covariance)
        state_cost, action_cost = problem.Q + K.T @ problem.R @ K, problem.R @ action_covariance
        moments, total = problem.start_covariance, 0.0
        for t in range(horizon):
            cost = np.trace(state_cost @ moments) + np.trace(action_cost)
            total -= problem.discount**t * float(cost)
            moments = loop @ moments @ loop.T + noise
    if not np.isfinite(total):
        raise ValueError("the gain is so large that the expected return overflows")
    return total


def _is_semidefinite(matrix: FloatArray) -> bool:
    """Whether `matrix` is symmetric positive semidefinite, up to rounding of its largest entry."""
    rounding = 1e-12 * len(matrix) * np.abs(matrix).max()
    symmetric = np.abs(matrix - matrix.T).max() <= rounding
    return bool(symmetric and np.linalg.eigvalsh(matrix).min() >= -rounding)


def _step_noise(problem: LQRProblem, action_covariance: FloatArray) -> FloatArray:
    """N (n, n): covariance of the noise of one step, from the dynamics and from the policy."""
    return np.asarray(problem.noise_covariance + problem.B @ action_covariance @ problem.B.T)


def _action_covariance(problem: LQRProblem, log_std: ArrayLike) -> FloatArray:
    """``diag(exp(2 log_std))`` (m, m)."""
    log_std = np.asarray(log_std, np.float64)
    if log_std.shape != (len(problem.R),):
        raise ValueError(f"log_std must have shape {(len(problem.R),)}, got {log_std.shape}")
    if not np.all(log_std < _LARGEST_LOG_STD):  # NaN fails too
        raise ValueError(
            f"log_std must be numbers below {_LARGEST_LOG_STD:g}, or -inf, got {log_std.tolist()}"
        )
    return np.diag(np.exp(2.0 * log_std))


def _matrix_gain(problem: LQRProblem, gain: ArrayLike) -> FloatArray:
    """`gain` as a float64 array (m, n), or ValueError."""
    matrix = np.asarray(gain, np.float64)
    if matrix.shape != problem.B.T.shape:
        raise ValueError(f"gain must have shape (m, n) = {problem.B.T.shape}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise ValueError(f"gain must hold finite numbers, got {matrix.tolist()}")
    return matrix


def _checked_gain(problem: LQRProblem, gain: ArrayLike) -> FloatArray:
    """`gain` as a float64 array (m, n), or ValueError if its return is infinite."""
    matrix = _matrix_gain(problem, gain)
    eigenvalues = np.linalg.eigvals(problem.A + problem.B @ matrix)
    radius = np.sqrt(problem.discount) * np.abs(eigenvalues).max()
    if not radius < 1.0:
        raise ValueError(
            f"gain must be stable, sqrt(discount) * (A + B K) within the unit circle; its spectral "
            f"radius is {radius:.6g} for gain {matrix.tolist()}"
        )
    return matrix


check_arguments(__name__)
