"""Action distributions with parameters eta, and their derivatives with respect to eta.

A distribution holds N independent rows. Its parameters `eta` (N, d) are the outputs of a network:
logits for `Categorical`, mean and log standard deviation for `DiagonalGaussian`. Every derivative
here is with respect to `eta`; a network's `vjp` continues the chain rule to the parameters theta.
All logarithms are natural: log-probabilities, entropies and divergences are in nats.
"""

from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from minirl.support.arguments import check_arguments
from minirl.support.validation import require_instance, require_shape

LOG_2_PI = float(np.log(2 * np.pi))


class Distribution(Protocol):
    """The interface of a distribution; `Categorical` and `DiagonalGaussian` implement it."""

    eta: np.ndarray

    def sample(self, rng: np.random.Generator) -> np.ndarray: ...
    def mode(self) -> np.ndarray: ...
    def log_prob(self, actions: np.ndarray) -> np.ndarray: ...
    def entropy(self) -> np.ndarray: ...
    def kl(self, other: Any) -> np.ndarray: ...
    def grad_log_prob(self, actions: np.ndarray) -> np.ndarray: ...
    def grad_entropy(self) -> np.ndarray: ...
    def grad_kl(self, other: Any, *, wrt: Literal["self", "other"]) -> np.ndarray: ...
    def fisher_product(self, d_eta: np.ndarray) -> np.ndarray: ...


class Categorical:
    """Softmax distribution over A actions, one row per state.

    Parameters
    ----------
    eta : ndarray (N, A)
        Logits; adding a constant to a row changes nothing. -inf excludes an action: its probability
        is 0 and, since 0 log 0 = 0, it contributes nothing to entropy, KL and their derivatives.

    Examples
    --------
    >>> fair = Categorical(np.zeros((1, 2)))
    >>> bool(np.allclose(fair.entropy(), np.log(2)))
    True
    """

    def __init__(self, eta: np.ndarray) -> None:
        if eta.ndim != 2 or not eta.shape[1]:
            raise ValueError(f"eta must have shape (N, A), A at least 1, got {eta.shape}")
        self.eta = eta
        # Kept as (A, N): a sum over few actions is then a few long vector additions.
        logits = np.ascontiguousarray(eta.T)
        self._logits = logits - logits.max(axis=0)

    @cached_property
    def _normalized(self) -> tuple[np.ndarray, np.ndarray, bool]:
        """p and log p, both (A, N), and whether every p is positive. Sampling needs none of it."""
        probs = np.exp(self._logits)
        total = probs.sum(axis=0)
        probs /= total
        return probs, self._logits - np.log(total), bool(probs.all())

    @property
    def _probs(self) -> np.ndarray:
        return self._normalized[0]

    @property
    def _log_probs(self) -> np.ndarray:
        return self._normalized[1]

    @property
    def probs(self) -> np.ndarray:
        """Action probabilities (N, A)."""
        return self._probs.T

    def _chosen(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Indices of the chosen entries; ValueError unless actions (N,) lie in 0 .. A-1."""
        rows, count = self.eta.shape
        actions = np.asarray(actions)
        require_shape("actions", actions, (rows,))
        if actions.dtype.kind not in "iu":
            raise ValueError(f"actions must be whole numbers, got {actions.dtype}")
        # One comparison for both ends: as an unsigned number, -1 is the largest.
        if rows and np.maximum.reduce(actions.astype(np.uint64)) >= count:
            wrong = actions[(actions < 0) | (actions >= count)][0]
            raise ValueError(f"actions must lie in 0 .. {count - 1}, got {wrong}")
        return actions, np.arange(rows)

    def _weighted(self, terms: np.ndarray) -> np.ndarray:
        """p(a) times terms (A, N), and 0 where p(a) is 0, whatever the term."""
        probs, _, are_positive = self._normalized
        if are_positive:
            return probs * terms
        return np.multiply(probs, terms, out=np.zeros_like(probs), where=probs > 0)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Actions (N,), int64, by inverting the cumulative distribution."""
        # Sums of exp(logit), which need not end at 1: the uniform number is scaled instead.
        cumulative = np.add.accumulate(np.exp(self._logits))
        threshold = rng.random(len(self.eta)) * cumulative[-1]
        return np.add.reduce(cumulative[:-1] <= threshold, dtype=np.int64)

    def mode(self) -> np.ndarray:
        """The most probable action (N,) of each row; the first one on a tie."""
        return self._logits.argmax(axis=0)

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """log p(a) in nats (N,) for actions (N,), whole numbers 0 .. A-1.

        Raises
        ------
        ValueError
            If the actions have another shape, are no whole numbers or lie outside 0 .. A-1.
        """
        return self._log_probs[self._chosen(actions)]

    def entropy(self) -> np.ndarray:
        """H(p) = -sum_a p(a) log p(a), in nats (N,)."""
        return -self._weighted(self._log_probs).sum(axis=0)

    def kl(self, other: "Categorical") -> np.ndarray:
        """KL(self || other) = sum_a p(a) (log p(a) - log q(a)), in nats (N,).

        Infinite in rows where `other` excludes an action that `self` may choose.
        """
        return self._weighted(self._log_ratio(other)).sum(axis=0)

    def _log_ratio(self, other: "Categorical") -> np.ndarray:
        """log p(a) - log q(a), (A, N); nan where both exclude an action."""
        with np.errstate(invalid="ignore"):  # -inf minus -inf
            return self._log_probs - other._log_probs

    def grad_log_prob(self, actions: np.ndarray) -> np.ndarray:
        """The score d log p(a) / d eta = onehot(a) - p, (N, A); raises as `log_prob`."""
        chosen, _ = self._chosen(actions)
        one_hot = np.arange(self.eta.shape[1])[:, None] == chosen
        return (one_hot - self._probs).T

    def grad_entropy(self) -> np.ndarray:
        """d H / d eta = -p (log p + H), (N, A)."""
        log_probs = self._log_probs
        return -self._weighted(log_probs - self._weighted(log_probs).sum(axis=0)).T

    def grad_kl(self, other: "Categorical", *, wrt: Literal["self", "other"]) -> np.ndarray:
        """d KL(self || other) / d eta, (N, A), with respect to the eta of `self` or of `other`.

        wrt="self": p (log p - log q - KL); wrt="other": q - p.
        """
        if wrt == "other":
            return (other._probs - self._probs).T
        log_ratio = self._log_ratio(other)
        return self._weighted(log_ratio - self._weighted(log_ratio).sum(axis=0)).T

    def fisher_product(self, d_eta: np.ndarray) -> np.ndarray:
        """M d_eta for each row (N, A), with the Fisher matrix M = diag(p) - p p^T of eta."""
        require_shape("d_eta", d_eta, self.eta.shape)
        product = self._probs * d_eta.T
        product -= self._probs * product.sum(axis=0)
        return product.T


def _halves(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first k and the last k of 2k columns; np.split takes longer than one row's arithmetic."""
    k = columns.shape[1] // 2
    return columns[:, :k], columns[:, k:]


class DiagonalGaussian:
    """Independent normal distributions over k action components, one row per state.

    Parameters
    ----------
    eta : ndarray (N, 2k)
        The mean (first k columns) and the log standard deviation (last k columns).

    Examples
    --------
    >>> standard = DiagonalGaussian(np.zeros((1, 2)))
    >>> bool(np.allclose(standard.log_prob(np.zeros((1, 1))), -0.5 * np.log(2 * np.pi)))
    True
    """

    def __init__(self, eta: np.ndarray) -> None:
        if eta.ndim != 2 or eta.shape[1] % 2:
            raise ValueError(f"eta must have shape (N, 2k), got {eta.shape}")
        self.eta = eta
        self.mean, self.log_std = _halves(eta)

    def sample(self, rng: np.random.Generator) -> np.ndarray:
        """Actions (N, k): mean + std * standard normal noise, never clipped."""
        # NumPy crashes if the class itself takes the place of a generator.
        require_instance("rng", rng, np.random.Generator)
        noise = rng.standard_normal(self.mean.shape, dtype=self.mean.dtype)
        return self.mean + np.exp(self.log_std) * noise

    def mode(self) -> np.ndarray:
        """The mean (N, k)."""
        return self.mean

    def _standardized(self, actions: np.ndarray) -> np.ndarray:
        actions = np.asarray(actions)
        require_shape("actions", actions, self.mean.shape)
        return (actions - self.mean) * np.exp(-self.log_std)

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """log p(a) = -sum_i [z_i^2 / 2 + log std_i + log(2 pi) / 2], in nats (N,).

        z = (a - mean) / std, and i numbers the k components of an action.

        Raises
        ------
        ValueError
            If the actions have another shape.
        """
        squares = self._standardized(actions) ** 2
        return -(0.5 * squares + self.log_std + 0.5 * LOG_2_PI).sum(axis=1)

    def entropy(self) -> np.ndarray:
        """Differential entropy sum_i log std_i + log(2 pi e) / 2, in nats (N,)."""
        return (self.log_std + 0.5 * (LOG_2_PI + 1)).sum(axis=1)

    def kl(self, other: "DiagonalGaussian") -> np.ndarray:
        """KL(self || other) in nats (N,), summed over the components i.

        KL_i = log(s2 / s1) + (s1^2 + (m1 - m2)^2) / (2 s2^2) - 1 / 2, with mean m1 and standard
        deviation s1 of `self`, m2 and s2 of `other`.
        """
        log_ratio = other.log_std - self.log_std
        distance = ((self.mean - other.mean) * np.exp(-other.log_std)) ** 2
        terms = log_ratio + 0.5 * (np.exp(-2 * log_ratio) + distance - 1)
        return terms.sum(axis=1)

    def grad_log_prob(self, actions: np.ndarray) -> np.ndarray:
        """The score (N, 2k): z / std for the mean, z^2 - 1 for log std, z = (a - mean) / std.

        Raises ValueError as `log_prob`.
        """
        z = self._standardized(actions)
        return np.concatenate([z * np.exp(-self.log_std), z**2 - 1], axis=1)

    def grad_entropy(self) -> np.ndarray:
        """d H / d eta (N, 2k): 0 for the mean, 1 for log std."""
        return np.concatenate([np.zeros_like(self.mean), np.ones_like(self.log_std)], axis=1)

    def grad_kl(self, other: "DiagonalGaussian", *, wrt: Literal["self", "other"]) -> np.ndarray:
        """d KL(self || other) / d eta, (N, 2k), with respect to the eta of `self` or of `other`.

        With m1, s1 of `self` and m2, s2 of `other`. wrt="self": (m1 - m2) / s2^2 for the mean,
        s1^2 / s2^2 - 1 for log std. wrt="other": (m2 - m1) / s2^2, 1 - (s1^2 + (m1 - m2)^2) / s2^2.
        """
        precision = np.exp(-2 * other.log_std)
        shift = (self.mean - other.mean) * precision
        variance_ratio = np.exp(2 * (self.log_std - other.log_std))
        if wrt == "other":
            spread = variance_ratio + shift * (self.mean - other.mean)
            return np.concatenate([-shift, 1 - spread], axis=1)
        return np.concatenate([shift, variance_ratio - 1], axis=1)

    def fisher_product(self, d_eta: np.ndarray) -> np.ndarray:
        """M d_eta for each row (N, 2k), with the Fisher matrix M = diag(1 / std^2, 2) of eta."""
        require_shape("d_eta", d_eta, self.eta.shape)
        d_mean, d_log_std = _halves(d_eta)
        return np.concatenate([d_mean * np.exp(-2 * self.log_std), 2 * d_log_std], axis=1)


check_arguments(
    __name__,
    often=(
        *("Categorical", "Categorical.__init__"),
        *("DiagonalGaussian", "DiagonalGaussian.__init__"),
    ),
)
