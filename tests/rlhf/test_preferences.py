"""Preferences against exact probabilities."""

import re

import numpy as np
import pytest
from cat import always_the_same, describe_the_cat, random_policy

from minirl.checks import three_sigma
from minirl.rlhf.language_model import full_prefix_policy, sample_responses
from minirl.rlhf.preferences import Annotator, Pairs, Preferences, sample_pairs

CAT = describe_the_cat()
SHAPE = 2, CAT.num_responses


def three_pairs(**changes):
    fields = {"prompts": [0, 1, 0], "first": [5, 6, 7], "second": [8, 9, 1], "labels": [1, 0, 1]}
    return Preferences(**{name: np.array(value) for name, value in (fields | changes).items()})


def test_chosen_and_rejected_follow_the_label():
    pairs = three_pairs()
    assert len(pairs) == 3
    np.testing.assert_array_equal(pairs.chosen, [5, 9, 7])
    np.testing.assert_array_equal(pairs.rejected, [8, 6, 1])


@pytest.mark.parametrize(
    "selection", [slice(1, None), np.array([1, 2]), np.array([False, True, True])]
)
def test_rows_take_all_four_fields_along(selection):
    pairs = three_pairs(labels=[0.25, 0.5, 0.75]).rows(selection)
    np.testing.assert_array_equal(pairs.prompts, [1, 0])
    np.testing.assert_array_equal(pairs.first, [6, 7])
    np.testing.assert_array_equal(pairs.second, [9, 1])
    np.testing.assert_array_equal(pairs.labels, [0.5, 0.75])


@pytest.mark.parametrize("labels", [[1, 0], [True, False], np.array([1, 0], dtype="float32")])
def test_lists_become_arrays_and_labels_float64(labels):
    pairs = Preferences([0, 1], [5, 6], [8, 9], labels)
    assert pairs.labels.dtype == np.float64
    assert pairs.labels.tolist() == [1.0, 0.0]
    assert pairs.chosen.tolist() == [5, 9]


@pytest.mark.parametrize("name", ["chosen", "rejected"])
def test_a_soft_label_chooses_nothing(name):
    message = "only hard labels, 0 or 1, say which answer was chosen, got 0.5 in row 1"
    with pytest.raises(ValueError, match=message):
        getattr(three_pairs(labels=[1, 0.5, 0]), name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"second": [8, 6, 1]}, "different answers, got response 6 twice in row 1"),
        ({"labels": [0, 1.5, 0]}, "labels must lie in [0, 1], got 1.5 in row 1"),
        ({"labels": [0, 1, -0.1]}, "labels must lie in [0, 1], got -0.1 in row 2"),
        ({"labels": [np.nan, 1, 0]}, "labels must lie in [0, 1], got nan in row 0"),
        ({"labels": [[0], [1], [0]]}, "labels must be one number per pair, at least one"),
        ({"labels": []}, "labels must be one number per pair, at least one, got shape (0,)"),
        ({"prompts": [0, 1]}, "prompts must have the shape of labels, (3,), got (2,)"),
        ({"first": [[5], [6], [7]]}, "first must have the shape of labels, (3,), got (3, 1)"),
        ({"second": [8, 9, -1]}, "second must be whole numbers of at least 0, got -1"),
        ({"prompts": ["a", "b", "c"]}, "prompts must be an array of numbers, got an array of <U1"),
        ({"prompts": [0.0, 1.0, 0.0]}, "prompts must be whole numbers of at least 0, got 0.0"),
    ],
)
def test_what_is_no_preference_is_named(changes, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        three_pairs(**changes)


def test_pairs_are_the_first_that_differ_of_two_samples():
    """So P(a, b | x) is p(a) p(b) / (1 - sum p^2), and the generator has drawn no others."""
    policy = random_policy(np.random.default_rng(2))
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    prompts = ours.integers(2, size=1000)
    first, second = (sample_responses(CAT, policy, prompts, ours) for _ in range(2))
    differ = np.flatnonzero(first != second)
    pairs = sample_pairs(CAT, policy, len(differ), theirs)
    for found, drawn in ((pairs.prompts, prompts), (pairs.first, first), (pairs.second, second)):
        np.testing.assert_array_equal(found, drawn[differ])
    assert pairs.identical == differ[-1] + 1 - len(differ)
    assert theirs.random() == ours.random()


def test_there_are_as_many_pairs_as_asked_for_where_most_answers_are_alike():
    """'soft soft' with 39 tokens of 40, to either prompt: one pair in seven differs."""
    log_probs = np.full((2, CAT.num_contexts, 4), np.log(1 / 120))
    log_probs[:, :, 2] = np.log(39 / 40)
    log_probs[:, CAT.response("soft soft"), [2, 3]] = np.log([1 / 120, 39 / 40])
    pairs = sample_pairs(CAT, full_prefix_policy(CAT, log_probs), 500, np.random.default_rng(9))
    assert len(pairs.first) == 500
    assert (pairs.first != pairs.second).all()
    assert pairs.identical > 2000


def test_a_policy_with_one_answer_gives_no_pairs():
    with pytest.raises(ValueError, match="same answer twice in 1000 of 1000 pairs"):
        sample_pairs(CAT, always_the_same(), 5, np.random.default_rng(0))


def test_label_probability_by_hand():
    """Utilities 2 and 1 at temperature 1/2: sigmoid(2) = 1 / (1 + e^-2)."""
    seen = 1 / (1 + np.exp(-2))
    first, second = np.array([2.0, 1.0, 4.0]), np.array([1.0, 2.0, 4.0])
    found = Annotator(temperature=0.5).probability(first, second)
    np.testing.assert_allclose(found, [seen, 1 - seen, 0.5], rtol=1e-14)
    found = Annotator(temperature=0.5, flip=0.1).probability(first, second)
    turned = 0.9 * seen + 0.1 * (1 - seen)
    np.testing.assert_allclose(found, [turned, 1 - turned, 0.5], rtol=1e-14)


def test_labels_read_the_table_at_prompt_and_response():
    pairs = Pairs(np.array([1, 0]), np.array([3, 0]), np.array([2, 4]), identical=0)
    utilities = np.arange(10.0).reshape(2, 5) ** 2 / 10
    found = Annotator().soft(pairs, utilities)
    expected = 1 / (1 + np.exp([4.9 - 6.4, 1.6 - 0.0]))  # 8^2/10 and 7^2/10; 0 and 4^2/10
    np.testing.assert_allclose(found.labels, expected, rtol=1e-14)
    np.testing.assert_array_equal(found.first, [3, 0])
    np.testing.assert_array_equal(found.second, [2, 4])


def test_hard_labels_average_to_the_soft_ones():
    rng = np.random.default_rng(3)
    pairs = sample_pairs(CAT, random_policy(rng), 40, rng)
    for annotator in (Annotator(), Annotator(temperature=0.3, flip=0.2)):
        soft = annotator.soft(pairs, CAT.utilities).labels
        draws = [annotator.hard(pairs, CAT.utilities, rng).labels for _ in range(2000)]
        assert set(np.unique(draws)) == {0.0, 1.0}
        three_sigma(np.array(draws), soft, sigmas=4)


class Lowest:
    """A generator at its lowest: random() lies in [0, 1), so that 0 is possible."""

    def random(self, size):
        return np.zeros(size)


def test_what_has_probability_zero_is_never_preferred():
    utilities = np.zeros(SHAPE)
    utilities[0, 2] = 1e4
    pairs = Pairs(np.array([0]), np.array([1]), np.array([2]), identical=0)
    assert Annotator().soft(pairs, utilities).labels == 0.0
    assert Annotator().hard(pairs, utilities, Lowest()).labels == 0.0


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.0), ("temperature", -1.0), ("flip", 0.5), ("flip", -0.1), ("flip", np.nan)],
)
def test_an_impossible_annotator_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must .* got {value}"):
        Annotator(**{field: value})


@pytest.mark.parametrize(
    ("utilities", "message"),
    [
        (np.zeros(40), r"utilities must be a table \(X, N\)"),
        (np.full((2, 40), np.nan), "with NaN or inf"),
        (np.zeros((1, 40)), "prompts of the pairs must be whole numbers 0 .. 0, got 1"),
        (np.zeros((2, 5)), "of the pairs must be whole numbers 0 .. 4"),
    ],
)
def test_utilities_are_a_table_of_the_pairs(utilities, message):
    pairs = sample_pairs(CAT, random_policy(np.random.default_rng(1)), 50, np.random.default_rng(2))
    for function in (
        lambda: Annotator().soft(pairs, utilities),
        lambda: Annotator().hard(pairs, utilities, np.random.default_rng(0)),
        lambda: pairs.tied(utilities),
    ):
        with pytest.raises(ValueError, match=message):
            function()


def test_an_annotator_judges_pair_by_pair():
    with pytest.raises(ValueError, match=r"must have one shape, got \(3,\) and \(3, 1\)"):
        Annotator().probability(np.zeros(3), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="difference is a number"):
        Annotator().probability(np.array([np.nan]), np.zeros(1))
    certain = Annotator(temperature=1e-320).probability(np.array([1.0, 0.0]), np.array([0.0, 1.0]))
    assert certain.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("unit", [1.0, 1e-14, 1e14])
def test_ties_are_relative_to_the_utilities_of_the_prompt(unit):
    utilities = unit * np.array([[0.3, 0.1 + 0.2, 0.3 + 1e-9], [1e9, 2e9, 1e9 + 1e-4]])
    assert utilities[0, 0] != utilities[0, 1]
    pairs = Pairs(np.array([0, 0, 1, 1]), np.zeros(4, int), np.array([1, 2, 2, 1]), 0)
    assert pairs.tied(utilities).tolist() == [True, False, True, False]
