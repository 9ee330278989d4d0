"""Imitation of the best samples, exactly: each round fits a policy to responses that were selected.

Letters and arrays are those of `minirl.exact.sequences`. With infinitely many samples, one round of
rejection sampling replaces the distribution p(y|x) over responses by

* `sequences.best_of_n`, if the best of n responses to a prompt is kept (RAFT);
* `given_right`, if all right responses are kept (RFT, ReST-EM);

and then fits a policy to the result by maximum likelihood. A table with a row of its own for each
context represents any result: `sequences.policy_of` is its fit. A bigram table cannot;
`bigram_projection` is its best fit, and the KL from the result to it is what the fit loses.

Examples
--------
The responses "", "a", "b", of which "a" and "b" are right:

>>> log_probs = np.log(np.array([[0.5, 0.2, 0.3]]))
>>> np.exp(given_right(log_probs, np.array([[0.0, 1.0, 1.0]]))).round(3)
array([[0. , 0.4, 0.6]])
"""

import numpy as np

from minirl.exact.sequences import FloatArray, visitation
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_verdicts


def given_right(log_probs: FloatArray, rewards: FloatArray) -> FloatArray:
    """Log-probability (X, N) of each response, given that its reward is 1: ``log p(y | right)``.

    ``p(y | x, right) = p(y|x) r(x, y) / sum_y p(y|x) r(x, y)``. This is the distribution of the
    kept samples if every right sample is kept. A second round changes nothing, since then all
    samples are right. ``KL(p(. | right) || p)`` is ``-log`` of the prompt's success rate.

    Parameters
    ----------
    log_probs : ndarray (X, N)
        Log-probabilities of whole responses, from `response_log_probs`.
    rewards : ndarray (X, N)
        0 or 1 for each response.

    Raises
    ------
    ValueError
        If the shapes differ, a reward is neither 0 nor 1, or a prompt has no right response of
        probability above 0.
    """
    log_probs, rewards = np.asarray(log_probs, np.float64), np.asarray(rewards, np.float64)
    if rewards.shape != log_probs.shape or rewards.ndim != 2:
        raise ValueError(
            f"rewards must have the shape (X, N) of log_probs, {log_probs.shape}, got "
            f"{rewards.shape}"
        )
    require_verdicts("rewards", rewards)
    kept = np.where(rewards == 1, log_probs, -np.inf)
    totals = np.logaddexp.reduce(kept, axis=1, keepdims=True)
    if totals.min() == -np.inf:
        prompt = int(totals[:, 0].argmin())
        raise ValueError(
            f"rewards must accept a response of probability above 0 for each prompt, got none for "
            f"prompt {prompt}: nothing would be left to imitate"
        )
    return np.asarray(kept - totals)


def last_words(contexts: int, words: int) -> np.ndarray:
    """The last word (C,) of each context, 0 .. W-1, and W for the empty context."""
    nodes = np.arange(contexts)
    return np.where(nodes > 0, (nodes - 1) % words, words)


def bigram_projection(log_policy: FloatArray) -> FloatArray:
    """The bigram policy (X, C, V) nearest to a policy: it minimises ``KL(policy || bigram)``.

    A bigram policy chooses the next token by the prompt and the last word only. The minimiser is
    the ratio of expected counts, ``p(v|u) = sum_s d(s) pi(v|s) / sum_s d(s)`` over the contexts s
    whose last word is u, where d is the `visitation`. This is also the limit of the fit to n
    samples of the policy, for n to infinity. Rows of probability 0 are uniform.

    Parameters
    ----------
    log_policy : ndarray (X, C, V)
        For the result of a selection: ``policy_of(best_of_n(...), words)``.

    Raises
    ------
    ValueError
        If `log_policy` is not a table of log-probabilities over a full tree.
    """
    visits = visitation(log_policy)
    prompts, contexts, tokens = np.shape(log_policy)
    rows = last_words(contexts, tokens - 1)
    counts = np.zeros((prompts, tokens, tokens))
    expected = visits[:, :, None] * np.exp(log_policy)
    for x in range(prompts):
        np.add.at(counts[x], rows, expected[x])
    totals = counts.sum(axis=2, keepdims=True)
    uniform = np.full_like(counts, 1 / tokens)
    probs = np.divide(counts, totals, out=uniform, where=totals > 0)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(probs)[:, rows])


check_arguments(__name__)
