"""Checks of notebook 6: trees of sentences, packing, smoothed counts, perplexity."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_tasks import EOS, TokenTask
from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare, compare_function
from minirl.rlhf import sft

__all__ = ["num_responses", "sentence_log_prob", "packing_by_hand", "bigram_row", "perplexity"]


def _task(num_words: int, max_words: int) -> TokenTask:
    words = (*(f"w{i}" for i in range(num_words)), EOS)
    return TokenTask(("?",), words, max_words, lambda *_: 0.0, lambda _: {"": 1.0})


def num_responses(answer: Callable[[int, int], Any]) -> Verdict:
    """`answer(W, L)`: the number of responses of at most L words from a vocabulary of W words."""
    return compare_function(
        answer,
        lambda W, L: _task(W, L).num_responses,
        [(2, 2), (8, 5), (3, 1), (1, 4)],
        mistakes={
            "this counts only the longest responses; shorter ones end with EOS": lambda W, L: W**L,
            "this counts the contexts; the responses of L words, which are cut, are missing": (
                lambda W, L: _task(W, L).num_contexts
            ),
            "nothing follows EOS, so EOS is not one more word": lambda W, L: (W + 1) ** L,
            "the empty response, which is EOS alone, is missing": (
                lambda W, L: _task(W, L).num_responses - 1
            ),
        },
    )


def sentence_log_prob(answer: Callable[..., Any]) -> Verdict:
    """`answer(log_policy, prompt, words, max_words)`: log pi(y|x) in nats, a number.

    `log_policy` is a table (X, C, V), `words` a list of word ids.
    """
    rng = np.random.default_rng(0)
    table = np.log(rng.dirichlet(np.ones(4), size=(2, 13)))  # X = 2, W = 3, L = 3
    cases = [(table, 1, [2, 0], 3), (table, 0, [1, 1, 2], 3), (table, 1, [], 3)]

    def exact(log_policy: np.ndarray, prompt: int, words: Sequence[int], _: int) -> Any:
        node = 0
        for word in words:
            node = 3 * node + 1 + word
        return sequences.response_log_probs(log_policy)[prompt, node]

    def mistaken(eos: bool, heap: bool) -> Any:
        def total(policy: np.ndarray, prompt: int, words: Sequence[int], limit: int) -> float:
            node, log_prob = 0, 0.0
            for word in words:
                log_prob += policy[prompt, node, word]
                node = 3 * node + 1 + word if heap else 0
            return log_prob + eos * (len(words) < limit) * policy[prompt, min(node, 12), -1]

        return total

    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "a response shorter than max_words ends with EOS, whose probability is a factor": (
                mistaken(eos=False, heap=True)
            ),
            "every token has its own context; this uses the empty one for all": (
                mistaken(eos=True, heap=False)
            ),
        },
    )


def packing_by_hand(answer: Any) -> Verdict:
    """Three numbers: blocks of 5, dropped tokens, response tokens that lost their prompt."""
    task = arithmetic()
    texts = {
        "What is 2x2?": "A: 4",
        "What is 2x4?": "Great_question! A: 8",
        "What is 3x3?": "9 :)",
        "What is 2x3?": "6",
    }
    numbers = [(task.prompt(prompt), task.response(text)) for prompt, text in texts.items()]
    stream = sft.token_stream(task, sft.Corpus(*np.array(numbers).T))
    blocks = sft.pack(stream, 5)
    dropped = len(stream) - blocks.size
    eos = task.num_words
    counted = sft.training_tokens(task, blocks).counted
    lost = int(((blocks <= eos) & ~counted).sum())
    return compare(
        answer,
        [len(blocks), dropped, lost],
        mistakes={
            "a tail shorter than a block is dropped and is not counted": [len(blocks) + 1, 0, lost],
            "dropped tokens are in no block, so they are not counted as lost": (
                [len(blocks), dropped, lost + dropped]
            ),
            "the EOS that ends a response is a response token too": (
                [len(blocks), dropped, int(((blocks < eos) & ~counted).sum())]
            ),
        },
    )


def bigram_row(answer: Callable[..., Any]) -> Verdict:
    """`answer(responses, previous, num_words, smoothing)`: probabilities (V,) of the next token."""
    responses = [[0, 1], [1], [0, 2, 0], [0], [2, 1, 1]]

    def counts(responses: Sequence[Sequence[int]], previous: int, W: int) -> np.ndarray:
        task = _task(W, max_words=4)
        nodes = [task.response(" ".join(f"w{w}" for w in words)) for words in responses]
        stream = sft.token_stream(task, sft.Corpus(np.zeros(len(nodes), int), np.array(nodes)))
        return sft.training_tokens(task, stream[None]).counts[previous]

    return compare_function(
        answer,
        lambda responses, previous, W, s: np.exp(
            sft.smoothed_optimum(counts(responses, previous, W)[None], s)[0]
        ),
        [(responses, 0, 3, 0.5), (responses, 3, 3, 0.1), (responses, 1, 3, 2.0)],
        mistakes={
            "the row does not sum to 1: smoothing is added once for each of the V tokens": (
                lambda responses, previous, W, s: (
                    (counts(responses, previous, W) + s)
                    / (counts(responses, previous, W).sum() + s)
                )
            ),
            "the smoothing is missing": (
                lambda responses, previous, W, s: (
                    counts(responses, previous, W) / counts(responses, previous, W).sum()
                )
            ),
        },
    )


def perplexity(answer: Callable[[list[np.ndarray]], Any]) -> Verdict:
    """`answer(log_probs)`: the perplexity per token of sentences of different lengths."""
    rng = np.random.default_rng(1)
    cases = [([np.log(rng.uniform(0.05, 0.9, size=n)) for n in (1, 4, 2)],) for _ in range(2)]

    def exact(log_probs: list[np.ndarray]) -> float:
        probs = np.exp(np.concatenate(log_probs))
        logits, chosen = np.log(np.column_stack([probs, 1 - probs])), np.array([[1, 0]])
        loss, _ = sft.language_model_loss(logits, chosen.repeat(len(probs), axis=0), smoothing=0.0)
        return float(np.exp(loss))

    return compare_function(
        answer,
        exact,
        cases,
        mistakes={
            "every token has the same weight; do not average the means of sentences": (
                lambda sentences: np.exp(-np.mean([sentence.mean() for sentence in sentences]))
            ),
            "this is the mean of the sentences' perplexities; take the exponential last": (
                lambda sentences: np.mean([np.exp(-sentence.mean()) for sentence in sentences])
            ),
            "this is per sentence; divide by the number of tokens": (
                lambda sentences: np.exp(-np.mean([sentence.sum() for sentence in sentences]))
            ),
        },
    )
