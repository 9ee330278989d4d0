"""Checks of notebook 6: trees of sentences, packing, attention masks, perplexity."""

import functools
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

    def exact(W: int, L: int) -> int:
        return _task(W, L).num_responses

    def only_the_longest(W: int, L: int) -> int:
        """This counts only the longest responses; shorter ones end with EOS."""
        return W**L

    def contexts(W: int, L: int) -> int:
        """This counts the contexts; the responses of L words, which are cut, are missing."""
        return _task(W, L).num_contexts

    def eos_as_a_word(W: int, L: int) -> int:
        """Nothing follows EOS, so EOS is not one more word."""
        return (W + 1) ** L

    def without_the_empty_response(W: int, L: int) -> int:
        """The empty response, which is EOS alone, is missing."""
        return exact(W, L) - 1

    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[only_the_longest, contexts, eos_as_a_word, without_the_empty_response],
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

    def by_hand(
        log_policy: np.ndarray,
        prompt: int,
        words: Sequence[int],
        max_words: int,
        *,
        eos: bool = True,
        contexts: bool = True,
    ) -> float:
        context, log_prob = 0, 0.0
        for word in words:
            log_prob += log_policy[prompt, context, word]
            if contexts:
                context = 3 * context + 1 + word
        if eos and len(words) < max_words:
            log_prob += log_policy[prompt, context, -1]
        return log_prob

    def without_eos(*case: Any) -> float:
        """A response shorter than max_words ends with EOS, whose probability is a factor."""
        return by_hand(*case, eos=False)

    def empty_context_for_all(*case: Any) -> float:
        """Every token has its own context; this uses the empty one for all."""
        return by_hand(*case, contexts=False)

    return compare_function(answer, exact, cases, mistakes=[without_eos, empty_context_for_all])


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

    def causal_mask(block: np.ndarray) -> np.ndarray:
        return np.tri(len(block), dtype=bool)

    def exact(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
        text = np.cumsum(block >= first_prompt)
        same_text = text[None, :] == text[:, None]
        positions = np.arange(len(block)) - np.searchsorted(text, text)
        return causal_mask(block) & same_text, positions

    def attends_to_later_tokens(
        block: np.ndarray, first_prompt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row i must not attend to later tokens j > i."""
        mask, positions = exact(block, first_prompt)
        return mask | mask.T, positions

    def attends_to_other_texts(
        block: np.ndarray, first_prompt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row i may attend to tokens of its own text only, not to all earlier tokens."""
        _, positions = exact(block, first_prompt)
        return causal_mask(block), positions

    def empty_diagonal(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
        """A token may attend to itself: the diagonal of the mask is true."""
        mask, positions = exact(block, first_prompt)
        return mask & ~np.eye(len(block), dtype=bool), positions

    def positions_of_the_block(
        block: np.ndarray, first_prompt: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """The position ids must restart at 0 with each text."""
        mask, _ = exact(block, first_prompt)
        return mask, np.arange(len(block))

    def one_text(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
        """This is the plain causal mask of one text; texts must be kept apart, and the position
        ids must restart with each of them.
        """
        return causal_mask(block), np.arange(len(block))

    def transposed(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns are exchanged: row i shows what token i attends to."""
        mask, positions = exact(block, first_prompt)
        return mask.T, positions

    def positions_from_1(block: np.ndarray, first_prompt: int) -> tuple[np.ndarray, np.ndarray]:
        """A prompt begins a new text, and so do its position ids; they start at 0 and not at 1."""
        mask, positions = exact(block, first_prompt)
        return mask, positions + 1

    def table(function: Callable[..., Any]) -> Callable[..., Any]:
        """The mask with the position ids as one more column; a list if the result is not a pair."""

        @functools.wraps(function)
        def joined(block: np.ndarray, first_prompt: int) -> np.ndarray | list[Any]:
            result = function(block, first_prompt)
            if isinstance(result, tuple | list) and len(result) == 2:
                mask, positions = (np.asarray(part, np.float64) for part in result)
                if mask.shape == (len(block), len(block)) and positions.shape == (len(block),):
                    return np.column_stack([mask, positions])
            return [result]

        return joined

    cases = [(np.array([9, 4, 0, 8, 11, 2, 8, 10]), 9), (np.array([2, 8, 12, 4, 3, 8]), 9)]
    mistakes = [
        attends_to_later_tokens,
        attends_to_other_texts,
        empty_diagonal,
        positions_of_the_block,
        one_text,
        transposed,
        positions_from_1,
    ]
    if unanswered(answer(*cases[0])):
        return compare_function(answer, lambda *_: 0.0, cases)
    verdict = compare_function(
        table(answer),
        table(exact),
        cases,
        mistakes=[table(mistake) for mistake in mistakes],
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

    def mean_of_the_means(log_probs: list[np.ndarray]) -> float:
        """Every token has the same weight; do not average the means of sentences."""
        return float(np.exp(-np.mean([sentence.mean() for sentence in log_probs])))

    def mean_of_the_perplexities(log_probs: list[np.ndarray]) -> float:
        """This is the mean of the sentences' perplexities; take the exponential last."""
        return float(np.mean([np.exp(-sentence.mean()) for sentence in log_probs]))

    def per_sentence(log_probs: list[np.ndarray]) -> float:
        """This is per sentence; divide by the number of tokens."""
        return float(np.exp(-np.mean([sentence.sum() for sentence in log_probs])))

    return compare_function(
        answer,
        exact,
        cases,
        mistakes=[mean_of_the_means, mean_of_the_perplexities, per_sentence],
    )
