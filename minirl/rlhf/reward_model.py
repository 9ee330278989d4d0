"""The reward model: a linear reward whose differences explain preferences (Bradley-Terry).

With features f(x, y) of an answer y to a prompt x, and d = f(x, first) - f(x, second)::

    r(x, y) = w . f(x, y)
    P(first preferred) = sigmoid(r(x, first) - r(x, second)) = sigmoid(w . d)
    loss(w) = mean over pairs of -label log sigmoid(w . d) - (1 - label) log sigmoid(-w . d)

The loss depends only on differences of rewards within a prompt. A constant per prompt can therefore
be added to the reward: no preference depends on it, and none determines it.

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
    """The features f(x, y) of an answer, the input of a reward model: F = X D + S numbers.

    Parameters
    ----------
    task : TokenTask
    by_prompt : ndarray (N, D)
        Features of the responses that have a separate weight for each prompt. These weights come
        first, ordered by prompt; the weights of the shared features follow.
    shared : ndarray (N, S)
        Features of the responses whose weight is the same for all prompts.
    """

    task: TokenTask
    by_prompt: np.ndarray
    shared: np.ndarray

    @property
    def size(self) -> int:
        """F, the number of weights."""
        return len(self.task.prompts) * self.by_prompt.shape[1] + self.shared.shape[1]

    def __call__(self, prompts: np.ndarray, responses: np.ndarray) -> np.ndarray:
        """The features f(x, y) (M, F) of responses (M,) to prompts (M,), both given as indices.

        Raises
        ------
        ValueError
            For a prompt or a response that the task does not have.
        """
        require_indices("prompts", prompts, len(self.task.prompts))
        require_indices("responses", responses, self.task.num_responses)
        by_prompt = np.zeros((len(prompts), len(self.task.prompts), self.by_prompt.shape[1]))
        by_prompt[np.arange(len(prompts)), prompts] = self.by_prompt[responses]
        return np.hstack([by_prompt.reshape(len(prompts), -1), self.shared[responses]])

    def differences(self, preferences: Preferences) -> np.ndarray:
        """The differences d = f(x, first) - f(x, second) (M, F) of preference pairs."""
        prompts = preferences.prompts
        return self(prompts, preferences.first) - self(prompts, preferences.second)

    def rewards(self, weights: np.ndarray) -> np.ndarray:
        """w . f(x, y) of every response (X, N), computed without an array of all features."""
        by_prompt, shared = np.split(weights, [self.size - self.shared.shape[1]])
        by_prompt = by_prompt.reshape(len(self.task.prompts), -1)
        return by_prompt @ self.by_prompt.T + self.shared @ shared


def bag_of_words(task: TokenTask, by_prompt: Sequence[str] = DIGITS) -> Features:
    """Features that describe which words an answer contains, without their order.

    They are, in this order: for each prompt, whether each of the words `by_prompt` is present; the
    count of every other word; and 1 if the response was cut at the maximum length, else 0. For
    `arithmetic()` these are 16 + 4 + 1 = 21 numbers.

    Parameters
    ----------
    task : TokenTask
    by_prompt : sequence of str
        Words whose value depends on the prompt.

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
    separate = np.array([word in by_prompt for word in words])
    cut = responses >= task.num_contexts
    return Features(
        task,
        by_prompt=(counts[:, separate] > 0).astype(np.float64),
        shared=np.column_stack([counts[:, ~separate], cut]).astype(np.float64),
    )


def one_hot(task: TokenTask) -> Features:
    """Features with one weight per prompt and response, F = X N: w is the reward table itself.

    r(x, y) = w[x, y]. The features contain an array (N, N), so this suits only tasks with up to a
    few hundred responses.
    """
    return Features(task, np.eye(task.num_responses), np.zeros((task.num_responses, 0)))


# ---------------------------------------------------------------- the loss and its derivatives


def require_labelled(
    name: str, numbers: ArrayLike, labels: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """`numbers` and `labels` as float64 arrays (M,) with one number per pair, or ValueError.

    The labels must lie in [0, 1]. Different shapes, such as (M,) and (M, 1), are refused because
    NumPy would broadcast them and compare every pair with every label.
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
    """Mean cross-entropy of the labels plus ridge w.w / (2 M), in nats, and the gradient (F,).

    With margin = w . d of each pair::

        loss      = mean of -label log sigmoid(margin) - (1 - label) log sigmoid(-margin)
                    + ridge w . w / (2 M)
        gradient  = (sum of (sigmoid(margin) - label) d + ridge w) / M

    Parameters
    ----------
    weights : ndarray (F,)
        w.
    differences : ndarray (M, F)
        d, the features of the first answer minus the features of the second.
    labels : ndarray (M,)
        Probabilities that the first answer is preferred, in [0, 1].
    ridge : float
        At least 0. It is weighed against the sum of the losses of all pairs, so that its effect
        decreases with the number of pairs.

    Examples
    --------
    With weights of 0, both answers have the same reward and the loss is log 2. A step down the
    gradient raises the reward of the preferred answer.

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
    """Second derivative (F, F) of `bradley_terry_loss`, which does not depend on the labels.

    (sum over pairs of sigmoid(margin) sigmoid(-margin) d d' + ridge I) / M. M times this matrix is
    the Fisher information; its inverse is the covariance of the fitted weights.
    """
    margins, labels = require_labelled("differences @ weights", differences @ weights, labels)
    variances = scipy.special.expit(margins) * scipy.special.expit(-margins)
    information = differences.T @ (variances[:, None] * differences)
    return (information + ridge * np.eye(len(weights))) / len(labels)


# ---------------------------------------------------------------- the model and its fit


@dataclass(frozen=True, eq=False)
class RewardModel:
    """A linear reward model, r(x, y) = w . f(x, y) + offset(x).

    Parameters
    ----------
    features : Features
        f.
    weights : ndarray (F,)
        w.
    offsets : ndarray (X,), optional
        A constant per prompt. No preference depends on it.
    """

    features: Features
    weights: np.ndarray
    offsets: np.ndarray | float = 0.0

    def rewards(self) -> np.ndarray:
        """The reward r(x, y) = w . f(x, y) + offset(x) of every response, (X, N).

        Raises
        ------
        ValueError
            If a reward is not a finite number, naming its prompt and response.
        """
        table = self.features.rewards(self.weights) + np.expand_dims(self.offsets, -1)
        return checked_rewards(self.features.task, table)

    def centred(self, log_probs: np.ndarray) -> "RewardModel":
        """The model with offsets such that sum_y pi_ref(y|x) r(x, y) = 0 for each prompt x.

        Parameters
        ----------
        log_probs : ndarray (X, N)
            Log-probabilities of the responses under the reference, in nats.

        Raises
        ------
        ValueError
            If `log_probs` has another shape, or the probabilities of a row do not sum to 1.
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
        """The predicted probability sigmoid(r(x, first) - r(x, second)) of each pair, (M,)."""
        margins = self.features.differences(preferences) @ self.weights
        return np.asarray(scipy.special.expit(margins))


def fit_reward_model(
    features: Features, preferences: Preferences, *, ridge: float = 0.1
) -> RewardModel:
    """The reward model that minimises `bradley_terry_loss`, from w = 0 by Newton steps.

    The steps are restricted to a trust region. With d = f(x, first) - f(x, second), the loss is::

        mean over M pairs of -label log sigmoid(w . d) - (1 - label) log sigmoid(-w . d)
        + ridge w . w / (2 M)

    The numbers beside the lines are the steps of docs/rlhf/reward-model.md.

    Parameters
    ----------
    features : Features
    preferences : Preferences
    ridge : float
        At least 0. At 0 the result is the maximum likelihood estimate, and the preferences must
        determine the rewards within each prompt. Directions of w that the loss does not depend on,
        such as a constant per prompt, stay 0.

    Raises
    ------
    ValueError
        For a negative ridge, or a prompt or response that the task does not have. With a ridge of
        0, also for disconnected or one-sided preferences, which have no unique finite optimum.
    RuntimeError
        If the fit does not converge.
    """
    require_non_negative("ridge", ridge)
    differences, labels = features.differences(preferences), preferences.labels  # (1)
    if ridge == 0:  # (2)
        _require_connected(features, differences)
        _require_two_sided(differences, labels)
    solution = scipy.optimize.minimize(  # (3)
        bradley_terry_loss,
        np.zeros(features.size),
        args=(differences, labels, ridge),
        method="trust-ncg",
        jac=True,
        hess=bradley_terry_hessian,
        options={"gtol": 1e-10},
    )
    # `solution.success` is not used: close to the minimum the loss changes by less than rounding,
    # and the search may report failure at a gradient of 1e-8 that it cannot reduce.
    norm = float(np.linalg.norm(solution.jac))  # (4)
    if not norm <= 1e-6:
        raise RuntimeError(
            f"the reward model's fit with ridge {ridge!r} did not converge: gradient norm "
            f"{norm:.1e} after {solution.nit} steps, {solution.message}"
        )
    return RewardModel(features, solution.x)


def _require_connected(features: Features, differences: np.ndarray) -> None:
    """Raise ValueError if the pairs do not determine a direction of w that changes rewards.

    Only changes of rewards relative to others of the same prompt count.
    """
    prompts, responses = np.indices((len(features.task.prompts), features.task.num_responses))
    table = features(prompts.ravel(), responses.ravel()).reshape(*prompts.shape, -1)
    table -= table.mean(axis=1, keepdims=True)
    directions = np.linalg.matrix_rank(table.reshape(-1, features.size))
    determined = np.linalg.matrix_rank(differences)
    if determined < directions:
        raise ValueError(
            f"preferences are disconnected: they determine {determined} of the {directions} "
            f"directions in which the weights change rewards within a prompt, and no pair depends "
            f"on {directions - determined} of them; add pairs that link the missing answers, or "
            "use ridge > 0"
        )


def _require_two_sided(differences: np.ndarray, labels: np.ndarray) -> None:
    """Raise ValueError if some direction of w agrees with labels and contradicts none.

    Along such a direction the likelihood would grow without bound. A hard label supports the
    preferred answer, a soft label supports both. Let d be the difference of features, with the sign
    for which the supported answer comes first. The linear programme finds, among the directions w
    that contradict no label, the one that agrees with most of them: maximise sum(t) subject to
    0 <= t <= 1 and t <= w . d.
    """
    supported = np.concatenate([differences[labels > 0], -differences[labels < 1]])
    towards, counts = np.unique(supported, axis=0, return_counts=True)
    kinds, size = towards.shape
    constraints: Any = scipy.sparse.hstack(
        [scipy.sparse.csr_array(-towards), scipy.sparse.eye_array(kinds)], format="csr"
    )
    solution = scipy.optimize.linprog(
        np.repeat([0.0, -1.0], [size, kinds]),
        A_ub=constraints,
        b_ub=np.zeros(kinds),
        bounds=[(None, None)] * size + [(0.0, 1.0)] * kinds,
    )
    agreed = round(counts @ np.asarray(solution.x)[size:])
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
    """The expected fraction of pairs on which the prediction agrees with a label drawn from p.

    With p the label, the mean over pairs of p where predicted > 0.5, 1 - p where predicted < 0.5,
    and 1/2 where predicted is exactly 0.5.

    Parameters
    ----------
    predicted : ndarray (M,)
        Predicted probabilities that the first answer is preferred.
    labels : ndarray (M,)
        Probabilities p that the first answer is preferred, in [0, 1].

    Examples
    --------
    >>> accuracy(np.array([0.9, 0.4, 0.5]), np.array([0.8, 0.0, 1.0]))  # (0.8 + 1 + 0.5) / 3
    0.7666666666666666
    """
    predicted, labels = _predictions(predicted, labels)
    says_first = np.where(predicted == 0.5, 0.5, predicted > 0.5)
    return float(np.mean(says_first * labels + (1 - says_first) * (1 - labels)))


def bayes_ceiling(labels: np.ndarray) -> float:
    """The highest possible accuracy: the mean of max(p, 1 - p) over soft labels p (M,).

    >>> bayes_ceiling(np.array([0.75, 0.25, 0.5]))
    0.6666666666666666

    Raises ValueError for a label outside [0, 1], or without labels.
    """
    labels = _numbers("labels", labels)
    _require_probabilities("labels", labels)
    return float(np.mean(np.maximum(labels, 1 - labels)))


class Calibration(NamedTuple):
    """Predicted and observed probabilities, one entry per bin that contains a pair.

    Attributes
    ----------
    predicted, observed : ndarray (K,)
        Mean prediction and mean label of the pairs in a bin.
    counts : ndarray (K,) of int
        Number of pairs in each bin.
    error : float
        The expected calibration error: mean over pairs of abs(predicted - observed) of their bin.
    """

    predicted: np.ndarray
    observed: np.ndarray
    counts: np.ndarray
    error: float


def calibration(predicted: np.ndarray, labels: np.ndarray, bins: int = 10) -> Calibration:
    """How well predicted probabilities agree with the labels, compared in bins of predictions.

    A calibrated model is one whose pairs with a prediction of 0.7 have a mean label of 0.7. With
    n_k pairs in bin k, error = sum_k n_k abs(mean predicted_k - mean label_k) / M.

    Parameters
    ----------
    predicted, labels : ndarray (M,)
        Probabilities that the first answer is preferred, in [0, 1].
    bins : int
        Number of equal parts of [0, 1] into which the predictions are sorted.

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
