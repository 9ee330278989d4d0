"""Tasks for `TokenGeneration`: prompts, a vocabulary, and the utility of each answer.

An answer is at most `max_words` words. All of them form a tree in which every prefix is a node,
numbered like a heap: the empty prefix is 0, and prefix i followed by word a is W i + 1 + a. One
number serves two purposes::

    context   i < C    the prefix after which the next token is chosen     C = 1 + W + ... + W^(L-1)
    response  i < N    i < C: these words, then EOS;                       N = C + W^L
                       i >= C: L words, cut at the limit, without EOS
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from minirl.support.arguments import check_arguments
from minirl.support.validation import described

EOS = "<eos>"
LARGEST = 5_000_000  # responses of all prompts: about a gigabyte of tables

Utility = Callable[[str, tuple[str, ...], bool], float]
Demonstrations = Callable[[str], Mapping[str, float]]


class Paths(NamedTuple):
    """The steps of M responses, one row each, at most L steps.

    Attributes
    ----------
    observations : ndarray (M, L) of int
        The policy's observation before each token; the index 'ended' after the last step.
    tokens : ndarray (M, L) of int
        The token chosen in each step; 0 after the last step.
    valid : ndarray (M, L) of bool
        Whether this step exists.
    """

    observations: np.ndarray
    tokens: np.ndarray
    valid: np.ndarray


def _is_finite(value: Any) -> bool:
    return isinstance(value, Real | np.bool_) and math.isfinite(value)


def require_indices(name: str, numbers: np.ndarray, limit: int) -> None:
    """Raise ValueError unless all numbers are whole and in 0 .. limit - 1."""
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "iu":
        wrong = numbers.flat[0] if numbers.size else described(numbers)
        raise ValueError(f"{name} must be whole numbers 0 .. {limit - 1}, got {wrong}")
    wrong = numbers[(numbers < 0) | (numbers >= limit)]
    if len(wrong):
        raise ValueError(f"{name} must be whole numbers 0 .. {limit - 1}, got {wrong[0]}")


@dataclass(frozen=True, eq=False)
class TokenTask:
    """A language that is small enough to enumerate all of its sentences.

    Parameters
    ----------
    prompts : tuple of str
        The X prompts, drawn uniformly.
    vocabulary : tuple of str
        W words, then EOS as the last token.
    max_words : int
        L, the longest response; a response that reaches it is cut.
    utility : callable
        utility(prompt, words, cut) -> float: the utility of the response to a human.
    demonstrations : callable
        demonstrations(prompt) -> {text: probability}: the answers of a human writer.

    Raises
    ------
    ValueError
        For a vocabulary without EOS at its end or with the same token twice, no prompt, or no word.
    """

    prompts: tuple[str, ...]
    vocabulary: tuple[str, ...]
    max_words: int
    utility: Utility
    demonstrations: Demonstrations

    def __post_init__(self) -> None:
        for name in ("prompts", "vocabulary"):
            texts = getattr(self, name)
            if not isinstance(texts, tuple) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{name} must be a tuple of strings, got {texts!r}")
        if not self.prompts or len(set(self.prompts)) < len(self.prompts):
            raise ValueError(f"prompts must be different and at least one, got {self.prompts!r}")
        if EOS not in self.vocabulary or self.vocabulary[-1] != EOS:
            raise ValueError(
                f"vocabulary must end with {EOS!r}, the token that ends a sentence, got "
                f"{self.vocabulary!r}"
            )
        if len(set(self.vocabulary)) < len(self.vocabulary) or len(self.vocabulary) < 2:
            raise ValueError(
                f"vocabulary must hold different tokens and at least one word, got "
                f"{self.vocabulary!r}"
            )
        for word in self.vocabulary:
            if word.split() != [word]:
                raise ValueError(f"vocabulary holds {word!r}; a token must be one word, unspaced")
        if not isinstance(self.max_words, Integral) or self.max_words < 1:
            raise ValueError(
                f"max_words must be a whole number of at least 1, got {self.max_words!r}"
            )
        if len(self.prompts) * self.num_responses > LARGEST:
            raise ValueError(
                f"the task has {len(self.prompts) * self.num_responses:.3g} prompts x responses; "
                f"at most {LARGEST:,} can be enumerated: fewer words, or a smaller max_words"
            )

    @property
    def num_words(self) -> int:
        """W, the words without EOS; also the id of EOS."""
        return len(self.vocabulary) - 1

    @cached_property
    def level_starts(self) -> tuple[int, ...]:
        """The first node with l words, for l = 0 .. L + 1; the last entry is N."""
        starts = [0]
        for level in range(self.max_words + 1):
            starts.append(starts[-1] + self.num_words**level)
        return tuple(starts)

    @property
    def num_contexts(self) -> int:
        """C, contexts per prompt."""
        return self.level_starts[-2]

    @property
    def num_responses(self) -> int:
        """N, responses per prompt."""
        return self.level_starts[-1]

    @property
    def num_observations(self) -> int:
        """X C + 1; the last one means 'ended'."""
        return len(self.prompts) * self.num_contexts + 1

    def child(self, nodes: int | np.ndarray, words: int | np.ndarray) -> Any:
        """The nodes ``W nodes + 1 + words``: these prefixes continued by one word each (ids)."""
        return self.num_words * nodes + 1 + words

    def parent(self, nodes: int | np.ndarray) -> tuple[Any, Any]:
        """The prefix without its last word, and that word: ``divmod(nodes - 1, W)``, nodes > 0."""
        return divmod(nodes - 1, self.num_words)

    def observation(self, prompts: int | np.ndarray, contexts: int | np.ndarray) -> Any:
        """The observation ``C prompts + contexts`` of the policy that continues these contexts."""
        return prompts * self.num_contexts + contexts

    def response(self, text: str, *, cut: bool = False) -> int:
        """The number of a response given as text, words separated by spaces.

        Parameters
        ----------
        cut : bool
            Whether the response was cut at L words, without EOS; must be True if and only if there
            are L words.

        Raises
        ------
        ValueError
            For an unknown word, too many words, or a `cut` that does not fit the number of words.
        """
        words = text.split()
        if len(words) > self.max_words or cut != (len(words) == self.max_words):
            raise ValueError(
                f"response {text!r} has {len(words)} words; a response of {self.max_words} words "
                f"is cut, shorter ones end with EOS, got cut={cut}"
            )
        node = 0
        for word in words:
            if word not in self.vocabulary[:-1]:
                raise ValueError(f"word {word!r} is not in the vocabulary {self.vocabulary[:-1]}")
            node = self.child(node, self.vocabulary.index(word))
        return node

    def words(self, response: int) -> tuple[str, ...]:
        """The words of a response, as `utility` receives them, without EOS.

        Raises ValueError for a number that is no response of the task.
        """
        if not 0 <= response < self.num_responses:
            raise ValueError(
                f"response must be a number 0 .. {self.num_responses - 1}, got {response!r}"
            )
        words: tuple[str, ...] = ()
        while response > 0:
            response, word = self.parent(int(response))
            words = (self.vocabulary[word], *words)
        return words

    def text(self, response: int) -> str:
        """The words of a response separated by spaces; `...` marks one that was cut."""
        words = self.words(response)
        return " ".join([*words, "..."] if response >= self.num_contexts else words)

    def prompt_indices(self, prompts: ArrayLike | Sequence[str]) -> np.ndarray:
        """The indices (B,) of prompts, each given as an index or all of them as texts.

        Raises ValueError for a prompt that the task does not have.
        """
        if np.ndim(prompts) != 1 or np.asarray(prompts).dtype.kind not in "biufU":
            raise ValueError(
                f"prompts must be whole numbers or texts (B,), got {described(prompts)}"
            )
        if all(isinstance(prompt, str) for prompt in prompts):  # type: ignore[union-attr]
            texts = [str(prompt) for prompt in prompts]  # type: ignore[union-attr]
            return np.array([self.prompt(text) for text in texts], dtype=np.int64)
        require_indices("prompts", prompts, len(self.prompts))  # type: ignore[arg-type]
        return np.asarray(prompts)

    def prompt(self, text: str) -> int:
        """The number of a prompt given as text.

        Raises
        ------
        ValueError
            If the task does not have it.
        """
        if text not in self.prompts:
            raise ValueError(
                f"prompt text {text!r} is unknown; the prompts are {', '.join(self.prompts)}"
            )
        return self.prompts.index(text)

    @cached_property
    def utilities(self) -> np.ndarray:
        """The utility of every response, (X, N).

        Raises
        ------
        ValueError
            If `utility` returns something else than a finite number, naming the response.
        """
        spelled: list[tuple[str, ...]] = [()]
        for node in range(1, self.num_responses):
            parent, word = self.parent(node)
            spelled.append((*spelled[parent], self.vocabulary[word]))
        ended = self.num_contexts
        table = np.empty((len(self.prompts), self.num_responses))
        for row, prompt in zip(table, self.prompts, strict=True):
            worths = [
                self.utility(prompt, words, node >= ended) for node, words in enumerate(spelled)
            ]
            numbers = all(issubclass(kind, Real | np.bool_) for kind in set(map(type, worths)))
            if not numbers or not np.isfinite(worths).all():
                node = next(n for n, value in enumerate(worths) if not _is_finite(value))
                raise ValueError(
                    f"utility must return a finite number, got {worths[node]!r:.60} for "
                    f"{self.text(node)!r} to {prompt!r}"
                )
            row[:] = worths
        return table

    @cached_property
    def demonstration_probs(self) -> np.ndarray:
        """The probability that a demonstration is this response, (X, N).

        Raises
        ------
        ValueError
            If `demonstrations` returns something else than texts with their probabilities, or the
            probabilities of a prompt do not sum to 1.
        """
        probs = np.zeros((len(self.prompts), self.num_responses))
        for row, prompt in zip(probs, self.prompts, strict=True):
            given = self.demonstrations(prompt)
            if not isinstance(given, Mapping):
                raise ValueError(
                    f"demonstrations({prompt!r}) must be a dict of texts and probabilities, got "
                    f"{given!r:.60}"
                )
            for text, probability in given.items():
                if not isinstance(text, str) or not _is_finite(probability):
                    raise ValueError(
                        f"demonstrations({prompt!r}) must be texts with their probabilities, got "
                        f"{text!r:.60}: {probability!r:.60}"
                    )
                length = len(text.split())
                if length > self.max_words:
                    raise ValueError(
                        f"demonstrations({prompt!r}) holds {text!r}, {length} words; max_words is "
                        f"{self.max_words}"
                    )
                cut = length == self.max_words
                row[self.response(text, cut=cut)] += probability
            if not (row.min() >= 0 and abs(row.sum() - 1) <= 1e-9):  # NaN fails too
                raise ValueError(
                    f"demonstrations({prompt!r}) must be probabilities that sum to 1, got a sum of "
                    f"{row.sum()} and a smallest of {row.min()}"
                )
        return probs

    @cached_property
    def _steps(self) -> tuple[np.ndarray, np.ndarray]:
        """Contexts (N, L) and tokens (N, L) along each response; -1 behind the last step."""
        shape = self.num_responses, self.max_words
        contexts, tokens = np.full(shape, -1), np.full(shape, -1)
        starts, ended = self.level_starts, self.num_words
        for level in range(self.max_words + 1):
            nodes = np.arange(starts[level], starts[level + 1])
            if level > 0:
                parents, words = self.parent(nodes)
                contexts[nodes, : level - 1] = contexts[parents, : level - 1]
                tokens[nodes, : level - 1] = tokens[parents, : level - 1]
                contexts[nodes, level - 1], tokens[nodes, level - 1] = parents, words
            if level < self.max_words:
                contexts[nodes, level], tokens[nodes, level] = nodes, ended
        return contexts, tokens

    @cached_property
    def response_lengths(self) -> np.ndarray:
        """Number of tokens of each response (N,), EOS included."""
        return np.asarray((self._steps[1] >= 0).sum(axis=1))

    def paths(self, prompts: np.ndarray, responses: np.ndarray) -> Paths:
        """The steps that write responses (M,) to prompts (M,), both given as numbers.

        Raises ValueError for a number that the task does not have, or shapes that differ.
        """
        prompts, responses = np.asarray(prompts), np.asarray(responses)
        if prompts.ndim != 1 or prompts.shape != responses.shape:
            raise ValueError(
                "prompts and responses must be as many numbers each, (M,), got shapes "
                f"{prompts.shape} and {responses.shape}"
            )
        require_indices("prompts", prompts, len(self.prompts))
        require_indices("responses", responses, self.num_responses)
        contexts, tokens = (steps[responses] for steps in self._steps)
        valid = tokens >= 0
        observations = np.where(
            valid, self.observation(prompts[:, None], contexts), self.num_observations - 1
        )
        return Paths(observations, np.where(valid, tokens, 0), valid)


check_arguments(
    __name__, often=("Paths", "TokenTask.child", "TokenTask.parent", "TokenTask.observation")
)
