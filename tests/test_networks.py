"""Networks against plain loops and central differences."""

import math
from functools import partial

import numpy as np
import pytest

from minirl.checks import check_jvp, check_vjp
from minirl.networks import MLP, Features, Linear, Table, WithLogStd, orthogonal

MLPS = [
    MLP((3, 2), dtype="float64"),
    MLP((3, 4, 2), dtype="float64"),
    MLP((3, 5, 4, 2), dtype="float64"),
    MLP((1, 1, 1), dtype="float64"),
]
NETWORKS = [
    *MLPS,
    Linear(3, 2),
    Table(5, 2),
    Features(np.random.default_rng(1).normal(size=(5, 3)), MLP((3, 4, 2), dtype="float64")),
    WithLogStd(MLP((3, 4, 2), dtype="float64"), 2),
    WithLogStd(Linear(3, 1), 1),
    WithLogStd(Table(5, 3), 3),
    WithLogStd(Linear(3, 2), 2, 0.0, min_log_std=-0.1),  # derivatives do not know the bound
]
each_network = pytest.mark.parametrize("network", NETWORKS, ids=repr)


def inputs_of(network, rng):
    """Six rows; for a table, states that repeat, and others, among them the last, never visited."""
    core = network.mean if isinstance(network, WithLogStd) else network
    if isinstance(core, Table | Features):
        return np.array([0, 2, 2, 3, 2, 0])
    width = core.sizes[0] if isinstance(core, MLP) else core.inputs
    return rng.normal(size=(6, width))


def random_point(network, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=network.size), inputs_of(network, rng), rng


@pytest.mark.parametrize("network", MLPS, ids=repr)
def test_mlp_forward_equals_plain_loops(network):
    theta, x, _ = random_point(network)
    y, _ = network.forward(theta, x)
    numbers = theta.tolist()
    for row in range(len(x)):
        activations, rest = x[row].tolist(), numbers
        for layer, n_out in enumerate(network.sizes[1:], start=1):
            n_in = len(activations)
            bias = rest[n_in * n_out : (n_in + 1) * n_out]
            sums = [
                bias[j] + sum(activations[i] * rest[i * n_out + j] for i in range(n_in))
                for j in range(n_out)
            ]
            last = layer == len(network.sizes) - 1
            activations = sums if last else [math.tanh(s) for s in sums]
            rest = rest[(n_in + 1) * n_out :]
        assert rest == []
        np.testing.assert_allclose(y[row], activations, rtol=1e-13)


def test_linear_and_table_by_hand():
    y, _ = Linear(2, 3).forward(np.arange(6.0), np.array([[1.0, 10.0]]))
    np.testing.assert_array_equal(y, [[30.0, 41.0, 52.0]])  # (0, 1, 2) + 10 (3, 4, 5)
    y, _ = Table(3, 2).forward(np.arange(6.0), np.array([2, 0, 2]))
    np.testing.assert_array_equal(y, [[4.0, 5.0], [0.0, 1.0], [4.0, 5.0]])


def test_with_log_std_appends_the_same_log_std_to_every_row():
    network = WithLogStd(Table(2, 2), 2)
    theta = np.array([1.0, 2.0, 3.0, 4.0, -0.5, 0.5])
    y, _ = network.forward(theta, np.array([1, 0]))
    np.testing.assert_array_equal(y, [[3.0, 4.0, -0.5, 0.5], [1.0, 2.0, -0.5, 0.5]])


@each_network
def test_derivatives_equal_central_differences(network):
    theta, x, rng = random_point(network)
    check_jvp(network, theta, x, rng)
    check_vjp(network, theta, x, rng)


@each_network
def test_one_cache_serves_any_number_of_products_and_no_argument_is_changed(network):
    theta, x, rng = random_point(network)
    y, cache = network.forward(theta, x)
    dy, v = rng.normal(size=y.shape), rng.normal(size=theta.shape)
    arrays = theta, x, dy, v
    copies = [array.copy() for array in arrays]
    fresh = network.vjp(network.forward(theta, x)[1], dy)
    fresh_jvp = network.jvp(network.forward(theta, x)[1], v)
    for _ in range(3):
        np.testing.assert_array_equal(network.jvp(cache, v), fresh_jvp)
        network.forward(rng.normal(size=theta.shape), x)  # another pass does not touch it
        np.testing.assert_array_equal(network.vjp(cache, dy), fresh)
        network.jvp(cache, rng.normal(size=theta.shape))
        network.vjp(cache, rng.normal(size=y.shape))
    y += 1.0  # nor does writing to the output reach theta
    for array, copy in zip(arrays, copies, strict=True):
        np.testing.assert_array_equal(array, copy)


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (1, 3), (3, 1), (1, 1)])
def test_orthogonal_rows_or_columns_times_gain(shape):
    matrix = orthogonal(shape, 3.0, np.random.default_rng(0))
    assert matrix.shape == shape
    gram = matrix.T @ matrix if shape[0] >= shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, 9.0 * np.eye(min(shape)), atol=1e-14)


def test_orthogonal_matrices_have_no_preferred_sign():
    """Every entry averages 0 over draws; LAPACK's own signs (no correction) do not."""
    rng = np.random.default_rng(1)
    draws = np.array([orthogonal((3, 2), 1.0, rng) for _ in range(1000)])
    spread = draws.std(axis=0) / np.sqrt(1000)
    assert (np.abs(draws.mean(axis=0)) < 3.5 * spread).all()
    raw = np.array([np.linalg.qr(rng.standard_normal((3, 2)))[0] for _ in range(1000)])
    assert abs(raw[:, 0, 0].mean()) > 10 * raw[:, 0, 0].std() / np.sqrt(1000)


def test_mlp_starts_with_zero_biases_and_the_stated_gains():
    network = MLP((4, 64, 32, 3), output_gain=0.01, dtype="float64")
    theta = network.init(np.random.default_rng(2))
    assert theta.shape == (network.size,) == (4 * 64 + 64 + 64 * 32 + 32 + 32 * 3 + 3,)
    for (weight, bias), gain in zip(
        network.layers(theta), (math.sqrt(2), math.sqrt(2), 0.01), strict=True
    ):
        np.testing.assert_array_equal(bias, 0.0)
        np.testing.assert_allclose(np.linalg.svd(weight, compute_uv=False), gain, rtol=1e-12)


@pytest.mark.parametrize("network", [Linear(3, 2), Table(3, 2)], ids=repr)
def test_linear_and_table_start_at_zero_and_draw_nothing(network):
    rng, untouched = np.random.default_rng(3), np.random.default_rng(3)
    np.testing.assert_array_equal(network.init(rng), np.zeros(6))
    assert rng.random() == untouched.random()


def test_with_log_std_starts_at_the_given_log_std():
    mean = MLP((2, 3, 2), dtype="float64")
    theta = WithLogStd(mean, 2, initial_log_std=-0.7).init(np.random.default_rng(4))
    np.testing.assert_array_equal(theta[:-2], mean.init(np.random.default_rng(4)))
    np.testing.assert_array_equal(theta[-2:], [-0.7, -0.7])


def test_projection_raises_log_std_to_its_bound_and_nothing_else():
    theta = np.array([-9.0, 9.0, -1.5, -1.0, 0.5])
    network = WithLogStd(Linear(2, 1), 3, min_log_std=-1.0)
    np.testing.assert_array_equal(network.project(theta), [-9.0, 9.0, -1.0, -1.0, 0.5])
    np.testing.assert_array_equal(theta, [-9.0, 9.0, -1.5, -1.0, 0.5])
    assert network.project(theta.astype("float32")).dtype == np.float32
    assert WithLogStd(Linear(2, 1), 3).project(theta) is theta
    assert WithLogStd(Linear(2, 1), 1, -1.0, -1.0).min_log_std == -1.0  # equal to the initial one


@each_network
def test_the_same_seed_gives_the_same_start_of_the_stated_size(network):
    starts = [network.init(np.random.default_rng(5)) for _ in range(2)]
    np.testing.assert_array_equal(*starts)
    assert starts[0].shape == (network.size,)


def test_layers_are_views_of_theta():
    network = MLP((2, 3, 1), dtype="float64")
    theta = np.arange(float(network.size))
    for weight, bias in network.layers(theta):
        assert np.shares_memory(weight, theta)
        assert np.shares_memory(bias, theta)
        weight[:], bias[:] = -1.0, -2.0
    np.testing.assert_array_equal(theta, [-1] * 6 + [-2] * 3 + [-1] * 3 + [-2])


@pytest.mark.parametrize(
    "network",
    [
        MLP((3, 8, 2)),
        Linear(3, 2, "float32"),
        Table(5, 2, "float32"),
        WithLogStd(MLP((3, 2)), 2),
        WithLogStd(Table(5, 1, "float32"), 1),
    ],
    ids=repr,
)
def test_float32_is_kept(network):
    theta, x, rng = random_point(network)
    assert network.init(rng).dtype == network.dtype == "float32"
    y, cache = network.forward(theta.astype("float32"), x)
    assert y.dtype == np.float32
    assert network.vjp(cache, np.ones_like(y)).dtype == np.float32
    assert network.jvp(cache, theta.astype("float32")).dtype == np.float32


TABLE = partial(Table(3, 2).forward, np.zeros(6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP((3,)), r"sizes .* \(3,\)"),
        (lambda: MLP((3, 0, 2)), "width in sizes .* got 0"),
        (lambda: MLP((3, 2.5)), "width in sizes .* got 2.5"),
        (lambda: MLP((3, 2), dtype="float16"), "dtype must be .* got 'float16'"),
        (lambda: MLP((3, 2), output_gain=0.0), "output_gain .* got 0.0"),
        (lambda: MLP((3, 2), output_gain=math.nan), "output_gain .* got nan"),
        *(
            (lambda kind=kind, dtype=dtype: kind(2, 3, dtype=dtype), "dtype must be .*, got")
            for kind in (Linear, Table)
            for dtype in ("int64", "float16", "<f8", None)
        ),
        (lambda: TABLE(np.array([0, -1])), "observations of this table must lie in 0 .. 2, got -1"),
        (lambda: TABLE(np.array([3])), "observations of this table must lie in 0 .. 2, got 3"),
        (lambda: TABLE(np.array([[0], [1]])), r"must have shape \(2,\), got \(2, 1\)"),
        (lambda: TABLE(np.array([0.0])), "table must be whole numbers, got float64"),
        (lambda: Linear(0, 2), "inputs .* got 0"),
        (lambda: Linear(2, -1), "outputs .* got -1"),
        (lambda: Table(0, 2), "states .* got 0"),
        (lambda: Table(2, 0), "outputs .* got 0"),
        (lambda: WithLogStd(Linear(2, 1), 0), "actions .* got 0"),
        (lambda: WithLogStd(Linear(2, 1), 1, math.nan), "initial_log_std .* got nan"),
        (lambda: WithLogStd(Linear(2, 1), 1, 0.0, -math.inf), "min_log_std .* got -inf"),
        (
            lambda: WithLogStd(Linear(2, 1), 1, -1.0, -0.5),
            r"min_log_std must be at most initial_log_std, -1\.0, got -0\.5",
        ),
    ],
)
def test_impossible_networks_and_states_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class TestFeatures:
    MATRIX = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])

    def test_is_the_mlp_of_the_features_of_each_state(self):
        network = Features(self.MATRIX, MLP((2, 3, 2), dtype="float64"))
        theta = network.init(np.random.default_rng(0))
        states = np.array([2, 1, 1, 0])
        y, _ = network.forward(theta, states)
        expected, _ = network.mlp.forward(theta, self.MATRIX[states])
        np.testing.assert_array_equal(y, expected)
        np.testing.assert_array_equal(y[0], y[3])  # states 2 and 0 have the same features
        assert (y[0] != y[1]).all()

    def test_the_matrix_is_a_copy_that_cannot_be_changed(self):
        matrix = self.MATRIX.copy()
        network = Features(matrix, MLP((2, 2)))
        matrix[0] = 5.0
        np.testing.assert_array_equal(network.matrix, self.MATRIX)
        assert network.matrix.dtype == np.float32
        with pytest.raises(ValueError, match="read-only"):
            network.matrix[0] = 1.0

    @pytest.mark.parametrize(
        ("matrix", "message"),
        [
            (np.zeros((3, 5)), r"matrix must have shape \(states, 2\).*got \(3, 5\)"),
            (np.zeros(2), r"matrix must have shape \(states, 2\).*got \(2,\)"),
            (np.zeros((0, 2)), r"matrix must have shape \(states, 2\).*got \(0, 2\)"),
            (np.array([[1.0, np.nan]]), "matrix must .*finite.*nan"),
        ],
    )
    def test_other_matrices_are_refused(self, matrix, message):
        with pytest.raises(ValueError, match=message):
            Features(matrix, MLP((2, 2)))

    @pytest.mark.parametrize(
        ("states", "message"),
        [
            (np.array([0, 3]), "this network must lie in 0 .. 2, got 3"),
            (np.array([-1]), "this network must lie in 0 .. 2, got -1"),
            (np.array([0.0]), "whole numbers, got float64"),
            (np.zeros((1, 1), dtype=int), r"observations of a network must have shape \(1,\)"),
        ],
    )
    def test_other_states_are_refused(self, states, message):
        network = Features(self.MATRIX, MLP((2, 2)))
        with pytest.raises(ValueError, match=message):
            network.forward(network.init(np.random.default_rng(0)), states)
