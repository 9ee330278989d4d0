"""Supervised fine-tuning: imitate demonstrations, packed into blocks as StackLLaMA does it.

The demonstrations are joined into one stream of tokens, and the stream is cut into blocks of equal
length. A bigram model, a table with one row per (prompt, previous word), learns to predict the
responses. If a block begins in the middle of a response, its prompt is in an earlier block: these
tokens have lost their context. The smoothed loss, in nats per counted token, has a closed-form
optimum::

    loss    = -sum over contexts c and tokens v of (count(c, v) + smoothing) log p(v|c) / tokens
    p(v|c)  = (count(c, v) + smoothing) / sum over u of (count(c, u) + smoothing)

Token ids: words 0 .. W-1, EOS = W, prompt x = W + 1 + x. Rows: V x + previous word, V = W + 1; the
'previous word' at the beginning of a response is W.

The loss counts the response tokens whose prompt is in their block. Without `mask_prompt` it counts
all tokens but the first of each block, as in plain language modelling. Prompts are then targets
too, and x = X means 'no prompt seen': row W of this x predicts prompts, and its other rows predict
responses whose prompt is in an earlier block. The rows of the known prompts get X more columns, for
tokens that never occur there. Renormalised to V tokens, the table is the same. Only the reported
loss differs: by about log X nats per prompt, and by the loss of the tokens without context.

Source: Beeching et al., "StackLLaMA" (2023), for the packing; masking the prompt is an addition.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import scipy.special

from minirl.envs.token_tasks import TokenTask, require_indices
from minirl.exact.sequences import response_log_probs
from minirl.policy import Policy
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_flag, require_non_negative

# ---------------------------------------------------------------- demonstrations


class Corpus(NamedTuple):
    """Demonstrations: B prompts and the answers of a human writer.

    Attributes
    ----------
    prompts, responses : ndarray (B,) of int
        Numbers of the task's prompts and responses.
    """

    prompts: np.ndarray
    responses: np.ndarray


def sample_demonstrations(task: TokenTask, count: int, rng: np.random.Generator) -> Corpus:
    """`count` demonstrations: prompts x uniform, responses ~ `task.demonstration_probs[x]`.

    Raises
    ------
    ValueError
        If `count` is not a whole number of at least 1.
    """
    require_count("count", count)
    prompts = rng.integers(len(task.prompts), size=count)
    responses = np.empty(count, dtype=np.int64)
    for prompt, probs in enumerate(task.demonstration_probs):
        rows = np.flatnonzero(prompts == prompt)
        responses[rows] = rng.choice(task.num_responses, size=len(rows), p=probs)
    return Corpus(prompts, responses)


# ---------------------------------------------------------------- stream and blocks


def token_stream(task: TokenTask, demonstrations: Corpus) -> np.ndarray:
    """The token ids `[prompt] words EOS [prompt] words EOS ...` of all demonstrations, (S,).

    EOS follows every response, including responses that were cut at L words.

    Raises
    ------
    ValueError
        Without demonstrations, if the numbers of prompts and responses differ, or for a prompt or
        response that the task does not have.
    """
    prompts, responses = (np.asarray(numbers) for numbers in demonstrations)
    if prompts.size == 0:
        raise ValueError("demonstrations are empty; at least one prompt and response is needed")
    if prompts.shape != responses.shape or prompts.ndim != 1:
        raise ValueError(
            "demonstrations must have one response per prompt, got shapes "
            f"{prompts.shape} and {responses.shape}"
        )
    require_indices("prompts of the demonstrations", prompts, len(task.prompts))
    require_indices("responses of the demonstrations", responses, task.num_responses)
    _, tokens, valid = task.paths(prompts, responses)
    absent, eos = -1, task.num_words
    first = eos + 1 + prompts
    words = np.where(valid, tokens, absent)
    last = np.where(responses >= task.num_contexts, eos, absent)
    lines = np.column_stack([first, words, last])
    return lines[lines != absent]


def pack(stream: np.ndarray, block_size: int) -> np.ndarray:
    """The stream (S,) cut into K = floor(S / block_size) blocks (K, block_size).

    The remaining tokens at the end, fewer than a block, are dropped.

    >>> pack(np.arange(7), 3)
    array([[0, 1, 2],
           [3, 4, 5]])

    Raises
    ------
    ValueError
        For an empty stream or a block longer than the stream: no block would be left.
    """
    require_count("block_size", block_size)
    if len(stream) == 0:
        raise ValueError("stream is empty; there is nothing to pack")
    blocks = len(stream) // block_size
    if blocks == 0:
        raise ValueError(
            f"block_size must be at most the {len(stream)} tokens of the stream, got {block_size}; "
            "a longer block yields no block at all"
        )
    return stream[: blocks * block_size].reshape(blocks, block_size)


# ---------------------------------------------------------------- what the loss counts


class TrainingTokens(NamedTuple):
    """The tokens of K blocks of T tokens as the loss uses them.

    Attributes
    ----------
    contexts : ndarray (K, T) of int
        The row of the table that predicts this token.
    counted : ndarray (K, T) of bool
        Whether the loss counts this token.
    counts : ndarray of int, (X V, V) or, without masking, ((X + 1) V, V + X)
        How often each token was counted in each context. The loss depends on these numbers only.
    lost_context : float
        The fraction of response tokens (words and their EOS) whose prompt is in an earlier block.
    """

    contexts: np.ndarray
    counted: np.ndarray
    counts: np.ndarray
    lost_context: float


def training_tokens(
    task: TokenTask, blocks: np.ndarray, *, mask_prompt: bool = True
) -> TrainingTokens:
    """The context of each token of the blocks (K, T), and which of them the loss counts.

    A context is V prompt + previous word. The EOS after L words is never counted, because a
    response ends there in any case: the policy makes no choice. The blocks must be in the order of
    the stream, since this EOS may be in another block than its words.

    Raises
    ------
    ValueError
        For a token that the task does not have, or if nothing is left to count.
    """
    require_flag("mask_prompt", mask_prompt)
    num_prompts, num_tokens = len(task.prompts), len(task.vocabulary)
    require_indices("tokens of the blocks", blocks, num_tokens + num_prompts)
    contexts, response, known = _locate(task, blocks)
    if mask_prompt:
        counted, shape = known, (num_prompts * num_tokens, num_tokens)
    else:
        counted = response | (blocks >= num_tokens)
        counted[:, 0] = False
        shape = (num_prompts + 1) * num_tokens, num_tokens + num_prompts
    if not counted.any():
        raise ValueError(
            f"blocks of length {blocks.shape[1]} contain no token that the loss counts; a block "
            "must hold a prompt and the beginning of its response"
        )
    cells = np.ravel_multi_index((contexts[counted], blocks[counted]), shape)
    counts = np.bincount(cells, minlength=shape[0] * shape[1]).reshape(shape)
    return TrainingTokens(contexts, counted, counts, 1 - float(known.sum() / response.sum()))


def _locate(task: TokenTask, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The contexts, the mask of response tokens, and the mask of those with prompt in the block."""
    num_prompts, num_tokens = len(task.prompts), len(task.vocabulary)
    eos, unseen = task.num_words, num_prompts
    position = np.arange(blocks.size).reshape(blocks.shape)
    prompts_at = np.where(blocks > eos, position, -1).ravel()
    asked_at = np.maximum.accumulate(prompts_at).reshape(blocks.shape)
    place = position - asked_at  # 0 is the prompt, 1 .. L are response tokens
    response = (place >= 1) & (place <= task.max_words)
    known = response & (asked_at >= position[:, :1])

    prompt = np.where(known, blocks.ravel()[asked_at] - num_tokens, unseen)
    previous = np.full_like(blocks, eos)
    previous[:, 1:] = np.minimum(blocks[:, :-1], eos)
    return prompt * num_tokens + previous, response, known


# ---------------------------------------------------------------- the loss and its optimum


def language_model_loss(
    logits: np.ndarray, counts: np.ndarray, smoothing: float
) -> tuple[float, np.ndarray]:
    """Smoothed cross-entropy in nats per counted token, and its gradient (contexts, tokens).

    With n the sum of all counts, and sums over contexts c and tokens v::

        loss             = -sum (count(c, v) + smoothing) log p(v|c) / n
        d_logits(c, v)   = (p(v|c) sum over u of (count(c, u) + smoothing)
                            - (count(c, v) + smoothing)) / n

    Parameters
    ----------
    logits, counts : ndarray (contexts, tokens)
    smoothing : float
        Number that is added to every count; 0 for the cross-entropy alone.

    Examples
    --------
    For three heads and one tails, the model of a fair coin has a loss of log 2 nats per throw:

    >>> loss, d_logits = language_model_loss(np.zeros((1, 2)), np.array([[3, 1]]), smoothing=0.0)
    >>> round(loss, 4), d_logits
    (0.6931, array([[-0.25,  0.25]]))

    Raises
    ------
    ValueError
        If the shapes differ, `smoothing` is negative, or `counts` are negative or all 0.
    """
    require_non_negative("smoothing", smoothing)
    logits, counts = np.asarray(logits, np.float64), np.asarray(counts)
    if not (counts.size and counts.min() >= 0 and 0 < counts.sum() < np.inf):
        raise ValueError("counts must be at least 0, and one of them above 0")
    if logits.shape != counts.shape:
        raise ValueError(f"logits must have the shape {counts.shape} of counts, got {logits.shape}")
    weights = (counts + smoothing) / counts.sum()
    log_probs = scipy.special.log_softmax(logits, axis=1)
    d_logits = np.exp(log_probs) * weights.sum(axis=1, keepdims=True) - weights
    return -float((weights * log_probs).sum()), d_logits


def smoothed_optimum(counts: np.ndarray, smoothing: float) -> np.ndarray:
    """The log-probabilities (contexts, tokens) that minimise `language_model_loss`.

    p(v|c) = (count(c, v) + smoothing) / sum over u of (count(c, u) + smoothing)

    >>> np.exp(smoothed_optimum(np.array([[3, 1]]), smoothing=1.0)).round(4)
    array([[0.6667, 0.3333]])

    Raises
    ------
    ValueError
        Unless `smoothing` is above 0.
    """
    if not 0 < smoothing < np.inf:
        raise ValueError(
            f"smoothing must be a finite number above 0, got {smoothing!r}; without it the "
            "reference would give tokens probability 0, and a KL to it could be infinite"
        )
    weights = counts + smoothing
    return np.log(weights / weights.sum(axis=1, keepdims=True))


def expand_bigrams(task: TokenTask, log_probs: np.ndarray) -> np.ndarray:
    """The full-prefix table (X, C, V) of a bigram table (contexts, tokens), both log-probabilities.

    log pi(v | x, words) = log p(v | x, last word). Rows and columns beyond (X V, V), which exist
    without `mask_prompt`, are left out, and the remaining probabilities are renormalised.

    Raises
    ------
    ValueError
        If the table is smaller than (X V, V), or its rows are not log-probabilities.
    """
    log_probs = np.asarray(log_probs, dtype=np.float64)
    num_prompts, num_tokens = len(task.prompts), len(task.vocabulary)
    least = num_prompts * num_tokens, num_tokens
    if log_probs.ndim != 2 or log_probs.shape[0] < least[0] or log_probs.shape[1] < least[1]:
        raise ValueError(f"log_probs must have at least the shape {least}, got {log_probs.shape}")
    sums = np.exp(np.minimum(log_probs, 1.0)).sum(axis=1)  # no overflow; e > 1 is refused below
    if not np.abs(sums - 1).max() <= 1e-6:
        raise ValueError(
            "log_probs must be log-probabilities, whose exponentials sum to 1 per row, got sums "
            f"from {sums.min():.6g} to {sums.max():.6g}"
        )
    known = log_probs[: num_prompts * num_tokens, :num_tokens]
    known = scipy.special.log_softmax(known, axis=1).reshape(num_prompts, num_tokens, num_tokens)
    _, previous = task.parent(np.arange(task.num_contexts))
    previous[0] = task.num_words
    return known[:, previous]


# ---------------------------------------------------------------- perplexity


def demonstration_entropy(task: TokenTask) -> float:
    """H(q) = -sum_y q(y|x) log q(y|x) of the demonstrations q, mean over prompts, nats/response."""
    return float(scipy.special.entr(task.demonstration_probs).sum() / len(task.prompts))


def demonstration_cross_entropy(task: TokenTask, policy: Policy) -> float:
    """H(q, pi) = -sum_y q(y|x) log pi(y|x) in nats per response, mean over prompts, exact.

    q is the distribution of the demonstrations; H(q, pi) = H(q) + KL(q || pi). The result is
    infinite if the policy gives probability 0 to a demonstration.
    """
    log_probs = response_log_probs(log_table(task, policy))
    given = task.demonstration_probs > 0
    return -float(task.demonstration_probs[given] @ log_probs[given] / len(task.prompts))


def perplexity(task: TokenTask, nats: float) -> float:
    """The perplexity exp(nats / tokens per response), from a cross-entropy in nats per response.

    A model with this perplexity is as uncertain as one that chooses uniformly among this number of
    next tokens. The tokens per response, EOS included, are the mean over the demonstrations.
    """
    return float(np.exp(nats / (task.demonstration_probs @ task.response_lengths).mean()))


# ---------------------------------------------------------------- the stage


@dataclass(frozen=True, eq=False)
class FineTuned:
    """The result of supervised fine-tuning.

    Parameters
    ----------
    policy : Policy
        The reference and initial policy of the later stages; its parameters are read-only.
    loss : float
        Mean cross-entropy of the counted tokens under the model, without the smoothing, in nats.
    perplexity, lowest_perplexity : float
        Per response token, of the policy and of the demonstrations themselves, both exact.
    lost_context : float
        The fraction of response tokens whose prompt is in an earlier block.
    blocks, tokens : int
        Number of blocks, and number of tokens counted in the loss.
    """

    policy: Policy
    loss: float
    perplexity: float
    lowest_perplexity: float
    lost_context: float
    blocks: int
    tokens: int


def fine_tune(
    task: TokenTask,
    demonstrations: Corpus,
    *,
    block_size: int = 32,
    smoothing: float = 0.05,
    mask_prompt: bool = True,
) -> FineTuned:
    """Fit a bigram model to demonstrations: pack them, count, take the optimum of the loss.

    With count(c, v) the number of times that token v follows context c, a (prompt, previous word)::

        p(v|c) = (count(c, v) + smoothing) / sum over u of (count(c, u) + smoothing)

    A bigram model cannot represent the demonstrations exactly, no matter how many there are. The
    smoothing gives every response a probability above 0. The numbers beside the lines are the steps
    of docs/rlhf/supervised-fine-tuning.md.

    Parameters
    ----------
    task : TokenTask
    demonstrations : Corpus
    block_size : int
        Tokens per block. With shorter blocks, more response tokens lose their prompt.
    smoothing : float
        Number that is added to every count, above 0.
    mask_prompt : bool
        Whether the loss leaves out prompts, and responses whose prompt is in an earlier block.

    Raises
    ------
    ValueError
        For demonstrations that are empty or not of this task, a block longer than the stream or too
        short to contain a prompt and a word, or `smoothing` not above 0.
    """
    blocks = pack(token_stream(task, demonstrations), block_size)  # (1)
    tokens = training_tokens(task, blocks, mask_prompt=mask_prompt)  # (2)
    log_probs = smoothed_optimum(tokens.counts, smoothing)  # (3)
    policy = full_prefix_policy(task, expand_bigrams(task, log_probs))  # (4)
    policy.parameters.setflags(write=False)  # (5)
    return FineTuned(
        policy=policy,
        loss=language_model_loss(log_probs, tokens.counts, smoothing=0.0)[0],
        perplexity=perplexity(task, demonstration_cross_entropy(task, policy)),
        lowest_perplexity=perplexity(task, demonstration_entropy(task)),
        lost_context=tokens.lost_context,
        blocks=len(blocks),
        tokens=int(tokens.counted.sum()),
    )


check_arguments(__name__)
