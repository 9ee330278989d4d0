"""Losses that learn a policy from pairs of answers: DPO and nine relatives, each with derivatives.

Let h_i = log pi(y_i|x) - log pi_ref(y_i|x) be the log-ratio of response i of a pair, len(y_i) its
number of tokens, and p the label, the probability that y_1 is preferred. With m for a margin, whose
sign says which response the policy prefers, the losses of a pair are::

    DPOLoss          -p log sigmoid(m) - (1 - p) log sigmoid(-m),   m = beta (h_1 - h_2)         (1)
    ConservativeDPO  (1) with the label (1 - flips) p + flips (1 - p) in place of p              (2)
    RobustDPO        (1) with the label (p - flips) / (1 - 2 flips) in place of p                (3)
    IPO              p (m - 1/(2 beta))^2 + (1 - p) (m + 1/(2 beta))^2,   m = h_1 - h_2          (4)
    SimPO            (1) with m = beta (a_1 - a_2) less gamma, a_i = log pi(y_i|x) / len(y_i)    (5)
    ChiPO            (1) with m = beta (phi(h_1) - phi(h_2)),   phi(h) = exp(h) + h              (6)
    ORPO             -log P_w - beta log sigmoid(log odds P_w - log odds P_l)                    (7)
    KTO              2 - sigmoid(beta (h_w - z)) - sigmoid(beta (z - h_l))                       (8)
    APOZero          1 - sigmoid(beta h_w) + sigmoid(beta h_l)                                   (9)
    APODown          1 + sigmoid(beta h_w) - sigmoid(beta (h_w - h_l))                          (10)

w is the preferred response and l the other one. For a label p between 0 and 1, (7) to (10) are
averaged: p times the loss with w = 1, plus 1 - p times the loss with w = 2. (5) is treated alike,
because gamma is subtracted from the margin of the winner. P = exp(log pi(y|x) / len(y)) is the
geometric mean of a response's token probabilities, and odds P = P / (1 - P). z is an estimate of
KL(pi || pi_ref), and no derivative is taken of it.

Which policy minimises the mean loss over all pairs, with the labels sigmoid(r_1 - r_2)?

=============== ==================================================================================
DPOLoss         pi* = pi_ref exp(r / beta) / Z, the optimum of E[r] - beta KL(pi || pi_ref)
ConservativeDPO a finite policy nearer to the reference than pi*
RobustDPO       pi* if the labels were flipped with probability `flips`. Unbounded below if some
                response wins with a probability above 1 - flips against an average other one
IPO             pi_ref exp(win / beta) / Z, with win the probability of being preferred
SimPO           with gamma 0: proportional to exp(len(y) (r + c) / beta), whatever the reference is
ChiPO           the optimum of E[r] - beta (KL + E_ref[(pi / pi_ref - 1)^2] / 2)
ORPO            a finite policy; it does not depend on the reference, and no closed form is known
KTO, APO        none: the loss has an infimum that no policy reaches, because responses that lose
                more often than they win get probability 0
=============== ==================================================================================

Sources: (1) arXiv:2305.18290; (2) Mitchell, "A note on DPO with noisy preferences" (2023); (3)
arXiv:2403.00409; (4) arXiv:2310.12036; (5) arXiv:2405.14734; (6) arXiv:2407.13399; (7)
arXiv:2403.07691; (8) arXiv:2402.01306; (9), (10) arXiv:2408.06266.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple, Protocol, runtime_checkable

import numpy as np
from scipy.special import expit, log_expit

from minirl.rlhf.reward_model import require_labelled
from minirl.support.arguments import check_arguments
from minirl.support.fields import NonNegative, PositiveOrNone, check_fields
from minirl.support.validation import require_within

# Margins are beta times a difference of log-probabilities, and labels strictly between 0 and 1
# require margins of about 1. With a beta outside this range, rounding errors dominate the margins.
SMALLEST_BETA, LARGEST_BETA = 1e-8, 1e8

# exp of a larger log-ratio would overflow when it is multiplied.
_LARGEST_LOG_RATIO = 500.0


class PairLogProbs(NamedTuple):
    """What a loss needs to know of M pairs. In each array (2, M), row 0 is the first response.

    Attributes
    ----------
    log_probs : ndarray (2, M)
        log pi(y_i|x), summed over tokens, in nats.
    reference_log_probs : ndarray (2, M)
        log pi_ref(y_i|x), summed over tokens, in nats.
    lengths : ndarray (2, M) of int
        Tokens of each response, EOS included.
    labels : ndarray (M,)
        Probabilities that the first response is preferred, in [0, 1].
    kl : float
        KTO's estimate z of KL(pi || pi_ref) in nats. The other losses do not read it.
    """

    log_probs: np.ndarray
    reference_log_probs: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    kl: float = 0.0

    @property
    def log_ratios(self) -> np.ndarray:
        """h_i = log pi(y_i|x) - log pi_ref(y_i|x), (2, M)."""
        return self.log_probs - self.reference_log_probs

    @property
    def swapped(self) -> "PairLogProbs":
        """The same pairs with the second response first; the labels stay."""
        log_probs, reference, lengths = (array[::-1] for array in self[:3])
        return PairLogProbs(log_probs, reference, lengths, self.labels, self.kl)


class Evaluated(NamedTuple):
    """The value of a loss at M pairs.

    Attributes
    ----------
    loss : float
        Mean over pairs.
    d_log_probs : ndarray (2, M)
        Derivatives of the mean with respect to `PairLogProbs.log_probs`.
    margins : ndarray (M,)
        Above 0 where the policy prefers the first response in the sense of this loss.
    """

    loss: float
    d_log_probs: np.ndarray
    margins: np.ndarray


@runtime_checkable
class PreferenceLoss(Protocol):
    """The interface of a loss that `DPO` can use."""

    uses_kl: ClassVar[bool]

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated: ...


# ---------------------------------------------------------------- losses of a margin


def dpo_loss(margins: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
    """The DPO loss (1) of M pairs in nats, and its derivative with respect to the margins (M,).

    loss = mean over pairs of -p log sigmoid(margin) - (1 - p) log sigmoid(-margin), with p the
    label and margin = beta [log pi(y1|x)/ref(y1|x) - log pi(y2|x)/ref(y2|x)], the difference of the
    implicit rewards of the two responses. The derivative is (sigmoid(margin) - p) / M. The loss is
    log 2 where policy and reference are equal. Raises ValueError unless margins and labels are one
    number per pair and labels lie in [0, 1].

    >>> loss, d_margins = dpo_loss(np.array([0.0]), np.array([1.0]))
    >>> round(loss, 4), d_margins
    (0.6931, array([-0.5]))
    """
    margins, labels = require_labelled("margins", margins, labels)
    log_likelihood = _weighted(labels, log_expit(margins))
    log_likelihood += _weighted(1 - labels, log_expit(-margins))
    return -float(log_likelihood.mean()), (expit(margins) - labels) / len(margins)


def _weighted(labels: np.ndarray, terms: np.ndarray) -> np.ndarray:
    """Labels times terms; 0 where a label is 0, even if the term is minus infinity."""
    return np.multiply(labels, terms, out=np.zeros(terms.shape), where=labels > 0)


def ipo_loss(margins: np.ndarray, labels: np.ndarray, beta: float) -> tuple[float, np.ndarray]:
    """The IPO loss (4) of M pairs, and its derivative with respect to the margins (M,).

    loss = mean over pairs of p (m - 1/(2 beta))^2 + (1 - p) (m + 1/(2 beta))^2, with p the label
    and m = margin / beta. The derivative is 2 (m - (2 p - 1) / (2 beta)) / (beta M). Raises
    ValueError as `dpo_loss`, and for a beta outside [1e-8, 1e8].

    >>> ipo_loss(np.array([0.0]), np.array([1.0]), beta=0.5)  # (0 - 1)^2, slope 2 (0 - 1) / 0.5
    (1.0, array([-4.]))
    """
    require_within("beta", beta, low=SMALLEST_BETA, high=LARGEST_BETA)
    margins, labels = require_labelled("margins", margins, labels)
    m, target = margins / beta, 1 / (2 * beta)
    loss = (labels * (m - target) ** 2 + (1 - labels) * (m + target) ** 2).mean()
    slope = 2 * (m - (2 * labels - 1) * target) / beta
    return float(loss), slope / len(margins)


def _log_ratio_margins(pairs: PairLogProbs, beta: float) -> np.ndarray:
    """beta (h_1 - h_2), (M,)."""
    first, second = pairs.log_probs
    reference_first, reference_second = pairs.reference_log_probs
    return beta * (first - second - (reference_first - reference_second))


def _both(d_margins: np.ndarray, slopes: np.ndarray | float) -> np.ndarray:
    """Derivatives (2, M) with respect to a_1 and a_2 of a loss of m = f(a_1) - f(a_2).

    `d_margins` (M,) are its derivatives with respect to m, `slopes` (2, M) are f'(a_1) and f'(a_2).
    """
    return slopes * np.stack([d_margins, -d_margins])


@dataclass(frozen=True)
class DPOLoss:
    """DPO's loss (1), -p log sigmoid(m) - (1 - p) log sigmoid(-m) with m = beta (h_1 - h_2).

    The derivative with respect to log pi(y_1|x) is beta (sigmoid(m) - p), and minus that for y_2.
    With Bradley-Terry labels, the minimiser is pi* = pi_ref exp(r / beta) / Z. Hard labels that
    contradict each other nowhere have no minimiser: every margin then grows without bound.

    References
    ----------
    Rafailov et al., "Direct preference optimization" (2023), arXiv:2305.18290.
    """

    uses_kl: ClassVar[bool] = False

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated:
        """Loss, derivatives (2, M) and margins (M,)."""
        margins = _log_ratio_margins(pairs, beta)
        loss, d_margins = dpo_loss(margins, pairs.labels)
        return Evaluated(loss, _both(d_margins, beta), margins)


def _require_flips(name: str, value: float) -> None:
    if not 0 <= value < 0.5:
        raise ValueError(f"{name} must lie in [0, 0.5), got {value!r}")


Flips = Annotated[float, _require_flips]


@dataclass(frozen=True)
class ConservativeDPO:
    """Conservative DPO (2): DPO with labels that are moved towards 1/2.

    The label is q = (1 - flips) p + flips (1 - p). For p = 1 the loss is DPO's plus flips times m.
    The derivative with respect to log pi(y_1|x) is beta (sigmoid(m) - q), and minus that for y_2.

    The minimiser is finite for all labels if flips > 0, because q lies strictly between 0 and 1. It
    is nearer to the reference than pi*. The loss does not undo flips: flipping moves the expected
    labels towards 1/2, and this loss moves them once more.

    Parameters
    ----------
    flips : float
        In [0, 0.5). The note calls it epsilon.

    References
    ----------
    Mitchell, "A note on DPO with noisy preferences and relationship to IPO" (2023).
    """

    flips: Flips = 0.1
    uses_kl: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated:
        """Loss, derivatives (2, M) and margins (M,)."""
        margins = _log_ratio_margins(pairs, beta)
        smoothed = (1 - self.flips) * pairs.labels + self.flips * (1 - pairs.labels)
        loss, d_margins = dpo_loss(margins, smoothed)
        return Evaluated(loss, _both(d_margins, beta), margins)


@dataclass(frozen=True)
class RobustDPO:
    """Robust DPO (3): DPO with labels that are moved away from 1/2, which undoes flips.

    The label is q = (p - flips) / (1 - 2 flips). For p = 1 the loss is DPO's minus
    flips m / (1 - 2 flips). The derivative with respect to log pi(y_1|x) is beta (sigmoid(m) - q),
    and minus that for y_2.

    If hard labels are flipped with probability `flips`, the expectation of q over the flips is the
    label before the flip. For many labels per pair the minimiser is then pi*.

    But q lies outside [0, 1] for a label outside [flips, 1 - flips]. The loss of a pair with a hard
    label falls without bound along its margin, by flips / (1 - 2 flips) per unit. The mean over all
    pairs of a table is unbounded below if and only if the responses can be divided into two sets
    such that the mean label of one set against the other exceeds 1 - flips.

    Parameters
    ----------
    flips : float
        In [0, 0.5): the probability with which labels were flipped.

    References
    ----------
    Chowdhury, Kini and Natarajan, "Provably robust DPO" (2024), arXiv:2403.00409.
    """

    flips: Flips = 0.1
    uses_kl: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated:
        """Loss, derivatives (2, M) and margins (M,)."""
        margins = _log_ratio_margins(pairs, beta)
        labels = (pairs.labels - self.flips) / (1 - 2 * self.flips)
        # -q log sigmoid(m) - (1 - q) log sigmoid(-m), with log sigmoid(m) = m + log sigmoid(-m)
        loss = -(log_expit(-margins) + labels * margins).mean()
        d_margins = (expit(margins) - labels) / len(margins)
        return Evaluated(float(loss), _both(d_margins, beta), margins)


@dataclass(frozen=True)
class IPO:
    """IPO (4): p (m - 1/(2 beta))^2 + (1 - p) (m + 1/(2 beta))^2 with m = h_1 - h_2.

    The derivative with respect to log pi(y_1|x) is 2 (m - (2 p - 1) / (2 beta)), and minus that for
    y_2. The minimiser is finite even for hard labels. Over all pairs it is pi_ref exp(win / beta) /
    Z, where win(x, y) is the probability that y is preferred to an answer drawn as the pairs are.

    Log-ratios are summed over the tokens of a response, as in the code of DPO's authors. TRL and
    HALOs divide them by its length.

    References
    ----------
    Azar et al., "A general theoretical paradigm to understand learning from human preferences"
    (2023), arXiv:2310.12036, whose tau is this beta.
    """

    uses_kl: ClassVar[bool] = False

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated:
        """Loss, derivatives (2, M) and margins beta m (M,)."""
        margins = _log_ratio_margins(pairs, beta)
        loss, d_margins = ipo_loss(margins, pairs.labels, beta)
        return Evaluated(loss, _both(d_margins, beta), margins)


@dataclass(frozen=True)
class ChiPO:
    """chi-PO (6): DPO with phi(h) = exp(h) + h in place of the log-ratio h.

    m = beta (phi(h_1) - phi(h_2)), and the derivative with respect to log pi(y_1|x) is
    beta (exp(h_1) + 1) (sigmoid(m) - p); for y_2 it is -beta (exp(h_2) + 1) (sigmoid(m) - p).

    With Bradley-Terry labels, the minimiser is the optimum of E[r] - beta D with
    D = KL(pi || pi_ref) + E_ref[(pi / pi_ref - 1)^2] / 2. The ratio of a response therefore grows
    with its reward like r / beta at most, and not like exp(r / beta).

    Parameters
    ----------
    largest_margin : float, optional
        m is clipped to [-largest_margin, largest_margin], beyond which its derivative is 0. The
        paper uses twice the largest reward. Default: not clipped.

    References
    ----------
    Huang et al., "Correcting the mythos of KL-regularization" (2024), arXiv:2407.13399.
    """

    largest_margin: PositiveOrNone = None
    uses_kl: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_fields(self)

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated:
        """Loss, derivatives (2, M) and margins (M,)."""
        log_ratios = pairs.log_ratios
        ratios = np.exp(np.minimum(log_ratios, _LARGEST_LOG_RATIO))
        first, second = ratios + log_ratios
        margins = beta * (first - second)
        limit = np.inf if self.largest_margin is None else self.largest_margin
        loss, d_margins = dpo_loss(np.clip(margins, -limit, limit), pairs.labels)
        d_margins = np.where(np.abs(margins) <= limit, d_margins, 0.0)
        return Evaluated(loss, _both(d_margins, beta * (ratios + 1)), margins)


# ---------------------------------------------------------------- losses of a winner and a loser


class _OfWinner(ABC):
    """A loss that is written for a winner and a loser, averaged over the label."""

    uses_kl: ClassVar[bool] = False

    def evaluate(self, pairs: PairLogProbs, beta: float) -> Evaluated:
        """Loss, derivatives (2, M) and margins (M,).

        p times the loss with the first response as the winner, plus 1 - p times the loss with the
        second one as the winner.
        """
        first_wins, d_first_wins = self.if_first_wins(pairs, beta)
        second_wins, d_second_wins = self.if_first_wins(pairs.swapped, beta)
        p = pairs.labels
        loss = (_weighted(p, first_wins) + _weighted(1 - p, second_wins)).mean()
        d_log_probs = (p * d_first_wins + (1 - p) * d_second_wins[::-1]) / len(p)
        return Evaluated(float(loss), d_log_probs, self.margins(pairs, beta))

    @abstractmethod
    def if_first_wins(self, pairs: PairLogProbs, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The loss (M,) of each pair whose first response wins, and its derivatives (2, M)."""

    def margins(self, pairs: PairLogProbs, beta: float) -> np.ndarray:
        """Margins (M,), above 0 where the policy prefers the first response."""
        return _log_ratio_margins(pairs, beta)


@dataclass(frozen=True)
class SimPO(_OfWinner):
    """SimPO (5): -log sigmoid(m - gamma), m = beta (log pi(y_w)/len(y_w) - log pi(y_l)/len(y_l)).

    The reference does not occur. The derivative with respect to log pi(y_w|x) is
    -beta sigmoid(gamma - m) / len(y_w), and beta sigmoid(gamma - m) / len(y_l) for the loser.

    With gamma = 0 and Bradley-Terry labels, the minimiser is proportional to
    exp(len(y) (r + c) / beta), where c makes the probabilities of a prompt sum to 1.

    Parameters
    ----------
    gamma_over_beta : float
        gamma / beta, at least 0: the difference of mean log-probabilities per token at which a
        winner is treated as DPO treats a difference of 0. The paper uses 0.1 to 0.8, and a beta of
        2 to 10.

    References
    ----------
    Meng, Xia and Chen, "SimPO: simple preference optimization with a reference-free reward" (2024),
    arXiv:2405.14734.
    """

    gamma_over_beta: NonNegative = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def if_first_wins(self, pairs: PairLogProbs, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The loss (M,) of each pair whose first response wins, and its derivatives (2, M)."""
        beyond = self.margins(pairs, beta) - beta * self.gamma_over_beta
        return -log_expit(beyond), _both(-expit(-beyond), beta / pairs.lengths)

    def margins(self, pairs: PairLogProbs, beta: float) -> np.ndarray:
        """m = beta (log pi(y_1|x) / len(y_1) - log pi(y_2|x) / len(y_2)), (M,)."""
        first, second = pairs.log_probs / pairs.lengths
        return beta * (first - second)


@dataclass(frozen=True)
class ORPO(_OfWinner):
    """ORPO (7): -log P_w - beta log sigmoid(m), with m = log odds P_w - log odds P_l.

    P = exp(a) with a = log pi(y|x) / len(y), and log odds P = a - log(1 - exp(a)). beta is the
    weight that the paper calls lambda. The reference does not occur. Since d log odds / d a =
    1 / (1 - P), the derivative with respect to log pi(y_w|x) is
    -(1 + beta sigmoid(-m) / (1 - P_w)) / len(y_w), and for y_l it is
    beta sigmoid(-m) / ((1 - P_l) len(y_l)).

    The minimiser is finite: the first term grows without bound if the probability of any response
    that may win vanishes. The loss is not known to be convex.

    References
    ----------
    Hong, Lee and Thorne, "ORPO: monolithic preference optimization without reference model" (2024),
    arXiv:2403.07691.
    """

    def if_first_wins(self, pairs: PairLogProbs, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The loss (M,) of each pair whose first response wins, and its derivatives (2, M)."""
        margins, means = self.margins(pairs, beta), self._means(pairs)
        d_means = beta * _both(-expit(-margins), -1 / np.expm1(means))
        d_means[0] -= 1
        return -means[0] - beta * log_expit(margins), d_means / pairs.lengths

    def margins(self, pairs: PairLogProbs, beta: float) -> np.ndarray:
        """m = log odds P_1 - log odds P_2, (M,)."""
        means = self._means(pairs)
        first, second = means - np.log(-np.expm1(means))
        return np.asarray(first - second)

    @staticmethod
    def _means(pairs: PairLogProbs) -> np.ndarray:
        """log P (2, M), strictly below 0, since P = 1 has no finite log odds."""
        return np.minimum(pairs.log_probs / pairs.lengths, -np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class KTO(_OfWinner):
    """KTO (8): 1 - sigmoid(beta (h - z)) of a desirable response, 1 - sigmoid(beta (z - h)) else.

    The winner of a pair is desirable, the loser is not, and both have the paper's weight lambda 1.
    The derivative with respect to log pi(y_w|x) is -beta s (1 - s), s = sigmoid(beta (h_w - z)),
    and beta s (1 - s) with s = sigmoid(beta (z - h_l)) for the loser.

    ``z = max(0, mean of log pi(y'|x)/pi_ref(y'|x))`` over the minibatch, where y' is a response of
    another pair, often to another prompt. It stands for the KL to the reference. No derivative is
    taken of it.

    There is no minimiser. A response that wins with probability w contributes
    w (1 - s) + (1 - w) s = w + (1 - 2 w) s with s = sigmoid(beta (h - z)). Where w < 1/2 this
    increases with s, so the log-ratio h of the response goes to minus infinity.

    References
    ----------
    Ethayarajh et al., "KTO: model alignment as prospect theoretic optimization" (2024),
    arXiv:2402.01306, with beta = 0.1.
    """

    uses_kl: ClassVar[bool] = True

    def if_first_wins(self, pairs: PairLogProbs, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The loss (M,) of each pair whose first response wins, and its derivatives (2, M)."""
        winner, loser = beta * (pairs.log_ratios - pairs.kl)
        slopes = np.stack([-expit(winner) * expit(-winner), expit(loser) * expit(-loser)])
        return expit(-winner) + expit(loser), beta * slopes


@dataclass(frozen=True)
class APOZero(_OfWinner):
    """APO zero (9): 1 - sigmoid(beta h_w) + sigmoid(beta h_l).

    The derivative with respect to log pi(y_w|x) is -beta s (1 - s) with s = sigmoid(beta h_w), and
    beta s (1 - s) with s = sigmoid(beta h_l) for the loser. This is KTO with z = 0. There is no
    minimiser: responses that lose more often than they win should have probability 0.

    References
    ----------
    D'Oosterlinck et al., "Anchored preference optimization and contrastive revisions" (2024),
    arXiv:2408.06266, equation (7), for winners that are better than the model's own responses.
    """

    def if_first_wins(self, pairs: PairLogProbs, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The loss (M,) of each pair whose first response wins, and its derivatives (2, M)."""
        return KTO().if_first_wins(pairs._replace(kl=0.0), beta)


@dataclass(frozen=True)
class APODown(_OfWinner):
    """APO down (10): sigmoid(beta h_w) + 1 - sigmoid(beta (h_w - h_l)).

    With s = sigmoid(beta h_w) and d = sigmoid(beta (h_w - h_l)), the derivative with respect to
    log pi(y_w|x) is beta (s (1 - s) - d (1 - d)), and beta d (1 - d) for the loser. The first term
    lowers the winner, the second lowers the loser more. There is no minimiser.

    References
    ----------
    D'Oosterlinck et al. (2024), arXiv:2408.06266, equation (8), for winners that are worse than the
    model's own responses.
    """

    def if_first_wins(self, pairs: PairLogProbs, beta: float) -> tuple[np.ndarray, np.ndarray]:
        """The loss (M,) of each pair whose first response wins, and its derivatives (2, M)."""
        winner, margins = beta * pairs.log_ratios[0], _log_ratio_margins(pairs, beta)
        slopes = _both(-expit(margins) * expit(-margins), 1.0)
        slopes[0] += expit(winner) * expit(-winner)
        return expit(winner) + expit(-margins), beta * slopes


PREFERENCE_LOSSES: dict[str, PreferenceLoss] = {
    "dpo": DPOLoss(),
    "conservative-dpo": ConservativeDPO(),
    "robust-dpo": RobustDPO(),
    "ipo": IPO(),
    "simpo": SimPO(),
    "chi-po": ChiPO(),
    "orpo": ORPO(),
    "kto": KTO(),
    "apo-zero": APOZero(),
    "apo-down": APODown(),
}


check_arguments(
    __name__,
    often=(
        "PairLogProbs",
        "Evaluated",
        "dpo_loss",
        "ipo_loss",
        *(
            f"{loss.__class__.__name__}.{name}"
            for loss in PREFERENCE_LOSSES.values()
            for name in ("evaluate", "if_first_wins", "margins")
            if name in vars(loss.__class__)
        ),
    ),
)
