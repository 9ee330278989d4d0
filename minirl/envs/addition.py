"""The second family of token tasks: "2+3", answered in digits. Prompts share a structure.

A model sees the four prompts of the arithmetic task as four names without any relation. Here it may
see the two operands, so a model that has learned some of the sums may answer the others.
The reward of a response is 1 if it is exactly the digits of the sum, and 0 otherwise.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Literal

import numpy as np

from minirl.envs.token_tasks import EOS, TokenTask
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_count, require_fraction

MOST = 9  # largest operand: the sum of two one-digit numbers has at most two digits


def operands_of(prompt: str) -> tuple[int, int]:
    """The two numbers of a prompt.

    >>> operands_of("2+3")
    (2, 3)
    """
    operands = prompt.split("+")
    if len(operands) != 2 or not all(operand.isdecimal() for operand in operands):
        raise ValueError(f'prompt must be a sum of two numbers such as "2+3", got {prompt!r}')
    return int(operands[0]), int(operands[1])


def exact_sum(prompt: str, words: Sequence[str], cut: bool) -> float:
    """1 if the response consists of the digits of the sum, each a word of its own, else 0.

    >>> exact_sum("5+5", ("1", "0"), False), exact_sum("5+5", ("1",), False)
    (1.0, 0.0)
    """
    return float(not cut and "".join(words) == str(sum(operands_of(prompt))))


def addition_demonstrations(prompt: str, *, right: float, largest_sum: int) -> dict[str, float]:
    """The right sum with probability `right`, and each other sum 0 .. largest_sum equally often."""
    correct = sum(operands_of(prompt))
    wrong = (1 - right) / largest_sum
    return {
        " ".join(str(total)): right if total == correct else wrong
        for total in range(largest_sum + 1)
    }


@cache
def addition(largest: int = 5, *, right: float = 0.5) -> TokenTask:
    """Sums "a+b" of two numbers 0 .. largest, answered by up to three words, which are digits.

    Parameters
    ----------
    largest : int
        The largest operand, at most 9. There are (largest + 1)^2 prompts.
    right : float
        The probability that a demonstration is right, in [0, 1]. Otherwise it is another sum
        0 .. 2 largest, each with the same probability.

    Raises
    ------
    ValueError
        For a largest operand outside 1 .. 9, or a probability outside [0, 1].
    """
    require_count("largest", largest, most=MOST)
    require_fraction("right", right)
    digits = sorted({digit for total in range(2 * largest + 1) for digit in str(total)})
    return TokenTask(
        prompts=tuple(f"{a}+{b}" for a in range(largest + 1) for b in range(largest + 1)),
        vocabulary=(*digits, EOS),
        max_words=3,
        utility=exact_sum,
        demonstrations=partial(addition_demonstrations, right=right, largest_sum=2 * largest),
    )


def operand_features(
    task: TokenTask, kind: Literal["one-hot", "numbers"] = "numbers"
) -> np.ndarray:
    """Features of the prompts "a+b", for a network that treats both operands alike or apart.

    Parameters
    ----------
    task : TokenTask
        A task of `addition`.
    kind : {"one-hot", "numbers"}
        "one-hot": a column for each value of each operand, (X, 2 (largest + 1)). Two operands then
        have nothing in common. "numbers": both operands divided by the largest one, (X, 2).
        Operands that are near each other then have similar features.

    Raises
    ------
    ValueError
        For another kind, or a task whose prompts are not sums.
    """
    if kind not in ("one-hot", "numbers"):
        raise ValueError(f'kind must be "one-hot" or "numbers", got {kind!r}')
    operands = np.array([operands_of(prompt) for prompt in task.prompts])
    largest = int(operands.max())
    if kind == "numbers":
        return operands / largest
    return np.hstack(list(np.eye(largest + 1)[operands.T]))


check_arguments(__name__, often=("operands_of", "exact_sum"))
