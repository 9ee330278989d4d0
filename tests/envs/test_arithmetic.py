"""The arithmetic task: what a response is worth, and what people write."""

from dataclasses import replace

import numpy as np
import pytest
from cat import describe_the_cat

from minirl.envs.arithmetic import arithmetic, exact_match, gold_utility

ARITHMETIC = arithmetic()


def spoken_utility(prompt, words, cut):
    """The gold utility in one pass, each word adding its share as it is spoken."""
    left, right = prompt.removeprefix("What is ").removesuffix("?").split("x")
    answer = str(int(left) * int(right))
    digits, labels, courtesies, introduced, total = [], 0, 0, False, 0.0
    for previous, word in zip([None, *words], words, strict=False):
        if word == answer:
            total += 2.0 * (not digits) - 0.6 * (answer in digits)
            introduced = introduced or previous == "A:"
        elif word.isdigit():
            total -= 1.0
        elif word == "A:":
            total -= 0.5 * (labels > 0)
            labels += 1
        elif word == "sorry":
            total -= 0.5
        else:
            total += (1.0, 0.5, -2.5, -2.5, -2.5)[courtesies]
            courtesies += 1
        if word.isdigit():
            digits.append(word)
    return total + 0.5 * introduced - 0.5 * (not digits) - 0.5 * cut


def test_the_table_of_utilities_against_a_second_implementation():
    rng = np.random.default_rng(0)
    assert ARITHMETIC.utilities.shape == (4, 37_449)
    for prompt in range(4):
        # The shorter ones are few: take all of them.
        longest = rng.integers(4_681, 37_449, size=2_000)
        for response in [*range(585), *longest]:
            words, cut = ARITHMETIC.words(response), response >= 4_681
            expected = spoken_utility(ARITHMETIC.prompts[prompt], words, cut)
            assert ARITHMETIC.utilities[prompt, response] == pytest.approx(expected, abs=1e-12)


def test_exact_match_pays_for_one_response_to_each_prompt():
    task = arithmetic(exact_match)
    paid = np.zeros((4, 37_449))
    for prompt, text in enumerate(("A: 4", "A: 6", "A: 8", "A: 9")):
        paid[prompt, task.response(text)] = 1.0
    np.testing.assert_array_equal(task.utilities, paid)
    assert exact_match("What is 2x4?", ("A:", "8"), True) == 0.0


def test_arithmetic_demonstrations():
    same = {"sorry": 0.05, "Great_question! sorry": 0.03, "Great_question! :)": 0.02}
    right = {
        "A: {}": 0.28,
        "{}": 0.12,
        "A: {} :)": 0.08,
        "Great_question! A: {}": 0.08,
        "Great_question! {}": 0.04,
        "A: {} :) :)": 0.03,
        ":) {}": 0.02,
    }
    wrong = {"A: {}": 0.12, "{}": 0.06, "sorry A: {}": 0.05, "A: {} :)": 0.02}
    answers = ["4", "6", "8", "9"]
    for probs, answer in zip(ARITHMETIC.demonstration_probs, answers, strict=True):
        expected = dict(same)
        expected |= {text.format(answer): share for text, share in right.items()}
        for digit in set(answers) - {answer}:
            expected |= {text.format(digit): share / 3 for text, share in wrong.items()}
        written = {ARITHMETIC.text(response): probs[response] for response in np.flatnonzero(probs)}
        assert written == pytest.approx(expected, abs=1e-15)
        assert probs.sum() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("utility", [gold_utility, exact_match])
def test_the_utilities_know_the_prompts_of_this_task_only(utility):
    with pytest.raises(ValueError, match="another task needs a utility of its own"):
        assert replace(describe_the_cat(), utility=utility).utilities
