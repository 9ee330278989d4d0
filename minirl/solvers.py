"""Two numerical tools of TRPO that know nothing of reinforcement learning."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_finite_numbers, require_shape


class ConjugateGradientResult(NamedTuple):
    """The solution and how it was reached.

    Attributes
    ----------
    x : ndarray (P,)
        Approximate solution of A x = b.
    product : ndarray (P,)
        A x, known from the residual without another product.
    residual_norms : tuple of float
        Norm of b - A x before the first and after each completed iteration.
    """

    x: np.ndarray
    product: np.ndarray
    residual_norms: tuple[float, ...]

    @property
    def relative_residual(self) -> float:
        """Norm of b - A x over norm of b; 0 for b = 0."""
        first, last = self.residual_norms[0], self.residual_norms[-1]
        return last / first if first > 0 else 0.0


def conjugate_gradient(
    product: Callable[[np.ndarray], np.ndarray],
    b: np.ndarray,
    *,
    iterations: int,
    tolerance: float = 1e-10,
) -> ConjugateGradientResult:
    """Solve A x = b for symmetric positive semi-definite A, given only v -> A v.

    Starts at x = 0, so every iterate stays in the span of b, A b, A^2 b, ...: on a singular A
    with b in its range, x tends to the least-norm solution. Stops after `iterations`, when the
    residual falls below `tolerance` times the norm of b, or when A shows no curvature along the
    direction.

    Raises
    ------
    NonFiniteError
        (a ValueError) If b or a product contains NaN or an infinity.

    Source: Hestenes and Stiefel 1952; Nocedal and Wright, Numerical Optimization, Algorithm 5.2.

    Examples
    --------
    >>> matrix = np.array([[4.0, 1.0], [1.0, 3.0]])
    >>> conjugate_gradient(matrix.dot, np.array([1.0, 2.0]), iterations=2).x.round(4)
    array([0.0909, 0.6364])
    """
    require_finite_numbers("b", b)
    b = np.asarray(b)
    require_shape("b", b, (b.size,))
    b = b.astype(np.result_type(b, np.float32), copy=False)  # whole numbers become float64
    x = np.zeros_like(b)
    residual = b.copy()
    direction = b.copy()
    squared = float(residual @ residual)
    residual_norms = [squared**0.5]
    for _ in range(iterations):
        if residual_norms[-1] <= tolerance * residual_norms[0]:
            break
        along = np.asarray(product(direction))
        require_shape("product of a vector", along, b.shape)
        curvature = float(direction @ along)
        if not np.isfinite(curvature):
            require_finite_numbers("the product A v", along)
        if not curvature > 0:
            break
        step = squared / curvature
        x += step * direction
        residual -= step * along
        previous, squared = squared, float(residual @ residual)
        direction = residual + (squared / previous) * direction
        residual_norms.append(squared**0.5)
    return ConjugateGradientResult(x, b - residual, tuple(residual_norms))


class LineSearchResult(NamedTuple):
    """The result of a line search.

    Attributes
    ----------
    fraction : float
        The accepted fraction of the full step; 0 if every fraction was rejected.
    rejections : tuple of str
        Why each longer step was rejected, the longest first.
    """

    fraction: float
    rejections: tuple[str, ...]


def backtracking_line_search(
    reason_to_reject: Callable[[float], str | None], *, shrink: float, tries: int
) -> LineSearchResult:
    """Try the fractions 1, shrink, shrink^2, ... and take the first that is not rejected.

    Parameters
    ----------
    reason_to_reject : callable
        fraction -> the reason to reject this step as text, or None to accept it.
    shrink : float
        Factor between tries, in (0, 1).
    tries : int
        Number of fractions tried at most.

    Raises
    ------
    ValueError
        Unless `shrink` lies between 0 and 1, `tries` is a whole number of at least 1, and
        `reason_to_reject` returns None or a text.

    Examples
    --------
    >>> too_long = lambda fraction: "too long" if fraction > 0.3 else None
    >>> backtracking_line_search(too_long, shrink=0.5, tries=5)
    LineSearchResult(fraction=0.25, rejections=('too long', 'too long'))
    """
    if not isinstance(shrink, int | float | np.floating) or not 0 < shrink < 1:
        raise ValueError(f"shrink must lie between 0 and 1, got {shrink!r}")
    require_count("tries", tries)
    rejections: list[str] = []
    for attempt in range(tries):
        fraction = shrink**attempt
        reason = reason_to_reject(fraction)
        if reason is None:
            return LineSearchResult(fraction, tuple(rejections))
        if not isinstance(reason, str):  # False would mean the opposite of what it says
            raise ValueError(
                f"reason_to_reject must return None or the reason as text, got {reason!r}"
            )
        rejections.append(reason)
    return LineSearchResult(0.0, tuple(rejections))


check_arguments(__name__)
