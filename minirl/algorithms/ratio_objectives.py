"""How an objective uses the importance sampling ratio: the variants of the group-relative methods.

With ratio_i = pi(a_i|s_i) / pi_sampling(a_i|s_i) of a token, and w_i, A_i the weight and the
advantage of its row, each class below has the method ``loss(ratio, batch)``. It returns the loss
and its derivative with respect to log pi(a_i|s_i), (N,)::

    SequenceRatio   - sum_i w_i A_i R log pi(a_i|s_i), weight R constant                         (1)
                      with R = product of the ratios of the whole episode
    SequenceClip    - sum_i w_i min(s A_i, clip(s, 1 - low, 1 + high) A_i), s = R^(1/length)     (2)
    ClippedWeight   - sum_i w_i A_i min(ratio_i, 1 + high) log pi(a_i|s_i), weight constant      (3)
    SoftGate        - sum_i w_i A_i (4 / tau) sigmoid(tau (ratio_i - 1))                         (4)
    Uncorrected     - sum_i w_i A_i log pi(a_i|s_i)                                              (5)

(2) is GSPO (arXiv:2507.18071), (3) CISPO (arXiv:2506.13585), (4) SAPO (arXiv:2511.20347). PPO's
`Clipped`, with its own upper bound, serves GRPO and DAPO. All of them have the same gradient where
every ratio is 1.

(1) is the only one that is unbiased if the samples are from another policy: each episode counts
with the ratio of its probabilities under the two policies (`minirl.exact.off_policy`).
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from minirl.batch import Batch
from minirl.support.arguments import check_arguments
from minirl.support.fields import Positive, PositiveOrNone, check_fields


def _episodes(batch: Batch, name: str) -> np.ndarray:
    """The episode of each row (N,), numbered from 0 without gaps."""
    if batch.episodes is None:
        raise ValueError(
            f"{name} needs whole episodes: use it with Settings(whole_episodes=True), whose "
            "batches have `episodes`"
        )
    return np.unique(batch.episodes, return_inverse=True)[1]


def _bounded(ratio: np.ndarray) -> np.ndarray:
    """Ratios cut at the root of the largest number: their products and sums stay finite."""
    return np.minimum(ratio, np.sqrt(np.finfo(ratio.dtype).max))


def sequence_log_ratios(ratio: np.ndarray, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log R = sum of log ratio over the rows of each episode, and its length, both (episodes,).

    >>> sequence_log_ratios(np.exp([0.5, 1.0, 0.25]), np.array([0, 0, 1]))
    (array([1.5 , 0.25]), array([2, 1]))
    """
    # A ratio of 0 has no finite logarithm; the smallest number gives the same result.
    smallest = np.finfo(ratio.dtype).tiny
    return np.bincount(episodes, np.log(np.maximum(_bounded(ratio), smallest))), np.bincount(
        episodes
    )


@dataclass(frozen=True)
class SequenceRatio:
    """Objective (1): each row is weighted by R, the product of the ratios of its whole episode.

    It is unbiased for samples of an older policy: the expected gradient is that of the current
    policy's own samples. Its variance grows with the KL between the two.

    Parameters
    ----------
    largest : float, optional
        R is truncated at this number, which adds a bias.
    """

    largest: PositiveOrNone = None

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, ratio: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """-sum_i w_i A_i R, and the derivative of (1) with respect to log pi(a_i|s_i), (N,)."""
        episodes = _episodes(batch, "SequenceRatio")
        with np.errstate(over="ignore"):
            whole = np.exp(sequence_log_ratios(ratio, episodes)[0])
        whole = _bounded(np.minimum(whole, self.largest or np.inf))
        gain = batch.weight * batch.advantages * whole[episodes]
        return -float(gain.sum()), -gain


@dataclass(frozen=True)
class SequenceClip:
    """Objective (2) of GSPO: the geometric mean of an episode's ratios, clipped.

    ``s = R^(1/length)`` is not the importance sampling ratio R of the episode, so the objective is
    biased for samples of an older policy. The defaults are the paper's.

    Parameters
    ----------
    low, high : float
        s is clipped to [1 - low, 1 + high].
    """

    low: Positive = 3e-4
    high: Positive = 4e-4

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, ratio: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """The loss (2) and its derivative with respect to log pi(a_i|s_i), (N,)."""
        episodes = _episodes(batch, "SequenceClip")
        log_ratios, lengths = sequence_log_ratios(ratio, episodes)
        with np.errstate(over="ignore"):
            mean_ratio = _bounded(np.exp(log_ratios / lengths))[episodes]
        gain = mean_ratio * batch.advantages
        clipped = mean_ratio.clip(1 - self.low, 1 + self.high) * batch.advantages
        loss = -float(batch.weight @ np.minimum(gain, clipped))
        # d s / d log pi of a token is s / length; the rows of the episode share s.
        d_mean = np.bincount(episodes, batch.weight * np.where(gain <= clipped, gain, 0))
        return loss, -(d_mean / lengths)[episodes]


@dataclass(frozen=True)
class ClippedWeight:
    """Objective (3) of CISPO: the ratio, clipped above, is a constant weight of log pi.

    Every token keeps a gradient, also where PPO's minimum would set it to 0. The paper does not
    publish its bound.

    Parameters
    ----------
    high : float
        Weights above 1 + high are set to 1 + high.
    """

    high: Positive = 2.0

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, ratio: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """-sum_i w_i A_i min(ratio_i, 1 + high), and the derivative of (3), (N,)."""
        weight = np.minimum(ratio, 1 + self.high)
        gain = batch.weight * batch.advantages * weight
        return -float(gain.sum()), -gain


@dataclass(frozen=True)
class SoftGate:
    """Objective (4) of SAPO: ``(4 / tau) sigmoid(tau (ratio - 1))`` in place of a clipped ratio.

    Its slope at ratio 1 is 1, and it becomes flat for ratios far from 1. The defaults are the
    paper's.

    Parameters
    ----------
    tau_positive, tau_negative : float
        tau for advantages above 0, and for the others.
    """

    tau_positive: Positive = 1.0
    tau_negative: Positive = 1.05

    def __post_init__(self) -> None:
        check_fields(self)

    def loss(self, ratio: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """The loss (4) and its derivative with respect to log pi(a_i|s_i), (N,)."""
        ratio = _bounded(ratio)
        tau = np.where(batch.advantages > 0, self.tau_positive, self.tau_negative)
        gate = expit(tau * (ratio - 1))
        weighted = batch.weight * batch.advantages
        # d gate / d log pi = tau gate (1 - gate) ratio; far above 1 the product is 0.
        slope = 4 * gate * (1 - gate) * ratio
        return -float(weighted @ (4 / tau * gate)), -weighted * slope


@dataclass(frozen=True)
class Uncorrected:
    """Objective (5): the policy gradient's loss, as if the samples were the current policy's."""

    def loss(self, ratio: np.ndarray, batch: Batch) -> tuple[float, np.ndarray]:
        """-sum_i w_i A_i log ratio_i, whose derivative is that of (5), (N,)."""
        weighted = batch.weight * batch.advantages
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.where(weighted != 0, weighted * np.log(ratio), 0.0)
        return -float(terms.sum()), -weighted


check_arguments(
    __name__,
    often=(
        "sequence_log_ratios",
        *(
            f"{name}.loss"
            for name in ("SequenceRatio", "SequenceClip", "ClippedWeight", "SoftGate")
        ),
        "Uncorrected.loss",
    ),
)
