"""Sums as a token task: its prompts, verifier, demonstrations and features."""

import numpy as np
import pytest

from minirl.envs.addition import addition, exact_sum, operand_features, operands_of
from minirl.envs.arithmetic import arithmetic


def test_prompts_are_all_sums_and_the_vocabulary_is_all_digits_of_their_answers():
    task = addition()
    assert task.prompts[:2] == ("0+0", "0+1")
    assert task.prompts[-1] == "5+5"
    assert len(task.prompts) == 36
    assert task.vocabulary == (*"0123456789", "<eos>")
    assert task.num_responses == 1 + 10 + 100 + 1000
    assert addition(2).vocabulary == (*"01234", "<eos>")
    assert addition() is addition()


@pytest.mark.parametrize("largest", [1, 5])
def test_exactly_one_response_to_each_prompt_is_right(largest):
    task = addition(largest)
    assert (task.utilities.sum(axis=1) == 1).all()
    for prompt, row in zip(task.prompts, task.utilities, strict=True):
        right = task.text(int(row.argmax())).replace(" ", "")
        assert int(right) == sum(int(operand) for operand in prompt.split("+"))


def test_an_answer_that_is_cut_or_longer_is_wrong():
    assert exact_sum("5+5", ("1", "0"), False) == 1
    assert exact_sum("5+5", ("1", "0"), True) == 0
    assert exact_sum("5+5", ("1", "0", "0"), False) == 0
    assert exact_sum("1+2", ("0", "3"), False) == 0


@pytest.mark.parametrize("right", [0.0, 0.3, 1.0])
def test_demonstrations_are_right_with_the_stated_probability(right):
    task = addition(right=right)
    probs = task.demonstration_probs
    np.testing.assert_allclose((probs * task.utilities).sum(axis=1), right, atol=1e-15)
    wrong = probs[task.utilities == 0].reshape(36, -1)
    assert ((wrong > 0).sum(axis=1) == (10 if right < 1 else 0)).all()
    np.testing.assert_allclose(wrong[wrong > 0], (1 - right) / 10, atol=1e-15)


def test_features_are_the_operands_as_one_hot_or_as_numbers():
    task = addition(2)
    row = task.prompt("2+1")
    one_hot = operand_features(task, "one-hot")
    np.testing.assert_array_equal(one_hot[row], [0, 0, 1, 0, 1, 0])
    np.testing.assert_array_equal(operand_features(task)[row], [1.0, 0.5])
    for kind in ("one-hot", "numbers"):
        assert len(np.unique(operand_features(task, kind), axis=0)) == 9
    with pytest.raises(ValueError, match='^kind must be "one-hot" or "numbers", got \'both\''):
        operand_features(task, "both")
    with pytest.raises(ValueError, match="^prompt must be a sum of two numbers"):
        operand_features(arithmetic())


def test_bad_arguments_are_named():
    for largest in (0, 10, 2.5):
        with pytest.raises(ValueError, match="^largest must be"):
            addition(largest)
    with pytest.raises(ValueError, match=r"^right must lie in \[0, 1\], got 1.5"):
        addition(right=1.5)
    for prompt in ("2", "2+", "a+b", "1+2+3"):
        with pytest.raises(ValueError, match="^prompt must be a sum of two numbers"):
            operands_of(prompt)
