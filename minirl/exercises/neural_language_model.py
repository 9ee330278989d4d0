"""Checks of notebook 12: features and size of a network, its gradient, and what one step moves."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.special import softmax

from minirl.exercises.verdict import Verdict, compare_function

__all__ = ["first_order_change", "likelihood_gradient", "network_features", "number_of_parameters"]


def _parameters(
    prompts: int,
    words: int,
    longest: int,
    hidden: int,
    *,
    biases: bool = True,
    places: int = -1,
    eos: bool = True,
) -> int:
    """The answer of exercise 1; each argument after the star makes one mistake."""
    inputs = prompts + longest + (longest + places) * words
    outputs = words + eos
    return (inputs + biases) * hidden + (hidden + biases) * outputs


def number_of_parameters(answer: Callable[..., Any]) -> Verdict:
    """`answer(prompts, words, longest, hidden)`: number of parameters of the network.

    It has one hidden layer. Prompt, position and each previous word are one-hot, and a response has
    at most `longest` words.
    """

    def without_biases(*case: int) -> int:
        "The biases are missing: each hidden unit and each output has one."
        return _parameters(*case, biases=False)

    def one_word_too_many(*case: int) -> int:
        "A context has at most L - 1 previous words, because after L words nothing is chosen."
        return _parameters(*case, places=0)

    def without_eos(*case: int) -> int:
        "The network has an output for EOS too, so there is one more output than words."
        return _parameters(*case, eos=False)

    return compare_function(
        answer,
        _parameters,
        [(4, 8, 5, 32), (36, 10, 3, 16), (1, 2, 1, 3)],
        mistakes=[without_biases, one_word_too_many, without_eos],
    )


def _features(
    prompt: int,
    words: Sequence[int],
    prompts: int,
    num_words: int,
    longest: int,
    *,
    position: int = 0,
    reverse: bool = False,
) -> np.ndarray:
    """The answer of exercise 2; each argument after the star makes one mistake."""
    place, previous = np.zeros(longest), np.zeros((longest - 1, num_words))
    place[(len(words) + position) % longest] = 1
    for index, word in enumerate(words[::-1] if reverse else words):
        previous[index, word] = 1
    return np.concatenate([np.eye(prompts)[prompt], place, previous.ravel()])


def network_features(answer: Callable[..., Any]) -> Verdict:
    """`answer(prompt, words, prompts, num_words, longest)`: the features (F,) of one context.

    The prompt as one-hot of `prompts`, the number of words so far as one-hot of `longest`, and the
    word at each of the `longest` - 1 earlier positions as one-hot of `num_words`, or zeros.
    """

    def one_position_late(*case: Any) -> np.ndarray:
        """The position is the number of words so far: 0 in the empty context, whose first entry is
        1.
        """
        return _features(*case, position=-1)

    def last_word_first(*case: Any) -> np.ndarray:
        "The words are in the wrong order: the first word of the response comes first."
        return _features(*case, reverse=True)

    cases = [
        (1, [], 2, 3, 3),
        (0, [2], 2, 3, 3),
        (1, [0, 2], 2, 3, 3),
        (2, [4, 1, 1], 4, 5, 5),
    ]
    return compare_function(answer, _features, cases, mistakes=[one_position_late, last_word_first])


def likelihood_gradient(answer: Callable[..., Any]) -> Verdict:
    """`answer(logits, counts)`: derivative (K, V) of the mean negative log-likelihood.

    `logits` (K, V) are the network's outputs in K contexts and `counts` (K, V) how often each token
    followed. The mean is over all counted tokens.
    """

    def exact(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        totals = counts.sum(axis=1, keepdims=True)
        return (softmax(logits, axis=1) * totals - counts) / counts.sum()

    def summed(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        "This is the derivative of the sum over all tokens; divide it by their number."
        return exact(logits, counts) * counts.sum()

    def contexts_equal(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        "Each context counts as much as any other; it must count as often as it occurs."
        totals = counts.sum(axis=1, keepdims=True)
        return (softmax(logits, axis=1) - counts / totals) / len(counts)

    def uphill(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        "The sign is wrong: this is the derivative of the likelihood, not of the loss."
        return -exact(logits, counts)

    def without_probabilities(logits: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """The derivative of the normalisation is missing: log softmax(z)_v is z_v minus
        log sum_u exp z_u.
        """
        return -counts / counts.sum() + 0 * logits

    rng = np.random.default_rng(0)
    cases = [
        (rng.normal(size=(contexts, 4)), 1.0 + rng.integers(6, size=(contexts, 4)))
        for contexts in (1, 5)
    ]
    return compare_function(
        answer, exact, cases, mistakes=[summed, contexts_equal, uphill, without_probabilities]
    )


def first_order_change(answer: Callable[..., Any]) -> Verdict:
    """`answer(scores, slopes, rate)`: first-order change (N,) of log pi(y) by one gradient step.

    `scores` (N, P) are the gradients of log pi(y) of N responses, and `slopes` (N,) the derivatives
    of the loss with respect to each log pi(y). The step is plain gradient descent.
    """

    def exact(scores: np.ndarray, slopes: np.ndarray, rate: float) -> np.ndarray:
        return -rate * scores @ (scores.T @ slopes)

    def uphill(scores: np.ndarray, slopes: np.ndarray, rate: float) -> np.ndarray:
        "The sign is wrong: gradient descent steps against the gradient."
        return -exact(scores, slopes, rate)

    def own_only(scores: np.ndarray, slopes: np.ndarray, rate: float) -> np.ndarray:
        """A response changes by the slopes of all responses, not only by its own: the step of the
        parameters is shared.
        """
        return -rate * (scores**2).sum(axis=1) * slopes

    def one_to_one(scores: np.ndarray, slopes: np.ndarray, rate: float) -> np.ndarray:
        """The scores are missing: the parameters move by -rate times the gradient, and log pi(y)
        then changes by its score times this step.
        """
        return -rate * slopes + 0 * scores.sum(axis=1)

    rng = np.random.default_rng(0)
    cases = [(rng.normal(size=(4, 6)), rng.normal(size=4), rate) for rate in (0.1, 0.5)]
    return compare_function(answer, exact, cases, mistakes=[uphill, own_only, one_to_one])
