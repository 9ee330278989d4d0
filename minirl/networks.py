"""Networks on one flat parameter vector: value, vjp and jvp written out, no autodiff engine.

Each network is an immutable description with four verbs, where J is the Jacobian of the outputs
with respect to theta::

    init(rng)             -> theta            (P,)
    forward(theta, x)     -> (y, cache)       (N, outputs)
    vjp(cache, dy)        -> dy^T J           (P,)       the backward pass
    jvp(cache, dtheta)    -> J dtheta         (N, outputs)

Weights are reshaped views of theta, so an optimizer or a line search handles one array.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol

import numpy as np

from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    require_count,
    require_finite,
    require_finite_numbers,
    require_float_type,
    require_instance,
    require_positive,
    require_rows,
    require_shape,
)


class Network(Protocol):
    """The interface of a network that a policy or a critic can use."""

    @property
    def dtype(self) -> str: ...
    @property
    def size(self) -> int: ...
    def init(self, rng: np.random.Generator) -> np.ndarray: ...
    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Any]: ...
    def vjp(self, cache: Any, dy: np.ndarray) -> np.ndarray: ...
    def jvp(self, cache: Any, dtheta: np.ndarray) -> np.ndarray: ...


def orthogonal(shape: tuple[int, int], gain: float, rng: np.random.Generator) -> np.ndarray:
    """A matrix with orthonormal rows or columns (whichever are fewer), times `gain`.

    Source: Saxe, McClelland and Ganguli 2014. The signs of R's diagonal make the distribution
    uniform over the orthogonal matrices.
    """
    rows, columns = shape
    q, r = np.linalg.qr(rng.standard_normal((max(shape), min(shape))))
    q = q * np.sign(np.diag(r))
    return gain * (q if rows >= columns else q.T)


class MLPCache:
    """Values of a forward pass that its derivatives use: weights, inputs of each layer, slopes."""

    def __init__(self, weights: list[np.ndarray], inputs: list[np.ndarray]) -> None:
        self.weights = weights
        self.inputs = inputs
        self._slopes: list[np.ndarray] = []

    def slopes(self) -> list[np.ndarray]:
        """tanh' = 1 - h^2 of each hidden layer (computed once, used by every product)."""
        if not self._slopes:
            for h in self.inputs[1:]:
                slope = h * h
                self._slopes.append(np.subtract(1, slope, out=slope))
        return self._slopes


@dataclass(frozen=True)
class MLP:
    """Fully connected network with tanh hidden layers and a linear output.

    For inputs x and L layers of weights W_l and biases b_l::

        h_0 = x
        h_l = tanh(h_{l-1} W_l + b_l)    for l = 1, ..., L - 1
        y   = h_{L-1} W_L + b_L

    Parameters
    ----------
    sizes : tuple of int
        Widths from input to output, e.g. (4, 64, 64, 2).
    output_gain : float
        Orthogonal gain of the last layer: 0.01 starts a policy near uniform, 1 suits a critic.
        Hidden layers use sqrt(2).
    dtype : str
        "float32" to train (about twice as fast), "float64" to check derivatives.
    """

    sizes: tuple[int, ...]
    output_gain: float = 1.0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if len(self.sizes) < 2:
            raise ValueError(f"sizes must name at least input and output width, got {self.sizes}")
        for width in self.sizes:
            require_count("every width in sizes", width)
        require_positive("output_gain", self.output_gain)
        require_float_type(self.dtype)

    @cached_property
    def size(self) -> int:
        """Number of parameters P."""
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes))

    @cached_property
    def _layout(self) -> list[tuple[slice, tuple[int, int], slice]]:
        """Where each layer's weight and bias lie in theta, and the weight's shape."""
        layout, start = [], 0
        for shape in pairwise(self.sizes):
            middle = start + shape[0] * shape[1]
            end = middle + shape[1]
            layout.append((slice(start, middle), shape, slice(middle, end)))
            start = end
        return layout

    def layers(self, theta: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Weight (n_in, n_out) and bias (n_out,) of each layer, as views of theta."""
        return [(theta[weight].reshape(shape), theta[bias]) for weight, shape, bias in self._layout]

    def init(self, rng: np.random.Generator) -> np.ndarray:
        """Orthogonal weights, zero biases, theta (P,)."""
        theta = np.zeros(self.size, dtype=self.dtype)
        gains = [np.sqrt(2)] * (len(self.sizes) - 2) + [self.output_gain]
        for (weight, _), gain in zip(self.layers(theta), gains, strict=True):
            weight[:] = orthogonal(weight.shape, gain, rng)
        return theta

    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, MLPCache]:
        """Outputs (N, outputs) for inputs x (N, inputs)."""
        x = np.asarray(x, dtype=self.dtype)
        require_rows("observations of this network", x, self.sizes[:1])
        weights, inputs = [], [x]
        for weight, bias in self.layers(theta):
            y = inputs[-1] @ weight
            y += bias
            weights.append(weight)
            if len(weights) < len(self.sizes) - 1:
                inputs.append(np.tanh(y, out=y))
        return y, MLPCache(weights, inputs)

    def vjp(self, cache: MLPCache, dy: np.ndarray) -> np.ndarray:
        """dy^T J (P,) for dy (N, outputs): backpropagation."""
        dtheta = np.empty(self.size, dtype=dy.dtype)
        ones = np.ones(len(dy), dtype=dy.dtype)
        d_layers, slopes = self.layers(dtheta), cache.slopes()
        for layer in reversed(range(len(d_layers))):
            d_weight, d_bias = d_layers[layer]
            np.matmul(cache.inputs[layer].T, dy, out=d_weight)
            np.matmul(ones, dy, out=d_bias)
            if layer > 0:
                weight = cache.weights[layer].T
                # From one output back it is an outer product, which BLAS is slow at.
                dy = dy * weight if len(weight) == 1 else dy @ weight
                dy *= slopes[layer - 1]
        return dtheta

    def jvp(self, cache: MLPCache, dtheta: np.ndarray) -> np.ndarray:
        """J dtheta (N, outputs) for a direction dtheta (P,): forward-mode differentiation."""
        d_input, slopes = None, cache.slopes()
        for layer, (d_weight, d_bias) in enumerate(self.layers(dtheta)):
            dy = cache.inputs[layer] @ d_weight
            dy += d_bias
            if d_input is not None:
                dy += d_input @ cache.weights[layer]
            if layer < len(slopes):
                dy *= slopes[layer]
            d_input = dy
        return dy


@dataclass(frozen=True)
class Linear:
    """y = x W without a bias: the policy class of the linear-quadratic regulator.

    theta is W (inputs, outputs) flattened row by row; it starts at zero.
    """

    inputs: int
    outputs: int
    dtype: str = "float64"

    def __post_init__(self) -> None:
        require_count("inputs", self.inputs)
        require_count("outputs", self.outputs)
        require_float_type(self.dtype)

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self.inputs * self.outputs

    def init(self, rng: np.random.Generator) -> np.ndarray:
        """Zeros, theta (P,); `rng` is part of the interface and not drawn from."""
        return np.zeros(self.size, dtype=self.dtype)

    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (N, outputs) for inputs x (N, inputs)."""
        x = np.asarray(x, dtype=self.dtype)
        require_rows("observations of this network", x, (self.inputs,))
        return x @ theta.reshape(self.inputs, self.outputs), x

    def vjp(self, cache: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """dy^T J (P,)."""
        return (cache.T @ dy).ravel()

    def jvp(self, cache: np.ndarray, dtheta: np.ndarray) -> np.ndarray:
        """J dtheta (N, outputs)."""
        return cache @ dtheta.reshape(self.inputs, self.outputs)


@dataclass(frozen=True)
class Table:
    """One row of outputs per discrete state: y = theta[state]. Starts at zero.

    theta is the table (states, outputs) flattened row by row.
    """

    states: int
    outputs: int
    dtype: str = "float64"

    def __post_init__(self) -> None:
        require_count("states", self.states)
        require_count("outputs", self.outputs)
        require_float_type(self.dtype)

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self.states * self.outputs

    def init(self, rng: np.random.Generator) -> np.ndarray:
        """Zeros, theta (P,); `rng` is part of the interface and not drawn from."""
        return np.zeros(self.size, dtype=self.dtype)

    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The rows (N, outputs) of the visited states x (N,), whole numbers 0 .. states-1.

        Raises
        ------
        ValueError
            If x has another shape, holds no whole numbers or a state outside 0 .. states-1.
        """
        x = _states(x, self.states, "table")
        return theta.reshape(self.states, self.outputs)[x], x

    def vjp(self, cache: np.ndarray, dy: np.ndarray) -> np.ndarray:
        """dy^T J (P,): each row of dy is added to its state's row."""
        entries = (cache[:, None] * self.outputs + np.arange(self.outputs)).ravel()
        return np.bincount(entries, dy.ravel(), self.size).astype(dy.dtype, copy=False)

    def jvp(self, cache: np.ndarray, dtheta: np.ndarray) -> np.ndarray:
        """J dtheta (N, outputs): the visited rows of the direction."""
        return dtheta.reshape(self.states, self.outputs)[cache]


@dataclass(frozen=True, eq=False)
class Features:
    """Looks up the features of discrete states and passes them to an MLP: ``y = MLP(matrix[s])``.

    States that share features share parameters. This is how a network generalises to states that it
    was not trained on, which a `Table` cannot do. theta is the MLP's.

    Parameters
    ----------
    matrix : ndarray (states, F)
        One row of features per state, finite numbers. It is stored in the MLP's dtype, read-only.
    mlp : MLP
        A network of F inputs.
    """

    matrix: np.ndarray
    mlp: MLP

    def __post_init__(self) -> None:
        require_instance("mlp", self.mlp, MLP)
        matrix = np.array(self.matrix, dtype=self.mlp.dtype)
        if matrix.ndim != 2 or not len(matrix) or matrix.shape[1] != self.mlp.sizes[0]:
            raise ValueError(
                f"matrix must have shape (states, {self.mlp.sizes[0]}), one row of features per "
                f"state and one column per input of the MLP, got {matrix.shape}"
            )
        require_finite_numbers("matrix", matrix)
        matrix.setflags(write=False)
        object.__setattr__(self, "matrix", matrix)

    def __eq__(self, other: object) -> bool:
        """Whether the other network has the same features and the same MLP."""
        if not isinstance(other, Features):
            return NotImplemented
        return self.mlp == other.mlp and np.array_equal(self.matrix, other.matrix)

    def __hash__(self) -> int:
        return hash((self.mlp, self.states))

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.matrix)

    @property
    def outputs(self) -> int:
        """Number of outputs per state."""
        return self.mlp.sizes[-1]

    @property
    def dtype(self) -> str:
        """The MLP's dtype."""
        return self.mlp.dtype

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self.mlp.size

    def init(self, rng: np.random.Generator) -> np.ndarray:
        """The MLP's start, theta (P,)."""
        return self.mlp.init(rng)

    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, MLPCache]:
        """Outputs (N, outputs) in the states x (N,), whole numbers 0 .. states-1.

        Raises
        ------
        ValueError
            If x has another shape, holds no whole numbers or a state outside 0 .. states-1.
        """
        states = _states(x, self.states, "network")
        return self.mlp.forward(theta, self.matrix[states])

    def vjp(self, cache: MLPCache, dy: np.ndarray) -> np.ndarray:
        """dy^T J (P,) for dy (N, outputs)."""
        return self.mlp.vjp(cache, dy)

    def jvp(self, cache: MLPCache, dtheta: np.ndarray) -> np.ndarray:
        """J dtheta (N, outputs) for a direction dtheta (P,)."""
        return self.mlp.jvp(cache, dtheta)


def _states(x: np.ndarray, count: int, owner: str) -> np.ndarray:
    """x (N,) as an array; ValueError unless it holds whole numbers 0 .. count-1."""
    x = np.asarray(x)
    require_shape(f"observations of a {owner}", x, (x.size,))
    if x.dtype.kind not in "iu":
        raise ValueError(f"observations of a {owner} must be whole numbers, got {x.dtype}")
    # One comparison for both ends: as an unsigned number, -1 is the largest.
    if x.size and np.maximum.reduce(x.astype(np.uint64)) >= count:
        wrong = x[(x < 0) | (x >= count)][0]
        raise ValueError(f"observations of this {owner} must lie in 0 .. {count - 1}, got {wrong}")
    return x


def require_log_std(initial: float, minimum: float | None) -> None:
    """Raise ValueError unless both are finite numbers and initial >= minimum; None is no bound."""
    require_finite("initial_log_std", initial)
    if minimum is not None:
        require_finite("min_log_std", minimum)
        if initial < minimum:
            raise ValueError(
                f"min_log_std must be at most initial_log_std, {initial!r}, got {minimum!r}"
            )


@dataclass(frozen=True)
class WithLogStd:
    """A network of means (N, k) with one state-independent log standard deviation per component.

    Its output (N, 2k) is the `eta` of a `DiagonalGaussian`; theta is the mean network's theta
    followed by log_std (k,).

    Parameters
    ----------
    mean : MLP, Linear or Table
    actions : int
        Number of action components k.
    initial_log_std : float
        Where every log_std starts.
    min_log_std : float, optional
        Lower bound of every log_std. `Policy.with_parameters` projects onto it, so it holds after
        every step of an optimiser and at every try of a line search. `forward` and its derivatives
        do not know the bound: they are those of log_std itself, also at the bound, where a gradient
        that points upwards therefore still leads away from it. Clipping in `forward` instead would
        make the derivative zero below the bound, and a log_std that once fell there would stay.
    """

    mean: MLP | Linear | Table
    actions: int
    initial_log_std: float = 0.0
    min_log_std: float | None = None

    def __post_init__(self) -> None:
        require_count("actions", self.actions)
        require_log_std(self.initial_log_std, self.min_log_std)

    @property
    def dtype(self) -> str:
        """The mean network's dtype."""
        return self.mean.dtype

    @property
    def size(self) -> int:
        """Number of parameters P."""
        return self.mean.size + self.actions

    def init(self, rng: np.random.Generator) -> np.ndarray:
        """The mean network's start, then log_std at `initial_log_std`."""
        log_std = np.full(self.actions, self.initial_log_std, dtype=self.dtype)
        return np.concatenate([self.mean.init(rng), log_std])

    def project(self, theta: np.ndarray) -> np.ndarray:
        """The nearest parameters with max(log_std, min_log_std); theta itself without a bound."""
        if self.min_log_std is None:
            return theta
        projected = theta.copy()
        np.maximum(theta[-self.actions :], self.min_log_std, out=projected[-self.actions :])
        return projected

    def _append(self, mean: np.ndarray, log_std: np.ndarray) -> np.ndarray:
        eta = np.empty((len(mean), 2 * self.actions), dtype=mean.dtype)
        eta[:, : self.actions] = mean
        eta[:, self.actions :] = log_std
        return eta

    def forward(self, theta: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, Any]:
        """Means and log standard deviations (N, 2k)."""
        mean, cache = self.mean.forward(theta[: -self.actions], x)
        return self._append(mean, theta[-self.actions :]), cache

    def vjp(self, cache: Any, dy: np.ndarray) -> np.ndarray:
        """dy^T J (P,) for dy (N, 2k)."""
        d_mean, d_log_std = dy[:, : self.actions], dy[:, self.actions :]
        return np.concatenate([self.mean.vjp(cache, d_mean), d_log_std.sum(axis=0)])

    def jvp(self, cache: Any, dtheta: np.ndarray) -> np.ndarray:
        """J dtheta (N, 2k)."""
        d_mean = self.mean.jvp(cache, dtheta[: -self.actions])
        return self._append(d_mean, dtheta[-self.actions :])


check_arguments(
    __name__, often=("MLP", "MLPCache.__init__", "Linear", "Table", "Features", "WithLogStd")
)
