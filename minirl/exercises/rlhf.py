"""Checks of notebook 8: RLOO, the KL of a batch, GRPO, reward and KL of the optimum, k3."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import logsumexp, softmax

from minirl.advantages import GroupNormalized, LeaveOneOut
from minirl.algorithms.reference_loss import k1
from minirl.batch import Rollout
from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare_function

__all__ = [
    "leave_one_out",
    "sentence_kl",
    "group_normalized",
    "reward_and_kl_of_the_optimum",
    "k3_loss_gradient",
]

# Returns (G, k) of G prompts with k answers each; all answers of the last prompt are equal.
RETURNS = (
    np.array([[2.5, -1.0, 0.5, 2.0], [4.0, 4.0, 1.0, 4.0], [1.5, 1.5, 1.5, 1.5]]),
    np.array([[3.0, 1.0, 2.0], [-1.0, 0.5, -1.0], [0.0, 0.0, 0.0]]),
)


def _by_package(
    estimator: LeaveOneOut | GroupNormalized,
) -> Callable[[np.ndarray], np.ndarray]:
    """The advantages (G, k) of the package's estimator, from returns (G, k)."""

    def advantages(returns: np.ndarray) -> np.ndarray:
        groups, size = returns.shape
        row, end = returns.reshape(1, -1), np.ones((1, returns.size), dtype=bool)
        zeros, ones = np.zeros(row.shape), np.ones(returns.size, dtype=np.int64)
        rollout = Rollout(
            observations=np.repeat(np.arange(groups), size)[None],
            actions=np.zeros(row.shape, dtype=np.int64),
            log_probs=zeros,
            rewards=row,
            values=zeros,
            next_values=zeros,
            terminated=end,
            truncated=~end,
            valid=end,
            time=np.zeros(row.shape, dtype=np.int64),
            episode_ends=ones * returns.size,
            episode_returns=returns.ravel(),
            episode_lengths=ones,
            group=np.repeat(np.arange(groups), size),
        )
        return estimator(rollout)[0].reshape(returns.shape)

    return advantages


def _centred(returns: np.ndarray) -> np.ndarray:
    return np.asarray(returns - returns.mean(axis=1, keepdims=True))


def _divided(returns: np.ndarray, ddof: int) -> np.ndarray:
    """Centred returns over their standard deviation; 0 where all returns of a group are equal."""
    spread = returns.std(axis=1, keepdims=True, ddof=ddof)
    centred = _centred(returns)
    return np.divide(centred, spread, out=np.zeros_like(centred), where=spread > 0)


def leave_one_out(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(returns) -> RLOO's advantages (G, k)``, from returns (G, k)."""

    def sum_of_the_others(returns: np.ndarray) -> np.ndarray:
        return np.asarray(returns.sum(axis=1, keepdims=True) - returns)

    def group_mean(returns: np.ndarray) -> np.ndarray:
        """The baseline includes the answer's own return; this shrinks advantages by (k - 1)/k."""
        return _centred(returns)

    def divided_by_all(returns: np.ndarray) -> np.ndarray:
        """The others are k - 1 answers; divide their sum by k - 1, not by k."""
        return np.asarray(returns - sum_of_the_others(returns) / returns.shape[1])

    def mixed_prompts(returns: np.ndarray) -> np.ndarray:
        """The baseline mixes prompts; use the other answers to the same prompt."""
        return np.asarray(returns - (returns.sum() - returns) / (returns.size - 1))

    def baseline_alone(returns: np.ndarray) -> np.ndarray:
        """This is the baseline alone; subtract it from the return."""
        return sum_of_the_others(returns) / (returns.shape[1] - 1)

    def divided_by_the_deviation(returns: np.ndarray) -> np.ndarray:
        """This is divided by a standard deviation, as in GRPO; RLOO does not divide."""
        return _divided(returns, 0)

    return compare_function(
        answer,
        _by_package(LeaveOneOut()),
        [(returns,) for returns in RETURNS],
        mistakes=[
            group_mean,
            divided_by_all,
            mixed_prompts,
            baseline_alone,
            divided_by_the_deviation,
        ],
    )


def sentence_kl(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(log_ratios, valid) -> nats per sentence``, from arrays (T, E).

    Invalid rows contain large numbers in the first case and NaN in the second.
    """

    def sums(log_ratios: np.ndarray, valid: np.ndarray) -> np.ndarray:
        return np.asarray(np.where(valid, log_ratios, 0.0).sum(axis=0))

    def exact(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        return float(k1(sums(log_ratios, valid)).mean())

    def per_token(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        """This is in nats per token: sum over tokens, then average over sentences."""
        return float(log_ratios[valid].mean())

    def invalid_rows(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        """Rows after the end of a sentence are counted too."""
        return float(log_ratios.sum(axis=0).mean())

    def times_the_mask(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        """An invalid row may contain NaN, and 0 times NaN is NaN; select the valid entries with
        np.where instead of multiplying by the mask.
        """
        return float((log_ratios * valid).sum(axis=0).mean())

    def mean_within_sentences(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        """This averages over each sentence's tokens; the log-ratio of a sentence is a sum."""
        return float((sums(log_ratios, valid) / valid.sum(axis=0)).mean())

    def sum_over_sentences(log_ratios: np.ndarray, valid: np.ndarray) -> float:
        """This is the sum over sentences; the estimate is their mean."""
        return float(sums(log_ratios, valid).sum())

    rng = np.random.default_rng(1)
    cases = []
    for lengths, rest in (([3, 1, 4], 1e3), ([2, 5, 2, 1], np.nan)):
        valid = np.arange(5)[:, None] < lengths
        cases.append((np.where(valid, rng.normal(size=valid.shape), rest), valid))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            per_token,
            invalid_rows,
            times_the_mask,
            mean_within_sentences,
            sum_over_sentences,
        ],
    )


def group_normalized(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(returns) -> GRPO's advantages (G, k)``, from returns (G, k).

    Numbers count as equal if they agree to 1e-3, so that a small constant in the denominator, as
    many programs have it, is right.
    """

    def unguarded(returns: np.ndarray) -> np.ndarray:
        """A group whose returns are all equal gives 0 / 0; its advantages must be 0."""
        with np.errstate(invalid="ignore"):
            return np.asarray(_centred(returns) / returns.std(axis=1, keepdims=True))

    def sample_deviation(returns: np.ndarray) -> np.ndarray:
        """This divides by the sample deviation (ddof=1); divide by the deviation of the k returns
        themselves, whose variance is their mean squared distance from the mean.
        """
        return _divided(returns, 1)

    def without_division(returns: np.ndarray) -> np.ndarray:
        """The mean is subtracted, but the division by the standard deviation is missing."""
        return _centred(returns)

    def whitened_batch(returns: np.ndarray) -> np.ndarray:
        """This whitens the whole batch; whiten each group by itself."""
        return np.asarray((returns - returns.mean()) / returns.std())

    def divided_by_the_variance(returns: np.ndarray) -> np.ndarray:
        """This divides by the variance; divide by its square root."""
        spread = np.where(np.ptp(returns, axis=1), returns.std(axis=1), 1.0)
        return np.asarray(_divided(returns, 0) / spread[:, None])

    return compare_function(
        answer,
        _by_package(GroupNormalized()),
        [(returns,) for returns in RETURNS],
        rtol=1e-3,
        mistakes=[
            unguarded,
            sample_deviation,
            without_division,
            whitened_batch,
            divided_by_the_variance,
        ],
    )


def reward_and_kl_of_the_optimum(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(optimum, beta) -> (E[r], KL)`` at pi*, for a function ``optimum(beta) = J*``.

    Numbers count as equal if they agree to 1e-4, because the answer needs a finite difference.
    """
    rng = np.random.default_rng(5)
    cases = []
    for beta in (0.3, 2.0):
        log_reference, rewards = np.log(softmax(rng.normal(size=4))), 2 * rng.normal(size=4)

        def optimum(
            b: float, log_reference: np.ndarray = log_reference, rewards: np.ndarray = rewards
        ) -> float:
            return float(b * logsumexp(log_reference + rewards / b))

        cases.append((optimum, beta))

    def kl(optimum: Callable[[float], float], beta: float) -> float:
        return (optimum(beta * (1 - 1e-4)) - optimum(beta * (1 + 1e-4))) / (2e-4 * beta)

    def exact(optimum: Callable[[float], float], beta: float) -> tuple[float, float]:
        return optimum(beta) + beta * kl(optimum, beta), kl(optimum, beta)

    def wrong_sign(optimum: Callable[[float], float], beta: float) -> tuple[float, float]:
        """The sign of the KL is wrong: J* falls when a nat costs more, so the KL is minus the
        derivative.
        """
        return optimum(beta) - beta * kl(optimum, beta), -kl(optimum, beta)

    def without_the_cost(optimum: Callable[[float], float], beta: float) -> tuple[float, float]:
        """The KL is right, but the reward is J* plus the cost of the KL."""
        return optimum(beta), kl(optimum, beta)

    def cost_subtracted(optimum: Callable[[float], float], beta: float) -> tuple[float, float]:
        """The KL is right, but its cost is subtracted from J* a second time."""
        return optimum(beta) - beta * kl(optimum, beta), kl(optimum, beta)

    def other_order(optimum: Callable[[float], float], beta: float) -> tuple[float, float]:
        """Both numbers are right, but their order is (reward, KL)."""
        return exact(optimum, beta)[::-1]

    return compare_function(
        answer,
        exact,
        cases,
        rtol=1e-4,
        mistakes=[wrong_sign, without_the_cost, cost_subtracted, other_order],
    )


def k3_loss_gradient(answer: Callable[..., Any]) -> Verdict:
    """Check ``answer(policy, reference) -> gradient with respect to the logits``, all (3,)."""

    def loss_gradient(
        slope: Callable[[np.ndarray], np.ndarray],
    ) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
        def gradient(policy: np.ndarray, reference: np.ndarray) -> np.ndarray:
            log_policy = np.log(np.roll(policy, -1))[None, None]
            coefficients = policy * slope(np.log(policy / reference))
            by_token = sequences.score_sum(log_policy, coefficients[None])[0, 0]
            return np.roll(by_token, 1)

        return gradient

    exact = loss_gradient(lambda u: -np.expm1(-u))

    def as_for_k2(policy: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """This is the gradient of KL(policy || reference), as for k2."""
        return loss_gradient(lambda u: u)(policy, reference)

    def wrong_sign(policy: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """The sign is wrong: the loss decreases towards the reference."""
        return -exact(policy, reference)

    def as_for_k1(policy: np.ndarray, reference: np.ndarray) -> np.ndarray:
        """This is the gradient of k1, which is 0 on average; that of k3 is not."""
        return np.zeros(3)

    rng = np.random.default_rng(6)
    cases = [(softmax(rng.normal(size=3)), softmax(rng.normal(size=3))) for _ in range(2)]
    return compare_function(answer, exact, cases, mistakes=[as_for_k2, wrong_sign, as_for_k1])
