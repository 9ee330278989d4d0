"""Tasks with verifiable rewards: the reward of a response is 1 if a verifier accepts it, else 0.

`verifiable` is the arithmetic task of `arithmetic.py` with a verifier in place of the utility.
Its prompts may differ in difficulty: `success_rates` sets how often the demonstrations are right,
and a reference that is fine-tuned on them inherits these rates.
"""

from collections.abc import Sequence
from functools import cache

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
    """The arithmetic task with rewards 0 and 1.

    Parameters
    ----------
    verifier : callable
        `exact_match`, `first_answer_correct`, or another verifier(prompt, words, cut) -> 0 or 1.
    success_rates : tuple of float, optional
        How often the demonstrations of each of the four prompts are right, for example `UNEQUAL`.
        Default: 0.65 for each, as in `arithmetic`.
    """
    if success_rates is None:
        return arithmetic(verifier)
    if len(success_rates) != len(ANSWERS):
        raise ValueError(
            f"success_rates must be {len(ANSWERS)} numbers, one per prompt, got {success_rates!r}"
        )
    easy = arithmetic(verifier)
    rates = dict(zip(ANSWERS, success_rates, strict=True))
    return TokenTask(
        prompts=easy.prompts,
        vocabulary=easy.vocabulary,
        max_words=easy.max_words,
        utility=verifier,
        demonstrations=lambda prompt: demonstrations_with_rate(prompt, rates[prompt]),
    )


check_arguments(__name__, often=("first_answer_correct",))
