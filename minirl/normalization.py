"""Running mean and variance: of observations for the policy, of returns for reward scaling."""

from dataclasses import dataclass

import numpy as np

CLIP = 10.0  # standard deviations; keeps one wild sensor value from saturating the network
EPSILON = 1e-8


@dataclass(frozen=True, eq=False)
class RunningMoments:
    """Count, mean and population variance of all samples seen so far.

    Parameters
    ----------
    count : int
        Number of samples; 0 means nothing is known and normalising changes nothing.
    mean, variance : ndarray (D,)
        In float64 whatever the samples are.
    """

    count: int
    mean: np.ndarray
    variance: np.ndarray

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
        n = len(samples)
        if n == 0:
            return self
        total = self.count + n
        sample_mean = samples.mean(axis=0, dtype=np.float64)
        sample_variance = samples.var(axis=0, dtype=np.float64)
        shift = sample_mean - self.mean
        squares = self.variance * self.count + sample_variance * n
        squares = squares + shift**2 * (self.count * n / total)
        return RunningMoments(total, self.mean + shift * (n / total), squares / total)

    def normalize(self, samples: np.ndarray) -> np.ndarray:
        """(samples - mean) / std, clipped at 10 standard deviations."""
        if self.count == 0:
            return samples
        standardized = (samples - self.mean) / np.sqrt(self.variance + EPSILON)
        return np.clip(standardized, -CLIP, CLIP)
