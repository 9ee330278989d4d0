"""Conjugate gradient against dense solvers; the line search against its own definition."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from minirl.solvers import LineSearchResult, backtracking_line_search, conjugate_gradient
from minirl.support.validation import NonFiniteError

quick = settings(derandomize=True, max_examples=40, deadline=None, database=None)


def semidefinite(rng, eigenvalues):
    """A symmetric matrix with these eigenvalues and random eigenvectors."""
    n = len(eigenvalues)
    q = np.linalg.qr(rng.normal(size=(n, n)))[0]
    return q @ np.diag(eigenvalues) @ q.T


@quick
@given(st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_damped_systems_are_solved_like_scipys(n, seed):
    rng = np.random.default_rng(seed)
    matrix = semidefinite(rng, rng.uniform(0, 1, size=n)) + 0.1 * np.eye(n)
    b = rng.normal(size=n)
    result = conjugate_gradient(matrix.dot, b, iterations=2 * n)
    truth = scipy.linalg.solve(matrix, b, assume_a="pos")
    np.testing.assert_allclose(result.x, truth, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(result.product, matrix @ result.x, rtol=1e-12, atol=1e-12)
    assert result.relative_residual <= 1e-10


@quick
@given(st.integers(1, 7), st.integers(0, 2**32 - 1))
def test_singular_systems_give_the_least_norm_solution_in_rank_iterations(rank, seed):
    rng = np.random.default_rng(seed)
    matrix = semidefinite(rng, np.r_[rng.uniform(1, 3, size=rank), np.zeros(8 - rank)])
    b = matrix @ rng.normal(size=8)
    result = conjugate_gradient(matrix.dot, b, iterations=rank)
    truth = scipy.linalg.lstsq(matrix, b, cond=1e-10)[0]
    np.testing.assert_allclose(result.x, truth, rtol=1e-7, atol=1e-9)
    # Left to run, it notices that it is done: at most one more product, for rounding.
    free = conjugate_gradient(matrix.dot, b, iterations=100)
    assert len(free.residual_norms) - 1 <= rank + 1
    assert free.relative_residual <= 1e-10
    np.testing.assert_allclose(free.x, truth, rtol=1e-7, atol=1e-9)


def test_the_residual_history_is_that_of_the_iterates():
    rng = np.random.default_rng(1)
    matrix = semidefinite(rng, np.geomspace(0.1, 10, 6))
    b = rng.normal(size=6)
    truth = scipy.linalg.solve(matrix, b)
    whole = conjugate_gradient(matrix.dot, b, iterations=30)
    errors = []
    for done, norm in enumerate(whole.residual_norms):
        partial = conjugate_gradient(matrix.dot, b, iterations=done)
        assert partial.residual_norms == whole.residual_norms[: done + 1]
        np.testing.assert_allclose(norm, np.linalg.norm(b - matrix @ partial.x), atol=1e-12)
        np.testing.assert_allclose(partial.product, matrix @ partial.x, atol=1e-12)
        np.testing.assert_allclose(partial.relative_residual, norm / np.linalg.norm(b))
        errors.append((partial.x - truth) @ matrix @ (partial.x - truth))
    assert (np.diff(errors) < 1e-15).all()  # the error's A-norm falls at every iteration
    assert whole.relative_residual <= 1e-10 < whole.residual_norms[-2] / whole.residual_norms[0]


def test_tolerance_and_iterations_limit_the_products():
    rng = np.random.default_rng(2)
    matrix = semidefinite(rng, np.geomspace(0.01, 10, 8))
    b = rng.normal(size=8)
    calls = []

    def product(v):
        calls.append(v.copy())
        return matrix @ v

    result = conjugate_gradient(product, b, iterations=3)
    assert len(calls) == 3
    assert len(result.residual_norms) == 4
    calls.clear()
    loose = conjugate_gradient(product, b, iterations=100, tolerance=0.5)
    norms = np.array(loose.residual_norms) / loose.residual_norms[0]
    assert norms[-1] <= 0.5
    assert (norms[:-1] > 0.5).all()
    assert len(calls) == len(norms) - 1
    assert conjugate_gradient(product, b, iterations=0).x.tolist() == [0.0] * 8


def test_a_right_side_of_zero_needs_no_product():
    def product(v):
        raise AssertionError("no product is needed")

    result = conjugate_gradient(product, np.zeros(3), iterations=5)
    np.testing.assert_array_equal(result.x, np.zeros(3))
    np.testing.assert_array_equal(result.product, np.zeros(3))
    assert result.residual_norms == (0.0,)
    assert result.relative_residual == 0.0


@pytest.mark.parametrize(
    ("diagonal", "b"),
    [([0.0, 0.0], [1.0, 2.0]), ([2.0, -1.0], [0.0, 1.0]), ([1.0, -1.0], [1.0, 1.0])],
)
def test_no_curvature_at_the_start_stops_at_zero(diagonal, b):
    result = conjugate_gradient(np.diag(diagonal).dot, np.array(b), iterations=5)
    np.testing.assert_array_equal(result.x, [0.0, 0.0])
    assert result.residual_norms == (np.linalg.norm(b),)
    assert result.relative_residual == 1.0


def test_no_curvature_on_the_way_keeps_the_last_iterate():
    """A = diag(1, 0), b = (1, 1): one step of length 2 to (2, 2), then a flat direction."""
    result = conjugate_gradient(np.diag([1.0, 0.0]).dot, np.array([1.0, 1.0]), iterations=5)
    np.testing.assert_allclose(result.x, [2.0, 2.0], rtol=1e-15)
    np.testing.assert_allclose(result.product, [2.0, 0.0], atol=1e-15)
    np.testing.assert_allclose(result.residual_norms, [2**0.5, 2**0.5])


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(wrong):
    with pytest.raises(NonFiniteError, match="the product A v must .* got (nan|inf)"):
        conjugate_gradient(lambda v: v * wrong, np.ones(2), iterations=5)
    with pytest.raises(NonFiniteError, match="^b must consist of finite numbers, got (nan|inf)$"):
        conjugate_gradient(lambda v: v, np.array([1.0, wrong]), iterations=5)


def test_whole_numbers_on_the_right_side_are_solved_in_float64():
    matrix = np.array([[4, 1], [1, 3]])
    for b in (np.array([1, 2]), [1, 2]):
        x = conjugate_gradient(matrix.dot, b, iterations=2).x
        assert x.dtype == np.float64
        np.testing.assert_allclose(x, [1 / 11, 7 / 11], rtol=1e-12)


def test_the_right_side_is_left_alone_and_float32_is_kept():
    b = np.array([1.0, 2.0], dtype="float32")
    matrix = np.array([[4.0, 1.0], [1.0, 3.0]], dtype="float32")
    result = conjugate_gradient(matrix.dot, b, iterations=2)
    np.testing.assert_array_equal(b, [1.0, 2.0])
    assert result.x.dtype == result.product.dtype == np.float32
    np.testing.assert_allclose(result.x, [1 / 11, 7 / 11], rtol=1e-5)


def test_the_full_step_is_tried_first():
    tried = []
    result = backtracking_line_search(tried.append, shrink=0.5, tries=10)
    assert tried == [1.0]
    assert result == LineSearchResult(1.0, ())


@quick
@given(st.floats(0.1, 0.9), st.integers(1, 12), st.floats(1e-3, 1.5))
def test_the_longest_acceptable_fraction_wins(shrink, tries, limit):
    tried = []

    def reason_to_reject(fraction):
        tried.append(fraction)
        return f"{len(tried)}: too long" if fraction > limit else None

    result = backtracking_line_search(reason_to_reject, shrink=shrink, tries=tries)
    candidates = [shrink**k for k in range(tries)]
    acceptable = [fraction for fraction in candidates if fraction <= limit]
    assert result.fraction == (acceptable[0] if acceptable else 0.0)
    refused = len(candidates) - len(acceptable)
    assert tried == candidates[: refused + 1]
    assert result.rejections == tuple(f"{k}: too long" for k in range(1, refused + 1))


@pytest.mark.parametrize(
    ("shrink", "tries", "answer", "message"),
    [
        *(
            (shrink, 3, None, "shrink must lie between 0 and 1, got")
            for shrink in (0.0, 1.0, -0.5, 2.0, np.nan, "0.5", None)
        ),
        *((0.5, tries, None, "tries must be a whole number of at") for tries in (0, -1, 2.0, None)),
        # False would reject a step that the function means to accept
        *((0.5, 3, answer, "return None or the reason as") for answer in (False, True, 0.0)),
    ],
)
def test_bad_arguments_of_a_line_search_are_named(shrink, tries, answer, message):
    with pytest.raises(ValueError, match=message):
        backtracking_line_search(lambda fraction: answer, shrink=shrink, tries=tries)
