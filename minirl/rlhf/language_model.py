"""A language model is a `Policy`: the observation is the context, the action the next token."""

from collections.abc import Sequence

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from minirl.distributions import Categorical
from minirl.envs.token_tasks import TokenTask
from minirl.networks import Table
from minirl.policy import Policy
from minirl.support.arguments import check_arguments


def full_prefix_policy(task: TokenTask, log_probs: np.ndarray) -> Policy:
    """The policy with one row of logits per context: pi(v|c) = softmax(log_probs[c])[v].

    No two contexts share a parameter.

    Parameters
    ----------
    log_probs : ndarray (X, C, V)
        Log-probabilities of the next token, in nats; -inf for a token of probability 0. The policy
        uses them as logits and normalises them. The logits of the observation 'ended' are 0.

    Raises
    ------
    ValueError
        If the shape is not the task's, an entry is NaN or inf, a row excludes every token, or these
        are probabilities and not their logarithms.
    """
    log_probs = np.asarray(log_probs, dtype=np.float64)
    shape = len(task.prompts), task.num_contexts, len(task.vocabulary)
    if log_probs.shape != shape:
        raise ValueError(f"log_probs must have shape {shape}, got {log_probs.shape}")
    highest = log_probs.max(axis=2)
    if not np.isfinite(highest).all():  # NaN, inf, or -inf for every token
        prompt, context = np.argwhere(~np.isfinite(highest))[0]
        raise ValueError(
            "log_probs must hold a finite number for at least one token per context, and neither "
            f"NaN nor inf, got {log_probs[prompt, context]} for prompt {prompt}, context {context}"
        )
    if log_probs.min() >= 0 and np.abs(log_probs.sum(axis=2) - 1).max() <= 1e-6:
        raise ValueError(
            "log_probs must be log-probabilities, got probabilities: entries of at least 0 that "
            "sum to 1 over the tokens; pass their logarithm"
        )
    network = Table(task.num_observations, len(task.vocabulary))
    ended = np.zeros(network.outputs)
    return Policy(network, Categorical, np.concatenate([log_probs.ravel(), ended]))


def require_model(task: TokenTask, policy: Policy) -> None:
    """Raise ValueError if the policy is a table of another task."""
    network = policy.network
    required = Table(task.num_observations, len(task.vocabulary))
    if isinstance(network, Table) and network != required:
        raise ValueError(
            f"policy is {network}, a model of another task: this one needs {required}, a row for "
            "each context and for 'ended', a column for each token"
        )


def log_table(task: TokenTask, policy: Policy) -> np.ndarray:
    """Log-probabilities log pi(v|x, c) (X, C, V) of the next token in every context, in nats."""
    require_model(task, policy)
    distribution = policy(np.arange(task.num_observations - 1))
    eta = np.asarray(distribution.eta, dtype=np.float64)
    log_probs = scipy.special.log_softmax(eta, axis=1)
    return log_probs.reshape(len(task.prompts), task.num_contexts, -1)


def sample_responses(
    task: TokenTask,
    policy: Policy,
    prompts: ArrayLike | Sequence[str],
    rng: np.random.Generator,
) -> np.ndarray:
    """One sampled response to each prompt (B,), token by token: ``y_t ~ pi(. | x, y_<t)``.

    Parameters
    ----------
    prompts : array_like (B,) of int, or list of str
        Indices of the task's prompts, or their texts.

    Returns
    -------
    ndarray (B,) of int
        The numbers of the responses; `task.text` turns a number into words.
    """
    require_model(task, policy)
    prompts = task.prompt_indices(prompts)
    nodes = np.zeros(len(prompts), dtype=np.int64)
    writing = np.ones(len(prompts), dtype=bool)
    for _ in range(task.max_words):
        rows = np.flatnonzero(writing)
        tokens = policy.act(task.observation(prompts[rows], nodes[rows]), rng)
        ended = tokens == task.num_words
        nodes[rows] = np.where(ended, nodes[rows], task.child(nodes[rows], tokens))
        writing[rows] = ~ended
    return nodes


check_arguments(__name__)
