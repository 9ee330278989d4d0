"""A language model is a `Policy`: the observation is the context, the action the next token.

A table (`full_prefix_policy`) has parameters of its own for each context. A network
(`network_policy`) computes the logits from features of the context, so that contexts share
parameters.
"""

from collections.abc import Sequence

import numpy as np
import scipy.special
from numpy.typing import ArrayLike

from minirl.distributions import Categorical
from minirl.envs.token_tasks import TokenTask
from minirl.networks import MLP, Features, Table
from minirl.policy import Policy
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_finite_numbers


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


def context_features(task: TokenTask, prompt_features: np.ndarray | None = None) -> np.ndarray:
    """What a network sees of each observation: the prompt, the position, and each previous word.

    Parameters
    ----------
    prompt_features : ndarray (X, K), optional
        Features of each prompt. Prompts that share features share parameters. Default: one-hot.

    Returns
    -------
    ndarray (X C + 1, F)
        F = K + L + (L - 1) W columns: the features of the prompt, the number of words so far as
        one-hot of L, and for each of the L - 1 earlier positions its word as one-hot of W, or zeros
        if there is no word yet. The last row, 'ended', is 0.

    Raises
    ------
    ValueError
        If `prompt_features` do not have one row of finite numbers per prompt.
    """
    prompts, words, longest = len(task.prompts), task.num_words, task.max_words
    if prompt_features is None:
        prompt_features = np.eye(prompts)
    prompt_features = np.asarray(prompt_features, dtype=np.float64)
    if prompt_features.ndim != 2 or len(prompt_features) != prompts:
        raise ValueError(
            f"prompt_features must have shape ({prompts}, K), one row per prompt, got "
            f"{prompt_features.shape}"
        )
    require_finite_numbers("prompt_features", prompt_features)
    position = np.zeros((task.num_contexts, longest))
    previous = np.zeros((task.num_contexts, longest - 1, words))
    for level in range(longest):
        nodes = np.arange(task.level_starts[level], task.level_starts[level + 1])
        position[nodes, level] = 1
        if level > 0:
            parents, last = task.parent(nodes)
            previous[nodes] = previous[parents]
            previous[nodes, level - 1, last] = 1
    words_so_far = np.hstack([position, previous.reshape(task.num_contexts, -1)])
    contexts = np.hstack(
        [
            np.repeat(prompt_features, task.num_contexts, axis=0),
            np.tile(words_so_far, (prompts, 1)),
        ]
    )
    return np.vstack([contexts, np.zeros(contexts.shape[1])])


def network_policy(
    task: TokenTask,
    rng: np.random.Generator,
    *,
    hidden_sizes: tuple[int, ...] = (32,),
    prompt_features: np.ndarray | None = None,
) -> Policy:
    """A fresh language model whose logits are ``MLP(features of the context)``, in float64.

    Parameters
    ----------
    rng : Generator
        Draws the initial parameters. The first model is nearly uniform over the tokens.
    hidden_sizes : tuple of int
        Widths of the tanh layers.
    prompt_features : ndarray (X, K), optional
        See `context_features`.
    """
    for width in hidden_sizes:
        require_count("every width in hidden_sizes", width)
    features = context_features(task, prompt_features)
    sizes = (features.shape[1], *hidden_sizes, len(task.vocabulary))
    network = Features(features, MLP(sizes, output_gain=0.01, dtype="float64"))
    return Policy(network, Categorical, network.init(rng))


def require_model(task: TokenTask, policy: Policy) -> None:
    """Raise ValueError if the policy is a table or a network of another task."""
    network = policy.network
    rows, columns = task.num_observations, len(task.vocabulary)
    if isinstance(network, Table | Features) and (network.states, network.outputs) != (
        rows,
        columns,
    ):
        raise ValueError(
            f"policy is a {type(network).__name__} of {network.states} observations and "
            f"{network.outputs} tokens, a model of another task: this one needs {rows} "
            f"observations, one for each context and one for 'ended', and {columns} tokens"
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
