"""Verifiers and prompts of unequal difficulty."""

import numpy as np
import pytest

from minirl.envs.arithmetic import ANSWERS, arithmetic, arithmetic_demonstrations, exact_match
from minirl.envs.verifiable import (
    UNEQUAL,
    demonstrations_with_rate,
    first_answer_correct,
    overlong_penalty,
    verifiable,
)


@pytest.mark.parametrize(
    ("words", "verdict"),
    [("8", 1), ("A: 8 9", 1), ("sorry 8 4", 1), ("9 8", 0), ("A: :)", 0), ("", 0)],
)
def test_the_first_digit_decides(words, verdict):
    assert first_answer_correct("What is 2x4?", words.split(), False) == verdict


def test_a_prompt_of_another_task_is_refused():
    with pytest.raises(ValueError, match="prompt must be one of the arithmetic task's.*2x5"):
        first_answer_correct("What is 2x5?", ("8",), False)


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.9, 1.0])
def test_demonstrations_are_right_at_the_rate(rate):
    given, plain = (
        demonstrations_with_rate("What is 3x3?", rate),
        arithmetic_demonstrations("What is 3x3?"),
    )
    right = [text for text in given if first_answer_correct("What is 3x3?", text.split(), False)]
    assert sum(given[text] for text in right) == pytest.approx(rate, abs=1e-15)
    assert sum(given.values()) == pytest.approx(1, abs=1e-15)
    assert given["A: 9"] * plain["9"] == pytest.approx(given["9"] * plain["A: 9"])


def test_the_task_has_the_verifiers_rewards_and_the_rates():
    task = verifiable(first_answer_correct, success_rates=UNEQUAL)
    assert set(np.unique(task.utilities)) == {0.0, 1.0}
    rates = (task.demonstration_probs * task.utilities).sum(axis=1)
    np.testing.assert_allclose(rates, UNEQUAL, rtol=1e-14)
    assert verifiable() is arithmetic(exact_match)
    equal = verifiable(first_answer_correct)
    np.testing.assert_allclose((equal.demonstration_probs * equal.utilities).sum(axis=1), 0.65)
    assert verifiable(success_rates=UNEQUAL) is verifiable(success_rates=UNEQUAL)


def test_bad_rates():
    with pytest.raises(ValueError, match=f"success_rates must be {len(ANSWERS)} numbers"):
        verifiable(success_rates=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 1\], got 1.5"):
        demonstrations_with_rate("What is 3x3?", 1.5)


def test_a_verifier_that_returns_something_else_is_named_with_the_response():
    def half(prompt, words, cut):
        return 0.5 if words == ("A:", "8") else 1.0

    def spoken(prompt, words, cut):
        return "yes" if words == ("A:", "8") else 1.0

    message = "^verifier must return 0 or 1, got 0.5 for 'A: 8' to 'What is 2x2.'; use arithmetic"
    for rates in (None, UNEQUAL):
        with pytest.raises(ValueError, match=message):
            verifiable(half, success_rates=rates)
    with pytest.raises(ValueError, match="must return a finite number, got 'yes' for 'A: 8' to"):
        verifiable(spoken)
    assert verifiable(lambda prompt, words, cut: words == ("A:", "8")).utilities.max() == 1


def test_the_overlong_penalty_falls_within_the_buffer():
    lengths = np.arange(12)
    penalty = overlong_penalty(lengths, longest=10, buffer=4)
    expected = [0, 0, 0, 0, 0, 0, 0, -0.25, -0.5, -0.75, -1, -1]
    np.testing.assert_allclose(penalty, expected, rtol=0, atol=1e-15)
    assert not np.signbit(penalty[0])
    at_once = overlong_penalty(lengths, longest=10, buffer=1)
    np.testing.assert_allclose(at_once, -1.0 * (lengths >= 10))
    for buffer in (0, 11):
        with pytest.raises(ValueError, match=f"between 1 and longest, 10, got {buffer}"):
            overlong_penalty(lengths, longest=10, buffer=buffer)
