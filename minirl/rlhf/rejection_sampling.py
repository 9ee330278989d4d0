"""Rejection-sampling fine-tuning: sample, select, fit, and repeat.

One loop is the core of several methods. They differ in what they select::

    RAFT, expert iteration     the best of K samples per prompt              `keep_best`
    RFT, ReST-EM               all samples that a verifier accepts           `keep_right`

The fit is maximum likelihood of the selected samples. For a table it has a closed form; for a
network it is `fine_tune_network`. The next round samples from the fitted model. The distributions
with infinitely many samples are `minirl.exact.sequences.best_of_n` and
`minirl.exact.search.given_right`.

Sources: RAFT arXiv:2304.06767; RFT arXiv:2308.01825 (one round, and it removes samples with equal
reasoning paths, which this file does not); ReST-EM arXiv:2312.06585 (it fits the base model in
every round, `fit=lambda task, corpus, _: fit_network(task, corpus, base)`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from minirl.envs.token_generation import checked_rewards
from minirl.envs.token_tasks import TokenTask
from minirl.exact.search import bigram_projection, last_words
from minirl.optimizers import LinearSchedule
from minirl.policy import Policy
from minirl.rlhf.language_model import full_prefix_policy, log_table, sample_responses
from minirl.rlhf.sft import Corpus, token_stream
from minirl.rlhf.sft_network import context_counts, fine_tune_network
from minirl.support.arguments import check_arguments
from minirl.support.validation import (
    require_count,
    require_finite_numbers,
    require_positive,
    require_verdicts,
)

# select(rewards (B, K)) -> which samples are kept, (B, K) of bool
Select = Callable[[np.ndarray], np.ndarray]
# fit(task, kept samples, current policy) -> the next policy
Fit = Callable[[TokenTask, Corpus, Policy], Policy]

GENTLE_RATE = LinearSchedule(0.01)  # Adam's step size for a network that is already trained


class Round(NamedTuple):
    """One round of the loop.

    Attributes
    ----------
    policy : Policy
        Fitted to the kept samples.
    kept : Corpus
        The kept samples.
    reward : float
        Mean reward of all samples, which come from the policy of the round before.
    """

    policy: Policy
    kept: Corpus
    reward: float


# ---------------------------------------------------------------- select


def _require_groups(rewards: np.ndarray) -> None:
    if rewards.ndim != 2 or not rewards.size:
        raise ValueError(f"rewards must have shape (B, K), one row per group, got {rewards.shape}")
    require_finite_numbers("rewards", rewards)


def keep_best(rewards: np.ndarray) -> np.ndarray:
    """Keeps the sample with the largest reward of each row (B, K), and the first among equals.

    Rewards count as equal if they agree to 1e-13 of the largest in the row.

    >>> keep_best(np.array([[0.0, 1.0, 1.0], [0.0, 0.0, 0.0]])).astype(int)
    array([[0, 1, 0],
           [1, 0, 0]])
    """
    rewards = np.asarray(rewards)
    _require_groups(rewards)
    unit = np.abs(rewards).max(axis=1, keepdims=True)
    best = (rewards / np.where(unit > 0, unit, 1)).round(13).argmax(axis=1)
    return best[:, None] == np.arange(rewards.shape[1])


def keep_right(rewards: np.ndarray) -> np.ndarray:
    """Keeps all samples with reward 1 of (B, K).

    Raises ValueError if a reward is neither 0 nor 1.
    """
    rewards = np.asarray(rewards)
    _require_groups(rewards)
    require_verdicts("rewards", rewards, ", or keep_best")
    return rewards == 1


# ---------------------------------------------------------------- fit


def fit_table(task: TokenTask, kept: Corpus, policy: Policy, smoothing: float = 1.0) -> Policy:
    """Maximum likelihood of a table with a row for each context, in closed form.

    ``p(v|c) = (count(c, v) + smoothing pi(v|c)) / (count(c) + smoothing)``, where pi is the current
    policy. A context that no kept sample visits keeps its probabilities.

    Parameters
    ----------
    smoothing : float
        How many samples the current policy counts as, per context, above 0. The smaller, the closer
        to the maximum of the likelihood.
    """
    contexts = np.arange(task.num_contexts)
    return _fit_rows(task, kept, log_table(task, policy), contexts, smoothing)


def fit_bigrams(task: TokenTask, kept: Corpus, policy: Policy, smoothing: float = 1.0) -> Policy:
    """Maximum likelihood of a bigram table: as `fit_table`, with a row for each last word.

    The current policy enters by its nearest bigram policy. See
    `minirl.exact.search.bigram_projection` for the limit of many samples.
    """
    rows = last_words(task.num_contexts, task.num_words)
    return _fit_rows(task, kept, bigram_projection(log_table(task, policy)), rows, smoothing)


def _fit_rows(
    task: TokenTask, kept: Corpus, log_policy: np.ndarray, rows: np.ndarray, smoothing: float
) -> Policy:
    """Smoothed counts of all contexts with the same entry of `rows` (C,) together."""
    require_positive("smoothing", smoothing)
    observations, tokens, _ = context_counts(task, kept, len(token_stream(task, kept)))
    used, first = np.unique(rows, return_index=True)
    counts = smoothing * np.exp(log_policy[:, first])
    prompts, contexts = np.divmod(observations, task.num_contexts)
    np.add.at(counts, (prompts, np.searchsorted(used, rows[contexts])), tokens)
    with np.errstate(divide="ignore"):
        log_probs = np.log(counts / counts.sum(axis=2, keepdims=True))
    return full_prefix_policy(task, log_probs[:, np.searchsorted(used, rows)])


def fit_network(
    task: TokenTask,
    kept: Corpus,
    policy: Policy,
    steps: int = 200,
    learning_rate: float | LinearSchedule = GENTLE_RATE,
) -> Policy:
    """Maximum likelihood of a network by `fine_tune_network`, starting from the current policy.

    All samples are in one block, so that no token loses its prompt.
    """
    whole = len(token_stream(task, kept))
    return fine_tune_network(
        task, kept, policy, block_size=whole, steps=steps, learning_rate=learning_rate
    ).policy


# ---------------------------------------------------------------- the loop


def rejection_sampling(
    task: TokenTask,
    policy: Policy,
    rewards: np.ndarray,
    select: Select,
    fit: Fit,
    *,
    rounds: int,
    groups: int,
    group_size: int,
    rng: np.random.Generator,
) -> list[Round]:
    """Sample `groups` groups of K responses, select, fit, and repeat from the fitted policy.

    Parameters
    ----------
    task : TokenTask
    policy : Policy
        The first policy, usually the reference. It is not changed.
    rewards : ndarray (X, N)
        r(x, y) of every response to every prompt.
    select : callable
        `keep_best` (RAFT), `keep_right` (RFT, ReST-EM), or another select(rewards (B, K)) -> mask.
    fit : callable
        `fit_table`, `fit_bigrams`, `fit_network`, or another fit(task, kept, policy) -> Policy.
    rounds : int
        Number of rounds.
    groups : int
        Number of prompts per round, drawn uniformly with replacement.
    group_size : int
        K, the number of samples per prompt.

    Returns
    -------
    list of Round
        A round uses ``groups * group_size`` samples.

    Raises
    ------
    ValueError
        If no sample of a round is kept, `select` returns something else than a mask, or for a
        policy or rewards of another task.
    """
    for name, count in (("rounds", rounds), ("groups", groups), ("group_size", group_size)):
        require_count(name, count)
    rewards = checked_rewards(task, rewards)
    results = []
    for number in range(rounds):
        prompts = rng.integers(len(task.prompts), size=groups).repeat(group_size)
        responses = sample_responses(task, policy, prompts, rng)
        received = rewards[prompts, responses].reshape(groups, group_size)
        mask = np.asarray(select(received))
        if mask.shape != received.shape or mask.dtype != bool:
            raise ValueError(
                f"select must return an array {received.shape} of bool, got an array {mask.shape} "
                f"of {mask.dtype}"
            )
        if not mask.any():
            raise ValueError(
                f"select kept none of the {mask.size} samples of round {number + 1}: there is "
                "nothing to fit; use more samples, easier prompts, or a better first policy"
            )
        kept = Corpus(prompts[mask.ravel()], responses[mask.ravel()])
        policy = fit(task, kept, policy)
        results.append(Round(policy, kept, float(received.mean())))
    return results


check_arguments(__name__)
