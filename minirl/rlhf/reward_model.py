"""The reward model: a linear reward whose differences explain preferences (Bradley-Terry).

With the features f(x, y) of an answer y to a prompt x::

    r(x, y) = w . f(x, y)
    P(first preferred) = sigmoid(r(x, first) - r(x, second)) = sigmoid(w . d)
    loss(w) = mean over pairs of -label log sigmoid(w . d) - (1 - label) log sigmoid(-w . d)

Only differences within a prompt enter. A constant for each prompt can therefore be added to the
reward: no preference sees it, and none determines it.

Sources: Bradley and Terry, "Rank analysis of incomplete block designs" (1952); Ouyang et al.,
"Training language models to follow instructions with human feedback" (2022).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.sparse
import scipy.special
from numpy.typing import ArrayLike

from minirl.envs.arithmetic import DIGITS
from minirl.envs.token_generation import checked_rewards
from minirl.envs.token_tasks import TokenTask, require_indices
from minirl.rlhf.preferences import Preferences
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_non_negative

# ---------------------------------------------------------------- features


@dataclass(frozen=True, eq=False)
class Features:
    """What a reward model sees of an answer: F = X D + S numbers.

    Parameters
    ----------
    task : TokenTask
    by_prompt : ndarray (N, D)
        Features of the responses that get a weight of their own for each prompt. Weights stand
        prompt by prompt, before those of the shared features.
    shared : ndarray (N, S)
        Features of the responses that weigh the same for all prompts.
    """

    task: TokenTask
    by_prompt: np.ndarray
    shared: np.ndarray

    @property
    def size(self) -> int:
        """F, the number of weights."""
        return len(self.task.prompts) * self.by_prompt.shape[1] + self.shared.shape[1]

    def __call__(self, prompts: np.ndarray, responses: np.ndarray) -> np.ndarray:
        """The features (M, F) of responses (M,) to prompts (M,), both given as numbers.

        Raises
        ------
        ValueError
            For a prompt or a response that the task does not have.
        """
        require_indices("prompts", prompts, len(self.task.prompts))
        require_indices("responses", responses, self.task.num_responses)
        own = np.zeros((len(prompts), len(self.task.prompts), self.by_prompt.shape[1]))
        own[np.arange(len(prompts)), prompts] = self.by_prompt[responses]
        return np.hstack([own.reshape(len(prompts), -1), self.shared[responses]])

    def differences(self, preferences: Preferences) -> np.ndarray:
        """Features of the first answer minus features of the second, (M, F)."""
        prompts = preferences.prompts
        return self(prompts, preferences.first) - self(prompts, preferences.second)

    def rewards(self, weights: np.ndarray) -> np.ndarray:
        """w . f(x, y) for every response, (X, N), without writing all features down."""
        own, shared = np.split(weights, [self.size - self.shared.shape[1]])
        return own.reshape(len(self.task.prompts), -1) @ self.by_prompt.T + self.shared @ shared


def bag_of_words(task: TokenTask, by_prompt: Sequence[str] = DIGITS) -> Features:
    """Words without their order: some by presence and prompt, the others by count.

    Prompt x presence of each of the words `by_prompt`, then the count of every other word, then 1
    if the response was cut: 16 + 4 + 1 = 21 numbers for `arithmetic()`.

    Raises
    ------
    ValueError
        For a word of `by_prompt` that the task does not have.
    """
    words = task.vocabulary[:-1]
    unknown = [word for word in by_prompt if word not in words]
    if unknown:
        raise ValueError(
            f"by_prompt holds {unknown[0]!r}, the task's words are {words}; the default suits the "
            "arithmetic task only, name the words whose worth depends on the prompt"
        )
    responses = np.arange(task.num_responses)
    _, tokens, valid = task.paths(np.zeros_like(responses), responses)
    counts = np.stack([((tokens == word) & valid).sum(axis=1) for word in range(len(words))], 1)
    own = np.array([word in by_prompt for word in words])
    cut = responses >= task.num_contexts
    return Features(
        task,
        by_prompt=(counts[:, own] > 0).astype(np.float64),
        shared=np.column_stack([counts[:, ~own], cut]).astype(np.float64),
    )


def one_hot(task: TokenTask) -> Features:
    """One weight for each prompt and response, F = X N: the reward table itself.

    Only for tasks of a few hundred responses; it holds a matrix of (N, N).
    """
    return Features(task, np.eye(task.num_responses), np.zeros((task.num_responses, 0)))


# ---------------------------------------------------------------- the loss and its derivatives


def require_labelled(
    name: str, numbers: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """`numbers` and `labels`, both as arrays (M,) of one number per pair, or ValueError.

    Two shapes that differ, such as (M,) and (M, 1), would silently compare every pair with every
    label. The labels must lie in [0, 1].
    """
    numbers, labels = _numbers(name, numbers), _numbers("labels", labels)
    if numbers.shape != labels.shape:
        raise ValueError(
            f"{name} and labels must be one number per pair, got shapes {numbers.shape} and "
            f"{labels.shape}"
        )
    _require_probabilities("labels", labels)
    return numbers, labels


def _numbers(name: str, values: ArrayLike) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size:
        raise ValueError(
            f"{name} must be one number per pair, at least one, got shape {array.shape}"
        )
    return array


def _require_probabilities(name: str, numbers: np.ndarray) -> None:
    if not np.all((numbers >= 0) & (numbers <= 1)):
        raise ValueError(f"{name} must lie in [0, 1], got {numbers.min()} to {numbers.max()}")


def bradley_terry_loss(
    weights: np.ndarray, differences: np.ndarray, labels: np.ndarray, ridge: float = 0.0
) -> tuple[float, np.ndarray]:
    """Mean cross-entropy of the labels plus ridge w.w / (2 M), and the gradient (F,).

    Parameters
    ----------
    weights : ndarray (F,)
    differences : ndarray (M, F)
        Features of the first answer minus features of the second.
    labels : ndarray (M,)
        In [0, 1], as many as differences.
    ridge : float
        At least 0. It stands against the sum of the losses: the more pairs, the less it matters.

    Examples
    --------
    Without weights both answers are equally good, at a loss of log 2; the gradient calls for the
    preferred one.

    >>> loss, gradient = bradley_terry_loss(np.zeros(1), np.array([[2.0]]), np.array([1.0]))
    >>> round(loss, 4), gradient
    (0.6931, array([-1.]))
    """
    margins, labels = require_labelled("differences @ weights", differences @ weights, labels)
    log_likelihood = labels @ scipy.special.log_expit(margins)
    log_likelihood += (1 - labels) @ scipy.special.log_expit(-margins)
    loss = (-log_likelihood + ridge * (weights @ weights) / 2) / len(labels)
    residuals = scipy.special.expit(margins) - labels
    return float(loss), (differences.T @ residuals + ridge * weights) / len(labels)


def bradley_terry_hessian(
    weights: np.ndarray, differences: np.ndarray, labels: np.ndarray, ridge: float = 0.0
) -> np.ndarray:
    """Second derivative (F, F) of `bradley_terry_loss`; the labels do not enter.

    M times this is the Fisher information; its inverse is the covariance of the fitted weights.
    """
    margins, labels = require_labelled("differences @ weights", differences @ weights, labels)
    variances = scipy.special.expit(margins) * scipy.special.expit(-margins)
    information = differences.T @ (variances[:, None] * differences)
    return (information + ridge * np.eye(len(weights))) / len(labels)


# ---------------------------------------------------------------- the model and its fit


@dataclass(frozen=True, eq=False)
class RewardModel:
    """r(x, y) = w . f(x, y) + offset(x).

    Parameters
    ----------
    features : Features
    weights : ndarray (F,)
    offsets : ndarray (X,), optional
        What is added for each prompt. No preference depends on it.
    """

    features: Features
    weights: np.ndarray
    offsets: np.ndarray | float = 0.0

    def rewards(self) -> np.ndarray:
        """The reward of every response, (X, N).

        Raises
        ------
        ValueError
            If a reward is not a finite number, naming its prompt and response.
        """
        table = self.features.rewards(self.weights) + np.expand_dims(self.offsets, -1)
        return checked_rewards(self.features.task, table)

    def centred(self, log_probs: np.ndarray) -> "RewardModel":
        """The same model with offsets such that its mean under the reference is 0, each prompt.

        Parameters
        ----------
        log_probs : ndarray (X, N)
            Log-probabilities of the responses under the reference, in nats.

        Raises
        ------
        ValueError
            If `log_probs` has another shape, or a row is no distribution.
        """
        rewards, probs = self.rewards(), np.exp(log_probs)
        if probs.shape != rewards.shape or not np.allclose(probs.sum(axis=1), 1):
            raise ValueError(
                f"log_probs must be log-probabilities of shape {rewards.shape}, got shape "
                f"{probs.shape} and rows of probability {probs.sum(axis=-1).min()} to "
                f"{probs.sum(axis=-1).max()}"
            )
        return replace(self, offsets=self.offsets - (probs * rewards).sum(axis=1))

    def probabilities(self, preferences: Preferences) -> np.ndarray:
        """The predicted probability (M,) that the first answer is preferred."""
        margins = self.features.differences(preferences) @ self.weights
        return np.asarray(scipy.special.expit(margins))


def fit_reward_model(
    features: Features, preferences: Preferences, *, ridge: float = 0.1
) -> RewardModel:
    """Minimise `bradley_terry_loss`, by Newton steps in a trust region that begin at w = 0.

    The numbers beside the lines are the steps of docs/rlhf/reward-model.md.

    Parameters
    ----------
    ridge : float
        At least 0. At 0, maximum likelihood, for which the preferences must determine the rewards
        within each prompt. What nothing determines, such as a constant for a prompt, stays 0.

    Raises
    ------
    ValueError
        For a negative ridge; at ridge 0, for disconnected or one-sided preferences (a positive
        ridge makes the best of them). For a prompt or response that the task does not have.
    RuntimeError
        If the fit does not converge.
    """
    require_non_negative("ridge", ridge)
    differences, labels = features.differences(preferences), preferences.labels  # (1)
    if ridge == 0:  # (2)
        _require_connected(features, differences)
        _require_two_sided(differences, labels)
    found = scipy.optimize.minimize(  # (3)
        bradley_terry_loss,
        np.zeros(features.size),
        args=(differences, labels, ridge),
        method="trust-ncg",
        jac=True,
        hess=bradley_terry_hessian,
        options={"gtol": 1e-10},
    )
    # Not `found.success`: close to the minimum the loss changes by less than rounding, and the
    # search may give up on a gradient of 1e-8 that it cannot improve.
    norm = float(np.linalg.norm(found.jac))  # (4)
    if not norm <= 1e-6:
        raise RuntimeError(
            f"the reward model's fit with ridge {ridge!r} did not converge: gradient norm "
            f"{norm:.1e} after {found.nit} steps, {found.message}"
        )
    return RewardModel(features, found.x)


def _require_connected(features: Features, differences: np.ndarray) -> None:
    """Every direction of w that changes rewards within a prompt must be seen by some pair."""
    prompts, responses = np.indices((len(features.task.prompts), features.task.num_responses))
    table = features(prompts.ravel(), responses.ravel()).reshape(*prompts.shape, -1)
    table -= table.mean(axis=1, keepdims=True)
    wanted = np.linalg.matrix_rank(table.reshape(-1, features.size))
    seen = np.linalg.matrix_rank(differences)
    if seen < wanted:
        raise ValueError(
            f"preferences are disconnected: they determine {seen} of the {wanted} directions in "
            f"which the weights change rewards within a prompt, and {wanted - seen} are seen by no "
            "pair; add pairs that link the missing answers, or use ridge > 0"
        )


def _require_two_sided(differences: np.ndarray, labels: np.ndarray) -> None:
    """No direction may agree with every label, or the likelihood would grow along it for ever.

    A soft label speaks for both answers, a hard one for the preferred one. With d turned towards
    the answer spoken for, the linear programme finds the direction w that agrees with most of them
    among those that contradict none: maximise sum(t) with 0 <= t <= 1 and t <= w . d.
    """
    spoken_for = np.concatenate([differences[labels > 0], -differences[labels < 1]])
    towards, counts = np.unique(spoken_for, axis=0, return_counts=True)
    kinds, size = towards.shape
    constraints: Any = scipy.sparse.hstack(
        [scipy.sparse.csr_array(-towards), scipy.sparse.eye_array(kinds)], format="csr"
    )
    found = scipy.optimize.linprog(
        np.repeat([0.0, -1.0], [size, kinds]),
        A_ub=constraints,
        b_ub=np.zeros(kinds),
        bounds=[(None, None)] * size + [(0.0, 1.0)] * kinds,
    )
    agreed = round(counts @ np.asarray(found.x)[size:])
    if agreed:
        raise ValueError(
            "preferences are one-sided: some direction of the weights contradicts no label and "
            f"explains {agreed} of {len(labels)}, so that larger weights are always better; add "
            "pairs until some label contradicts it, or use ridge > 0"
        )


# ---------------------------------------------------------------- how good is it?


def _predictions(predicted: ArrayLike, labels: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays (M,) of probabilities, or ValueError."""
    predicted, labels = require_labelled("predicted", predicted, labels)
    _require_probabilities("predicted", predicted)
    return predicted, labels


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The expected share of pairs on which a model agrees with a draw of the label.

    Parameters
    ----------
    predicted : ndarray (M,)
        Probabilities that the first is preferred. At exactly 0.5 the model throws a coin.
    labels : ndarray (M,)
        In [0, 1].

    Examples
    --------
    >>> accuracy(np.array([0.9, 0.4, 0.5]), np.array([0.8, 0.0, 1.0]))  # (0.8 + 1 + 0.5) / 3
    0.7666666666666666
    """
    predicted, labels = _predictions(predicted, labels)
    says_first = np.where(predicted == 0.5, 0.5, predicted > 0.5)
    return float(np.mean(says_first * labels + (1 - says_first) * (1 - labels)))


def bayes_ceiling(labels: np.ndarray) -> float:
    """The accuracy that no model can beat: the mean of max(p, 1 - p) over soft labels p (M,).

    >>> bayes_ceiling(np.array([0.75, 0.25, 0.5]))
    0.6666666666666666

    Raises ValueError for a label outside [0, 1], or none.
    """
    labels = _numbers("labels", labels)
    _require_probabilities("labels", labels)
    return float(np.mean(np.maximum(labels, 1 - labels)))


class Calibration(NamedTuple):
    """Predicted against observed probabilities, one entry for each bin that holds a pair.

    Attributes
    ----------
    predicted, observed : ndarray (K,)
        Mean prediction and mean label of the pairs in a bin.
    counts : ndarray (K,) of int
        Pairs in it.
    error : float
        The expected calibration error: mean over pairs of abs(predicted - observed) of their bin.
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    error: float


def calibration(predicted: np.ndarray, labels: np.ndarray, bins: int = 10) -> Calibration:
    """Whether answers preferred with a predicted 70 % are preferred in 70 % of the cases.

    Parameters
    ----------
    predicted, labels : ndarray (M,)
        In [0, 1].
    bins : int
        Equal parts of [0, 1] by which the predictions are sorted.

    Examples
    --------
    >>> calibration(np.array([0.9, 0.9, 0.3]), np.array([1.0, 0.0, 0.3])).error  # 2/3 * 0.4
    0.26666666666666666
    """
    require_count("bins", bins)
    predicted, labels = _predictions(predicted, labels)
    bin_of = np.minimum(np.floor(predicted * bins), bins - 1)
    _, place, counts = np.unique(bin_of, return_inverse=True, return_counts=True)
    means = [np.bincount(place, y) / counts for y in (predicted, labels)]
    error = counts @ np.abs(means[0] - means[1]) / len(labels)
    return Calibration(means[0], means[1], counts, float(error))


check_arguments(__name__)
