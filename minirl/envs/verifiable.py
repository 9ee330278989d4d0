"""Tasks with verifiable rewards: the reward of a response is 1 if a verifier accepts it, else 0.

`verifiable` is the arithmetic task of `arithmetic.py` with a verifier in place of the utility.
Its prompts may differ in difficulty: `success_rates` sets how often the demonstrations are right,
and a reference that is fine-tuned on them inherits these rates.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import ArrayLike

from minirl.envs.arithmetic import (
    ANSWERS,
    DIGITS,
    arithmetic,
    arithmetic_demonstrations,
    exact_match,
)
from minirl.envs.token_tasks import TokenTask, Utility
from minirl.support.arguments import check_arguments
from minirl.support.validation import require_fraction

# How often a demonstration is right, for each prompt of `ANSWERS`.
UNEQUAL = (0.9, 0.5, 0.1, 0.02)


def first_answer_correct(prompt: str, words: Sequence[str], cut: bool) -> float:
    """1 if the first digit of the response is right, whatever follows, else 0.

    >>> first_answer_correct("What is 2x4?", ("Great_question!", "8", "9"), False)
    1.0
    """
    if prompt not in ANSWERS:
        raise ValueError(
            f"prompt must be one of the arithmetic task's, {', '.join(ANSWERS)}, got {prompt!r}"
        )
    digits = [word for word in words if word in DIGITS]
    return float(bool(digits) and digits[0] == ANSWERS[prompt])


def demonstrations_with_rate(prompt: str, rate: float) -> dict[str, float]:
    """The arithmetic task's demonstrations, reweighted so that a share `rate` of them is right.

    A demonstration is right if `first_answer_correct` accepts it. Right ones keep their
    probabilities relative to each other, and so do the others.
    """
    require_fraction("rate", rate)
    given = arithmetic_demonstrations(prompt)
    is_right = {text: first_answer_correct(prompt, text.split(), False) == 1 for text in given}
    right = sum(probability for text, probability in given.items() if is_right[text])
    return {
        text: probability * (rate / right if is_right[text] else (1 - rate) / (1 - right))
        for text, probability in given.items()
    }


@cache
def verifiable(
    verifier: Utility = exact_match, *, success_rates: tuple[float, ...] | None = None
) -> TokenTask:
    """The arithmetic task with rewards 0 and 1, which are computed and checked at once.

    Parameters
    ----------
    verifier : callable
        `exact_match`, `first_answer_correct`, or another verifier(prompt, words, cut) -> 0 or 1.
    success_rates : tuple of float, optional
        How often the demonstrations of each of the four prompts are right, for example `UNEQUAL`.
        Default: 0.65 for each, as in `arithmetic`.

    Raises
    ------
    ValueError
        For a verifier that returns something other than 0 or 1, naming a response; or for other
        than one success rate per prompt.
    """
    if success_rates is None:
        return _verified(arithmetic(verifier))
    if len(success_rates) != len(ANSWERS):
        raise ValueError(
            f"success_rates must be {len(ANSWERS)} numbers, one per prompt, got {success_rates!r}"
        )
    easy = arithmetic(verifier)
    rates = dict(zip(ANSWERS, success_rates, strict=True))
    task = TokenTask(
        prompts=easy.prompts,
        vocabulary=easy.vocabulary,
        max_words=easy.max_words,
        utility=verifier,
        demonstrations=lambda prompt: demonstrations_with_rate(prompt, rates[prompt]),
    )
    return _verified(task)


def _verified(task: TokenTask) -> TokenTask:
    """The task itself, if all of its utilities are 0 or 1."""
    wrong = np.argwhere((task.utilities != 0) & (task.utilities != 1))
    if len(wrong):
        prompt, response = (int(number) for number in wrong[0])
        raise ValueError(
            f"verifier must return 0 or 1, got {task.utilities[prompt, response]:.6g} for "
            f"{task.text(response)!r} to {task.prompts[prompt]!r}; use arithmetic(utility) for "
            "rewards of any size"
        )
    return task


def overlong_penalty(lengths: ArrayLike, *, longest: int, buffer: int) -> np.ndarray:
    """DAPO's penalty for long responses: 0, then linear to -1 at `longest`, and -1 beyond.

    It is ``clip((longest - buffer - length) / buffer, -1, 0)``, which is added to the reward of a
    verifier. A response is penalised once it is longer than ``longest - buffer``.

    Source: "soft overlong punishment" of DAPO (arXiv:2503.14476).

    Parameters
    ----------
    lengths : array_like of int
        Number of tokens of each response.
    longest, buffer : int
        L_max and L_cache in the paper, in tokens; the buffer is at least 1 and at most `longest`.

    Returns
    -------
    ndarray of float64
        The penalty, in units of reward, of the shape of `lengths`.

    Raises
    ------
    ValueError
        If `buffer` is not between 1 and `longest`.

    Examples
    --------
    >>> overlong_penalty([2, 3, 4, 5, 6], longest=5, buffer=2)
    array([ 0. ,  0. , -0.5, -1. , -1. ])
    """
    if not 1 <= buffer <= longest:
        raise ValueError(f"buffer must lie between 1 and longest, {longest}, got {buffer}")
    room = longest - buffer - np.asarray(lengths, dtype=np.float64)
    return np.clip(room / buffer, -1.0, 0.0)


check_arguments(__name__, often=("first_answer_correct",))
