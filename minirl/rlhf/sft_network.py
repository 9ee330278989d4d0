"""Supervised fine-tuning of a network: maximum likelihood of demonstrations by gradient steps.

The table of `sft.py` has its optimum in closed form. A network has not::

    loss(theta) = - sum over c and v of count(c, v) log pi_theta(v|c) / n                        (1)

where c is a whole context (prompt and words so far), count(c, v) is the number of times that token
v follows it in the packed demonstrations, and n is the sum of all counts.
"""

import numpy as np
import scipy.special

from minirl.envs.token_tasks import TokenTask
from minirl.optimizers import Adam, LinearSchedule, at_progress, require_positive_at_start
from minirl.policy import Policy
from minirl.rlhf.language_model import require_model
from minirl.rlhf.sft import (
    Corpus,
    FineTuned,
    demonstration_cross_entropy,
    demonstration_entropy,
    pack,
    perplexity,
    token_stream,
)
from minirl.support.arguments import check_arguments
from minirl.support.machine import one_core
from minirl.support.validation import require_count

FALLING_RATE = LinearSchedule(0.03)  # Adam's step size, down to 0


def context_counts(
    task: TokenTask, demonstrations: Corpus, block_size: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """Which tokens follow each whole context in the packed demonstrations.

    The demonstrations are packed as in `sft.pack`. A token counts if its prompt is in its own
    block. The EOS after L words never counts, since the response ends there in any case.

    Returns
    -------
    observations : ndarray (K,) of int
        The contexts that occur, as observations of a policy.
    counts : ndarray (K, V) of int
        How often each token follows them.
    lost_context : float
        The fraction of response tokens, with that EOS, whose prompt is in an earlier block.

    Raises
    ------
    ValueError
        As `sft.token_stream` and `sft.pack`, or if no token is left to count.
    """
    blocks = pack(token_stream(task, demonstrations), block_size)
    prompts, responses = (np.asarray(numbers) for numbers in demonstrations)
    observations, tokens, exists = task.paths(prompts, responses)
    was_cut = responses >= task.num_contexts
    lengths = 1 + exists.sum(axis=1) + was_cut  # prompt, tokens, and the EOS after L words
    begins = np.cumsum(lengths) - lengths
    places = begins[:, None] + 1 + np.arange(task.max_words + 1)
    in_stream = np.column_stack([exists, was_cut]) & (places < blocks.size)
    with_prompt = in_stream & (places // block_size == begins[:, None] // block_size)
    counted = with_prompt[:, :-1] & exists
    if not counted.any():
        raise ValueError(
            f"blocks of length {block_size} contain no token that the loss counts; a block must "
            "hold a prompt and the beginning of its response"
        )
    contexts, rows = np.unique(observations[counted], return_inverse=True)
    counts = np.zeros((len(contexts), len(task.vocabulary)), dtype=np.int64)
    np.add.at(counts, (rows, tokens[counted]), 1)
    return contexts, counts, 1 - float(with_prompt.sum() / in_stream.sum())


def network_loss(
    policy: Policy, observations: np.ndarray, counts: np.ndarray
) -> tuple[float, np.ndarray]:
    """The loss (1) in nats per counted token, and its gradient (P,).

    Its derivative with respect to the logits of context c is
    ``(p(v|c) sum over u of count(c, u) - count(c, v)) / n``.

    Parameters
    ----------
    observations : ndarray (K,) of int
    counts : ndarray (K, V)
    """
    distribution, cache = policy.forward(observations)
    log_probs = scipy.special.log_softmax(distribution.eta, axis=1)
    weights = counts / counts.sum()
    loss = -float((weights * log_probs).sum())
    d_logits = np.exp(log_probs) * weights.sum(axis=1, keepdims=True) - weights
    return loss, policy.vjp(cache, d_logits)


def fine_tune_network(
    task: TokenTask,
    demonstrations: Corpus,
    policy: Policy,
    *,
    block_size: int = 32,
    steps: int = 500,
    learning_rate: float | LinearSchedule = FALLING_RATE,
) -> FineTuned:
    """Fit a network to demonstrations by `steps` of Adam on the loss (1) of all of them at once.

    Parameters
    ----------
    task : TokenTask
    demonstrations : Corpus
    policy : Policy
        The first model, for example a fresh `network_policy`. It is not changed.
    block_size : int
        Tokens per block, as in `sft.fine_tune`.
    steps : int
        Number of gradient steps.
    learning_rate : float or LinearSchedule
        Adam's step size.

    Returns
    -------
    FineTuned
        Its policy has read-only parameters.

    Raises
    ------
    ValueError
        As `context_counts`, or for a model of another task.
    """
    require_model(task, policy)
    require_count("steps", steps)
    require_positive_at_start("learning_rate", learning_rate)
    observations, counts, lost_context = context_counts(task, demonstrations, block_size)
    optimizer = Adam()
    state = optimizer.init(policy.parameters)
    with one_core():
        for step in range(steps):
            _, gradient = network_loss(policy, observations, counts)
            rate = at_progress(learning_rate, step / steps)
            state, theta = optimizer.step(state, policy.parameters, gradient, rate)
            policy = policy.with_parameters(theta)
    policy.parameters.setflags(write=False)
    return FineTuned(
        policy=policy,
        loss=network_loss(policy, observations, counts)[0],
        perplexity=perplexity(task, demonstration_cross_entropy(task, policy)),
        lowest_perplexity=perplexity(task, demonstration_entropy(task)),
        lost_context=lost_context,
        blocks=len(pack(token_stream(task, demonstrations), block_size)),
        tokens=int(counts.sum()),
    )


check_arguments(__name__, often=("network_loss",))
