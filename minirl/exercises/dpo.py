"""Checks of notebook 10: DPO's loop and loss, labels that are flipped, the reward of an optimum."""

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit, log_softmax, logit

from minirl.distributions import Categorical
from minirl.envs.token_tasks import Paths
from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare, compare_function
from minirl.networks import Table
from minirl.policy import Policy
from minirl.rlhf import dpo, preference_losses

__all__ = ["dpo_loop", "dpo_loss", "margin_with_flips", "recovered_reward", "unchanged"]

BETA = 0.3
# Exercise 5: the change of a table of rewards (X, N) and of beta for each letter.
CHANGES: dict[str, Callable[[np.ndarray, float], tuple[np.ndarray, float]]] = {
    "A": lambda rewards, beta: (rewards + np.arange(1.0, 1.0 + len(rewards))[:, None], beta),
    "B": lambda rewards, beta: (2 * rewards, beta),
    "C": lambda rewards, beta: (rewards + np.arange(rewards.shape[1]) % 3, beta),
    "D": lambda rewards, beta: (2 * rewards, 2 * beta),
}


def _language() -> tuple[np.ndarray, np.ndarray]:
    """A reference (X, C, V) and rewards (X, N): 2 prompts, 3 words, responses of at most 2."""
    rng = np.random.default_rng(0)
    return log_softmax(rng.normal(size=(2, 4, 4)), axis=2), rng.normal(size=(2, 13))


def _optimum(log_reference: np.ndarray, rewards: np.ndarray, beta: float) -> np.ndarray:
    log_policy, _ = sequences.soft_optimal_policy(log_reference, rewards, beta)
    return sequences.response_log_probs(log_policy)


def _plain_dpo(
    reference_logits: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    labels: np.ndarray,
    beta: float,
    rate: float,
    steps: int,
    *,
    with_reference: bool = True,
    with_beta: bool = True,
    sign: float = 1.0,
    mean: bool = True,
    repeated: bool = True,
) -> np.ndarray:
    """The loop of exercise 1 by hand; each argument after the star makes one mistake."""
    logits = reference_logits.copy()
    start = reference_logits if with_reference else np.zeros(len(logits))
    scale = sign * (beta if with_beta else 1.0) / (len(first) if mean else 1)
    for _ in range(steps):
        change = logits - start
        slopes = scale * (expit(beta * (change[first] - change[second])) - labels)
        gradient = np.zeros(len(logits))
        if repeated:
            np.add.at(gradient, first, slopes)
            np.add.at(gradient, second, -slopes)
        else:
            gradient[first] += slopes
            gradient[second] -= slopes
        logits -= rate * gradient
    return logits


def dpo_loop(answer: Callable[..., Any]) -> Verdict:
    """`answer(reference_logits, first, second, labels, beta, rate, steps)`: logits (N,) after DPO.

    One prompt with N responses and a softmax policy over whole responses, which starts at the
    reference. `first` and `second` (M,) are the numbers of the responses of M pairs, `labels` (M,)
    the probabilities that the first is preferred. Each step uses all pairs and is plain gradient
    descent on the mean loss.
    """

    def exact(
        reference_logits: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        labels: np.ndarray,
        beta: float,
        rate: float,
        steps: int,
    ) -> np.ndarray:
        size = len(reference_logits)
        policy = Policy(Table(1, size), Categorical, reference_logits)
        zeros, valid = np.zeros((len(first), 1), np.int64), np.ones((len(first), 1), dtype=bool)
        one, two = (Paths(zeros, side[:, None], valid) for side in (first, second))
        reference_log_probs = log_softmax(reference_logits)[np.stack([first, second])]
        method = dpo.DPO(beta=beta)
        for _ in range(steps):
            _, gradient, _ = method.loss_and_gradient(policy, one, two, reference_log_probs, labels)
            policy = policy.with_parameters(policy.parameters - rate * gradient)
        return policy.parameters

    def without_reference(*case: Any) -> np.ndarray:
        """The reference is missing: the margin is beta times a difference of log-ratios
        log(pi / pi_ref), not of log-probabilities.
        """
        return _plain_dpo(*case, with_reference=False)

    def without_beta(*case: Any) -> np.ndarray:
        """The factor beta is missing in the gradient: the margin is beta times a difference of
        log-ratios, so its derivative contains beta too.
        """
        return _plain_dpo(*case, with_beta=False)

    def uphill(*case: Any) -> np.ndarray:
        """The sign is wrong: the loss increases along these steps."""
        return _plain_dpo(*case, sign=-1.0)

    def summed(*case: Any) -> np.ndarray:
        """This is the gradient of the sum over pairs; the loss is the mean."""
        return _plain_dpo(*case, mean=False)

    def one_pair_per_response(*case: Any) -> np.ndarray:
        """`gradient[first] += slopes` counts one pair per response; use np.add.at or a loop."""
        return _plain_dpo(*case, repeated=False)

    def unmoved(*case: Any) -> np.ndarray:
        """Nothing has changed: return the logits after the steps."""
        return np.asarray(case[0])

    rng = np.random.default_rng(1)
    cases = []
    for beta, steps in ((0.3, 1), (0.5, 20)):
        first = rng.integers(5, size=8)
        second = (first + rng.integers(1, 5, size=8)) % 5
        labels = rng.random(8) if steps > 1 else rng.integers(2, size=8).astype(float)
        cases.append((rng.normal(size=5), first, second, labels, beta, 2.0, steps))
    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[
            without_reference,
            without_beta,
            uphill,
            summed,
            one_pair_per_response,
            unmoved,
        ],
    )


def dpo_loss(answer: Callable[..., Any]) -> Verdict:
    """`answer(margins, labels)`: the DPO loss of M pairs, a finite number for any finite margins.

    The last case contains margins of 1,000 and -1,000, which overflow in `np.exp`.
    """

    def loss(margins: np.ndarray, labels: np.ndarray) -> float:
        return preference_losses.dpo_loss(margins, labels)[0]

    def overflowing(margins: np.ndarray, labels: np.ndarray) -> float:
        """np.exp overflows at a margin of 1,000, and 0 times infinity is NaN; compute the log of
        the sigmoid by scipy.special.log_expit or np.logaddexp.
        """
        return float("nan") if np.abs(margins).max() > 700 else loss(margins, labels)

    def infinite(margins: np.ndarray, labels: np.ndarray) -> float:
        """The loss is infinite, because np.exp overflows at -1,000, where the log of the sigmoid is
        -1,000; use scipy.special.log_expit or np.logaddexp.
        """
        return float("inf") if np.abs(margins).max() > 700 else loss(margins, labels)

    def without_labels(margins: np.ndarray, labels: np.ndarray) -> float:
        """This treats every first answer as the chosen one; use the labels."""
        return loss(margins, np.ones(len(margins)))

    def exchanged(margins: np.ndarray, labels: np.ndarray) -> float:
        """The labels are exchanged: p belongs to the first answer."""
        return loss(margins, 1 - labels)

    def likelihood(margins: np.ndarray, labels: np.ndarray) -> float:
        """This is the mean log-likelihood; the loss is its negative."""
        return -loss(margins, labels)

    def summed(margins: np.ndarray, labels: np.ndarray) -> float:
        """This is the sum over pairs; the loss is the mean."""
        return loss(margins, labels) * len(margins)

    rng = np.random.default_rng(2)
    soft = 3 * rng.normal(size=5), rng.random(5)
    hard = np.array([1000.0, -1000.0, 0.5, -1000.0]), np.array([1.0, 0.0, 1.0, 1.0])
    return compare_function(
        answer,
        loss,
        [soft, hard],
        mistakes=[overflowing, infinite, without_labels, exchanged, likelihood, summed],
    )


def margin_with_flips(answer: Callable[..., Any]) -> Verdict:
    """`answer(differences, flips)`: the margins (M,) at which DPO's loss of each pair is smallest.

    The annotator's verdict follows Bradley-Terry with the reward differences r_1 - r_2 (M,), and is
    then turned round with probability `flips`, below 1/2. The last case has differences of +-50.
    """

    def label(differences: np.ndarray, flips: float) -> np.ndarray:
        """This is the label p, a probability; the margin is where sigmoid(margin) = p."""
        return np.asarray((1 - flips) * expit(differences) + flips * expit(-differences))

    def exact(differences: np.ndarray, flips: float) -> np.ndarray:
        return np.asarray(logit(label(differences, flips)))

    def unflipped(differences: np.ndarray, flips: float) -> np.ndarray:
        """Flips change the minimum: the labels are no longer sigmoid(r_1 - r_2)."""
        return differences

    def shrunk(differences: np.ndarray, flips: float) -> np.ndarray:
        """The label shrinks towards 1/2, but the margin does not shrink by the same factor."""
        return (1 - 2 * flips) * differences

    def wrong_sign(differences: np.ndarray, flips: float) -> np.ndarray:
        """The sign is wrong: p is the probability of the first answer."""
        return -exact(differences, flips)

    def half_of_the_cases(differences: np.ndarray, flips: float) -> np.ndarray:
        """A judgement for the second answer that is turned round counts for the first too; add
        flips * sigmoid(r_2 - r_1) to the label.
        """
        return np.asarray(logit((1 - flips) * expit(differences)))

    rng = np.random.default_rng(3)
    return compare_function(
        answer,
        exact,
        [
            (2 * rng.normal(size=4), 0.1),
            (3 * rng.normal(size=6), 0.3),
            (np.array([50.0, -50.0]), 0.1),  # the margins are at their limits, +-log(0.9 / 0.1)
        ],
        mistakes=[label, unflipped, shrunk, wrong_sign, half_of_the_cases],
    )


def recovered_reward(answer: Callable[..., Any]) -> Verdict:
    """`answer(log_optimum, log_reference, beta)`: rewards (X, N) of which pi* is the optimum.

    The arguments are log pi*(y|x) and log pi_ref(y|x) of all responses, (X, N) each. The rewards
    must have mean 0 under pi_ref for each prompt.
    """
    log_reference, rewards = _language()
    log_probs = sequences.response_log_probs(log_reference)

    def mean(table: np.ndarray) -> np.ndarray:
        return np.asarray((np.exp(log_probs) * table).sum(axis=1, keepdims=True))

    def implicit(optimum: np.ndarray, reference: np.ndarray, beta: float) -> np.ndarray:
        """The constants are still included: the mean under pi_ref is not 0."""
        return np.asarray(beta * (optimum - reference))

    def unweighted(*case: Any) -> np.ndarray:
        """This is centred on the unweighted mean; use the mean under pi_ref."""
        return np.asarray(implicit(*case) - implicit(*case).mean(axis=1, keepdims=True))

    def one_constant(*case: Any) -> np.ndarray:
        """This subtracts the same constant for all prompts, but Z depends on x."""
        return np.asarray(implicit(*case) - mean(implicit(*case)).mean())

    return compare_function(
        answer,
        lambda *_: rewards - mean(rewards),
        [(_optimum(log_reference, rewards, beta), log_probs, beta) for beta in (BETA, 2.0)],
        mistakes=[implicit, unweighted, one_constant],
    )


def unchanged(answer: Any) -> Verdict:
    """Which changes of reward and beta do not change pi*: letters of `CHANGES`, such as "BC"."""
    log_reference, rewards = _language()
    before = _optimum(log_reference, rewards, BETA)
    after = {key: _optimum(log_reference, *CHANGES[key](rewards, BETA)) for key in CHANGES}
    unchanged = {key for key in CHANGES if np.allclose(after[key], before)}
    if isinstance(answer, (list, tuple, set)) and all(isinstance(part, str) for part in answer):
        answer = "".join(answer)
    if not isinstance(answer, str):
        return compare(answer, "")
    named = set(answer.upper()) - set(" ,")
    mistakes = {
        "twice the rewards at the same beta make the KL penalty half as important": "B" in named,
        "C adds something that differs between answers to one prompt": "C" in named,
        "one more change keeps every difference within a prompt, divided by beta": (
            named < unchanged
        ),
    }
    hints = {hint: "".join(sorted(named)) for hint, made in mistakes.items() if made}
    return compare("".join(sorted(named)), "".join(sorted(unchanged)), mistakes=hints)
