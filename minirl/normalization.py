"""Running mean and variance: of observations for the policy, of returns for reward scaling."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    require_count,
    require_finite_numbers,
    require_rows,
    require_shape,
)

CLIP = 10.0  # standard deviations; keeps one wild sensor value from saturating the network
NEVER_ZERO = 1e-290  # prevents 0 / 0; far below the scale of any samples


@dataclass(frozen=True, eq=False)
class RunningMoments:
    """Count, mean and population variance of all samples seen so far.

    Parameters
    ----------
    count : int
        Number of samples; 0 means nothing is known and normalising changes nothing.
    mean, variance : ndarray (D,)
        In float64 whatever the samples are. The variance of equal samples is exactly 0.
    """

    count: int
    mean: np.ndarray
    variance: np.ndarray

    def __post_init__(self) -> None:
        if self.count != 0:
            require_count("count", self.count)
        require_shape("variance", self.variance, self.mean.shape)
        require_finite_numbers("mean", self.mean)
        require_finite_numbers("variance", self.variance)

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> "RunningMoments":
        """No samples yet."""
        return cls(0, np.zeros(shape), np.ones(shape))

    def update(self, samples: np.ndarray) -> "RunningMoments":
        """The moments with `samples` (N, D) added (Chan, Golub and LeVeque 1979).

        >>> half = RunningMoments.empty((1,)).update(np.array([[1.0], [3.0]]))
        >>> whole = half.update(np.array([[5.0]]))
        >>> whole.mean, whole.variance.round(4)
        (array([3.]), array([2.6667]))
        """
        require_rows("samples", samples, self.mean.shape)
        n = len(samples)
        if n == 0:
            return self
        total = self.count + n
        # Measured from the first sample, so that equal samples have no rounding to add up.
        first = samples[0].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # named below
            deviations = samples - first
            sample_mean = first + deviations.mean(axis=0)
            sample_variance = deviations.var(axis=0)
            shift = sample_mean - self.mean
            squares = self.variance * self.count + sample_variance * n
            squares = squares + shift**2 * (self.count * n / total)
        require_finite_numbers("samples, or their squares,", squares)
        return RunningMoments(total, self.mean + shift * (n / total), squares / total)

    def normalize(self, samples: np.ndarray) -> np.ndarray:
        """(samples - mean) / std, clipped at 10 standard deviations.

        A standard deviation counts as no less than the rounding of the samples, so that a feature
        that was constant is 0, and its first change 10 or -10. The result does not depend on the
        unit of the samples.
        """
        require_rows("samples", samples, self.mean.shape)
        if self.count == 0:
            return samples
        divisor = self._divisors.get(samples.dtype)
        if divisor is None:  # computed once, since this is part of every step of an environment
            divisor = np.maximum(np.sqrt(self.variance), self.rounding(samples.dtype) + NEVER_ZERO)
            self._divisors[samples.dtype] = divisor
        standardized = (samples - self.mean) / divisor
        return np.minimum(np.maximum(standardized, -CLIP), CLIP)  # for one row faster than np.clip

    @cached_property
    def _divisors(self) -> dict[np.dtype[Any], np.ndarray]:
        return {}

    def rounding(self, dtype: np.dtype[Any]) -> np.ndarray:
        """Eight times the distance (D,) between neighbouring numbers of this type at the mean."""
        return 8 * np.finfo(np.result_type(dtype, np.float32)).eps * np.abs(self.mean)


check_arguments(__name__, often=("RunningMoments.normalize",))
