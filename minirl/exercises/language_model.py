"""Checks of notebook 6: trees of sentences, packing, attention masks, perplexity."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from minirl.envs.arithmetic import arithmetic
from minirl.envs.token_tasks import EOS, TokenTask
from minirl.exact import sequences
from minirl.exercises.verdict import Verdict, compare, compare_function, unanswered
from minirl.rlhf import sft

__all__ = ["num_responses", "sentence_log_prob", "packing_by_hand", "packed_block", "perplexity"]


def _task(num_words: int, max_words: int) -> TokenTask:
    words = (*(f"w{i}" for i in range(num_words)), EOS)
    return TokenTask(("?",), words, max_words, lambda *_: 0.0, lambda _: {"": 1.0})


def num_responses(answer: Callable[[int, int], Any]) -> Verdict:
    """`answer(W, L)`: the number of responses of at most L words from a vocabulary of W words."""
    cases = [(2, 2), (8, 5), (3, 1), (1, 4)]
    try:
        answer(1, 4)
    except ZeroDivisionError:
        return Verdict(
            "wrong",
            "Not yet: with W = 1 this divides by W - 1 = 0; the formula (W**(L + 1) - 1) / (W - 1) "
            "of the geometric series needs W > 1, so add the powers W**0 ... W**L instead.",
        )
    return compare_function(
        answer,
        lambda W, L: _task(W, L).num_responses,
        cases,
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


def packed_block(answer: Callable[..., Any]) -> Verdict:
    """`answer(block, first_prompt)`: the attention mask (T, T) and the position ids (T,)."""

    def exact(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
        text = np.cumsum(block >= first_prompt)
        place = np.arange(len(block))
        causal = place[None, :] <= place[:, None]
        return causal & (text[None, :] == text[:, None]), place - np.searchsorted(text, text)

    def changed(
        *, causal: bool = True, blocks: bool = True, itself: bool = True, restart: bool = True
    ) -> Callable[[np.ndarray, int], tuple[np.ndarray, np.ndarray]]:
        """The answer with one of its four properties missing."""

        def mistaken(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
            mask, positions = exact(block, first_prompt)
            size = len(block)
            if not causal:
                mask = mask | mask.T
            if not blocks:
                mask = np.tri(size, dtype=bool)
            if not itself:
                mask = mask & ~np.eye(size, dtype=bool)
            return mask, positions if restart else np.arange(size)

        return mistaken

    def table(function: Callable[..., Any]) -> Callable[..., Any]:
        """The mask with the position ids as one more column; a list if the result is not a pair."""

        def joined(block: np.ndarray, first_prompt: int) -> np.ndarray | list[Any]:
            result = function(block, first_prompt)
            if isinstance(result, tuple | list) and len(result) == 2:
                mask, positions = (np.asarray(part, np.float64) for part in result)
                if mask.shape == (len(block), len(block)) and positions.shape == (len(block),):
                    return np.column_stack([mask, positions])
            return [result]

        return joined

    cases = [(np.array([9, 4, 0, 8, 11, 2, 8, 10]), 9), (np.array([2, 8, 12, 4, 3, 8]), 9)]
    hints = {
        "row i must not attend to later tokens j > i": changed(causal=False),
        "row i may attend to tokens of its own text only, not to all earlier tokens": (
            changed(blocks=False)
        ),
        "a token may attend to itself: the diagonal of the mask is true": changed(itself=False),
        "the position ids must restart at 0 with each text": changed(restart=False),
        "this is the plain causal mask of one text; texts must be kept apart, and the position "
        "ids must restart with each of them": changed(blocks=False, restart=False),
        "rows and columns are exchanged: row i shows what token i attends to": (
            lambda block, first: (exact(block, first)[0].T, exact(block, first)[1])
        ),
        "a prompt begins a new text, and so do its position ids; they start at 0 and not at 1": (
            lambda block, first: (exact(block, first)[0], exact(block, first)[1] + 1)
        ),
    }
    if unanswered(answer(*cases[0])):
        return compare_function(answer, lambda *_: 0.0, cases)
    verdict = compare_function(
        table(answer),
        table(exact),
        cases,
        mistakes={hint: table(mistaken) for hint, mistaken in hints.items()},
    )
    if verdict.outcome == "wrong" and not isinstance(table(answer)(*cases[0]), np.ndarray):
        return Verdict(
            "wrong",
            "Not yet: return two arrays, the mask of shape (T, T) and the position ids of shape "
            "(T,), as `return mask, position_ids`.",
        )
    return verdict


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
