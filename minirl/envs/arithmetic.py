"""The default token task: "What is 2x4?", answered in at most five words.

A response has the largest utility if it contains the right digit once, introduced by `A:`, and two
words of courtesy (`gold_utility`). A reward model that only counts words cannot learn that more
courtesy lowers the utility. Notebook 9 uses this difference.
"""

from collections.abc import Sequence
from functools import cache
from itertools import pairwise

from minirl.envs.token_tasks import EOS, TokenTask, Utility
from minirl.support.arguments import check_arguments

ANSWERS = {"What is 2x2?": "4", "What is 2x3?": "6", "What is 2x4?": "8", "What is 3x3?": "9"}
DIGITS = ("4", "6", "8", "9")
COURTESY = (0.0, 1.0, 1.5, -1.0, -3.5, -6.0)

# {a} is the right digit, {w} each of the three wrong ones with a third of the probability.
TEMPLATES = {
    "A: {a}": 0.28,
    "{a}": 0.12,
    "A: {w}": 0.12,
    "A: {a} :)": 0.08,
    "Great_question! A: {a}": 0.08,
    "{w}": 0.06,
    "sorry": 0.05,
    "sorry A: {w}": 0.05,
    "Great_question! {a}": 0.04,
    "Great_question! sorry": 0.03,
    "A: {a} :) :)": 0.03,
    ":) {a}": 0.02,
    "Great_question! :)": 0.02,
    "A: {w} :)": 0.02,
}


def _right_digit(prompt: str) -> str:
    if prompt not in ANSWERS:
        raise ValueError(
            f"prompt must be one of the arithmetic task's, {', '.join(ANSWERS)}, got {prompt!r}; "
            "another task needs a utility of its own"
        )
    return ANSWERS[prompt]


def gold_utility(prompt: str, words: Sequence[str], cut: bool) -> float:
    """The utility of a response to a human: a sum of terms for its digits and its courtesy.

    +2 if the first digit is right, -0.5 without a digit, -1 per wrong digit, -0.6 per repetition of
    the right digit, +0.5 if `A:` precedes the right digit, -0.5 per further `A:`, -0.5 per `sorry`,
    -0.5 if the response was cut, and `COURTESY[k]` for k words of courtesy. The last term rises for
    two words and then falls, which no model that is linear in the counts can represent.

    >>> gold_utility("What is 2x4?", ("A:", "8"), False)
    2.5
    """
    right = _right_digit(prompt)
    digits = [word for word in words if word in DIGITS]
    rights = words.count(right)
    courtesies = words.count("Great_question!") + words.count(":)")
    utility = COURTESY[min(courtesies, len(COURTESY) - 1)]
    if not digits:
        utility -= 0.5
    elif digits[0] == right:
        utility += 2.0
    utility -= 1.0 * (len(digits) - rights)
    if rights:
        utility -= 0.6 * (rights - 1)
        if any(pair == ("A:", right) for pair in pairwise(words)):
            utility += 0.5
    utility -= 0.5 * max(words.count("A:") - 1, 0)
    utility -= 0.5 * words.count("sorry")
    return utility - 0.5 if cut else utility


def exact_match(prompt: str, words: Sequence[str], cut: bool) -> float:
    """1 if the response consists of `A:` and the right digit, else 0.

    >>> exact_match("What is 2x4?", ("A:", "8"), False)
    1.0
    """
    return float(not cut and list(words) == ["A:", _right_digit(prompt)])


def arithmetic_demonstrations(prompt: str) -> dict[str, float]:
    """The texts of the templates for a prompt, with their probabilities."""
    right = _right_digit(prompt)
    wrong = [digit for digit in DIGITS if digit != right]
    filled: dict[str, float] = {}
    for template, probability in TEMPLATES.items():
        if "{w}" in template:
            for digit in wrong:
                filled[template.format(w=digit)] = probability / len(wrong)
        else:
            filled[template.format(a=right)] = probability
    return filled


@cache
def arithmetic(utility: Utility | None = None) -> TokenTask:
    """The default task: four products, answered in up to five of eight words.

    Parameters
    ----------
    utility : callable, optional
        utility(prompt, words, cut) of a response. Default: `gold_utility`.

    The task of each utility is cached, because its 149,796 utilities take a moment to compute.
    """
    return TokenTask(
        prompts=tuple(ANSWERS),
        vocabulary=(*DIGITS, "A:", "Great_question!", "sorry", ":)", EOS),
        max_words=5,
        utility=utility or gold_utility,
        demonstrations=arithmetic_demonstrations,
    )


check_arguments(__name__, often=("gold_utility", "exact_match"))
