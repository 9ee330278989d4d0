"""Preferences against exact probabilities, counts made by hand, and the score's formula."""

import re
from dataclasses import replace

import numpy as np
import pytest
from cat import describe_the_cat

from minirl.checks import three_sigma
from minirl.exact import sequences
from minirl.rlhf.language_model import full_prefix_policy, log_table, sample_responses
from minirl.rlhf.preferences import (
    Annotator,
    Pairs,
    Preferences,
    Questions,
    pairs_from_scores,
    sample_pairs,
    sample_questions,
    stack_exchange_score,
)

CAT = describe_the_cat()
SHAPE = 2, CAT.num_responses


def random_policy(rng, scale=1.5):
    logits = scale * rng.standard_normal((2, CAT.num_contexts, 4))
    return full_prefix_policy(CAT, logits)


def response_probs(policy):
    return np.exp(sequences.response_log_probs(log_table(CAT, policy)))


def always_the_same():
    """Answers 'soft soft' and nothing else."""
    log_probs = np.full((2, CAT.num_contexts, 4), -1e3)
    log_probs[:, :, 2] = 0
    log_probs[:, CAT.response("soft soft"), [2, 3]] = [-1e3, 0]
    return full_prefix_policy(CAT, log_probs)


# ------------------------------------------------------------ the record


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
        ({"labels": [[0], [1], [0]]}, "labels must be one number a pair, at least one, got shape"),
        ({"labels": []}, "labels must be one number a pair, at least one, got shape (0,)"),
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


# ------------------------------------------------------------ pairs from a policy


def test_sampled_pairs_follow_the_policy_given_that_they_differ():
    """P(first = a, second = b | x) is p(a) p(b) / (1 - sum p^2) for a != b."""
    rng = np.random.default_rng(0)
    policy = random_policy(rng)
    probs = response_probs(policy)
    count = 20_000
    pairs = sample_pairs(CAT, policy, count, rng)
    assert len(pairs.prompts) == len(pairs.first) == len(pairs.second) == count
    assert (pairs.first != pairs.second).all()

    different = 1 - (probs**2).sum(axis=1)
    marginal = probs * (1 - probs) / different.sum()
    for responses in (pairs.first, pairs.second):
        seen = np.zeros(SHAPE)
        np.add.at(seen, (pairs.prompts, responses), 1)
        z = (seen - count * marginal) / np.sqrt(count * marginal * (1 - marginal))
        frequent = count * marginal > 20
        assert frequent.sum() > 40
        assert np.abs(z[frequent]).max() < 4.5
    values = rng.standard_normal(SHAPE)  # first and second are independent but for a != b
    product = values[pairs.prompts, pairs.first] * values[pairs.prompts, pairs.second]
    means, squares = (probs * values).sum(axis=1), (probs**2 * values**2).sum(axis=1)
    three_sigma(product, (means**2 - squares).sum() / different.sum(), sigmas=4)


@pytest.mark.parametrize("count", [7, 3000])
def test_identical_pairs_are_dropped_and_counted(count):
    """Until the count-th success of probability q: count (1 - q) / q failures on average."""
    rng = np.random.default_rng(1)
    policy = random_policy(rng)
    q = 1 - (response_probs(policy) ** 2).sum(axis=1).mean()
    dropped = np.array([sample_pairs(CAT, policy, count, rng).identical for _ in range(60)])
    three_sigma(dropped, count * (1 - q) / q, sigmas=4)
    assert dropped.var(ddof=1) == pytest.approx(count * (1 - q) / q**2, rel=0.8)


def test_no_more_pairs_are_drawn_than_are_needed():
    """Of the first thousand as many as are asked for differ: the generator has drawn no others."""
    policy = random_policy(np.random.default_rng(2))
    ours, theirs = np.random.default_rng(3), np.random.default_rng(3)
    prompts = ours.integers(2, size=1000)
    first, second = (sample_responses(CAT, policy, prompts, ours) for _ in range(2))
    pairs = sample_pairs(CAT, policy, np.count_nonzero(first != second), theirs)
    assert pairs.identical == np.flatnonzero(first != second)[-1] + 1 - len(pairs.prompts)
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


def test_ties_are_those_of_equal_utility_up_to_rounding():
    pairs = Pairs(np.array([0, 0, 0, 1]), np.array([0, 1, 0, 0]), np.array([1, 2, 3, 1]), 0)
    utilities = np.array([[0.3, 0.1 + 0.2, 0.3 + 1e-9, 5.0], [1.0, 2.0, 0, 0]])
    assert utilities[0, 0] != utilities[0, 1]
    np.testing.assert_array_equal(pairs.tied(utilities), [True, False, False, False])


def test_the_share_of_ties_is_exact():
    rng = np.random.default_rng(2)
    policy = random_policy(rng)
    probs, utilities = response_probs(policy), CAT.utilities
    tie = sum(
        probs[x, a] * probs[x, b]
        for x in range(2)
        for a in range(SHAPE[1])
        for b in range(SHAPE[1])
        if a != b and abs(utilities[x, a] - utilities[x, b]) < 1e-9
    )
    share = tie / (1 - (probs**2).sum(axis=1)).sum()
    three_sigma(sample_pairs(CAT, policy, 10_000, rng).tied(utilities), share, sigmas=4)


# ------------------------------------------------------------ the annotator


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


def test_a_sure_annotator_errs_only_by_flips():
    rng = np.random.default_rng(4)
    pairs = sample_pairs(CAT, random_policy(rng), 5000, rng)
    clear = ~pairs.tied(CAT.utilities)
    hard = Annotator(temperature=1e-3, flip=0.15).hard(pairs, CAT.utilities, rng).rows(clear)
    better = CAT.utilities[hard.prompts, hard.chosen] > CAT.utilities[hard.prompts, hard.rejected]
    three_sigma(better, 0.85, sigmas=4)


@pytest.mark.parametrize(
    ("field", "value"),
    [("temperature", 0.0), ("temperature", -1.0), ("flip", 0.5), ("flip", -0.1), ("flip", np.nan)],
)
def test_an_impossible_annotator_is_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} must .* got {value}"):
        Annotator(**{field: value})


# ------------------------------------------------------------ votes


@pytest.mark.parametrize(
    ("upvotes", "score"),
    # log2(1 + n) is 0, 1, 1.58, 2, 2.32, 2.58, 3, 3.46, 3.58, 10
    [
        *[(-3, None), (-1, None), (0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (7, 3)],
        *[(10, 3), (11, 4), (1023, 10)],
    ],
)
def test_scores_by_hand(upvotes, score):
    refused, accepted = stack_exchange_score([upvotes, upvotes], [False, True])
    assert (refused, accepted) == ((-1, -1) if score is None else (score, score + 1))


def test_an_answer_is_accepted_once_whatever_marks_it():
    """What counts as true adds 1, whether it is True or another number than 0."""
    np.testing.assert_array_equal(stack_exchange_score([1, 1], [0, 7]), [1, 2])


def test_scores_and_votes_are_whole_numbers():
    assert stack_exchange_score([0.0, 5.0], [True, False]).dtype == np.int64
    questions = sample_questions(
        CAT, random_policy(np.random.default_rng(0)), 3, np.random.default_rng(1)
    )
    assert questions.upvotes.dtype == np.int64
    assert questions.accepted.dtype == bool


def test_six_answers_and_noise_of_one_if_nothing_else_is_asked_for():
    policy = random_policy(np.random.default_rng(0))
    plain = sample_questions(CAT, policy, 20, np.random.default_rng(1))
    asked = sample_questions(CAT, policy, 20, np.random.default_rng(1), answers=6, noise=1.0)
    assert plain.responses.shape == (20, 6)
    np.testing.assert_array_equal(plain.upvotes, asked.upvotes)


def test_votes_without_noise_follow_the_utility():
    rng = np.random.default_rng(5)
    policy = random_policy(rng)
    asked = sample_questions(CAT, policy, 400, rng, answers=5, noise=0.0)
    assert asked.responses.shape == asked.upvotes.shape == asked.accepted.shape == (400, 5)
    for prompt, responses, votes, accepted in zip(*asked, strict=True):
        utilities = [CAT.utilities[prompt, response] for response in responses]
        assert list(votes) == [round(2**utility) - 1 for utility in utilities]
        assert all(u == max(utilities) for u in np.array(utilities)[accepted])
    assert (asked.accepted.sum(axis=1) <= 1).all()
    three_sigma(asked.accepted.any(axis=1), 0.5, sigmas=4)
    three_sigma(asked.prompts, 0.5, sigmas=4)


def test_noise_moves_votes_and_can_make_them_negative():
    rng = np.random.default_rng(6)
    asked = sample_questions(CAT, always_the_same(), 4000, rng, answers=2, noise=0.5)
    soft_cat = asked.prompts == 0  # 'soft soft' is worth 0.5 to the cat, 0 to the dog
    assert (asked.responses == CAT.response("soft soft")).all()
    # rint(2^v) - 1 < 0 where v < -1, two standard deviations below 0 and three below 0.5
    three_sigma(asked.upvotes[~soft_cat, 0] < 0, 0.0227501, sigmas=4)
    three_sigma(asked.upvotes[soft_cat, 0] < 0, 0.0013499, sigmas=4)
    took = asked.accepted[asked.accepted.any(axis=1), 0]
    three_sigma(took, 0.5, sigmas=4)
    # one person's taste is their own: the accepted answer has no more votes than the other
    ahead = np.diff(asked.upvotes[asked.accepted.any(axis=1)]).ravel()
    three_sigma(np.where(took, ahead, -ahead), 0.0, sigmas=4)


def hand_made_questions():
    """Scores -1 1 2 1 | 0 0 1 0: the first question has one tie, the second has two the same."""
    return Questions(
        prompts=np.array([1, 0]),
        responses=np.array([[10, 11, 12, 13], [20, 20, 21, 22]]),
        upvotes=np.array([[-5, 1, 3, 0], [0, 0, 1, 0]]),
        accepted=np.array([[False, False, False, True], [False] * 4]),
    )


def test_pairs_from_scores_by_hand():
    questions = hand_made_questions()
    np.testing.assert_array_equal(questions.scores, [[-1, 1, 2, 1], [0, 0, 1, 0]])
    found = pairs_from_scores(questions, np.random.default_rng(0))
    rows = [
        (prompt, chosen, rejected)
        for prompt, chosen, rejected in zip(
            found.preferences.prompts,
            found.preferences.chosen,
            found.preferences.rejected,
            strict=True,
        )
    ]
    assert sorted(rows) == [
        *[(0, 21, 20), (0, 21, 20), (0, 21, 22)],
        *[(1, 11, 10), (1, 12, 10), (1, 12, 11), (1, 12, 13), (1, 13, 10)],
    ]
    # 11 and 13 tie; 20 and 22 tie twice, as there are two 20
    assert (found.identical, found.tied, found.over_limit) == (1, 3, 0)
    # the answer given first stands first, whoever won
    assert (found.preferences.first < found.preferences.second).all()
    assert set(found.preferences.labels) == {0.0, 1.0}


def test_identical_answers_with_unequal_scores_are_left_out():
    questions = hand_made_questions()._replace(upvotes=np.array([[0, 0, 0, 0], [0, 9, 0, 0]]))
    found = pairs_from_scores(questions, np.random.default_rng(0))
    # three of four tie in the first question; 20-21, 20-22 and 21-22 in the second
    assert (found.identical, found.tied, len(found.preferences)) == (1, 6, 5)


def test_at_most_ten_pairs_a_question_each_equally_likely():
    """Six answers with unequal scores make 15 pairs, of which 10 are taken."""
    count = 3000
    questions = Questions(
        prompts=np.arange(count),
        responses=np.tile(np.arange(6), (count, 1)),
        upvotes=np.tile([0, 1, 3, 7, 15, 31], (count, 1)),
        accepted=np.zeros((count, 6), dtype=bool),
    )
    rng = np.random.default_rng(7)
    found = pairs_from_scores(questions, rng)
    taken = np.zeros((count, 6, 6))
    np.add.at(
        taken, (found.preferences.prompts, found.preferences.first, found.preferences.second), 1
    )
    assert taken.max() == 1
    assert (taken.sum(axis=(1, 2)) == 10).all()
    three_sigma(taken[:, *np.triu_indices(6, 1)], 2 / 3, sigmas=4)
    assert (found.identical, found.tied, found.over_limit) == (0, 0, 5 * count)
    fewer = pairs_from_scores(questions, rng, limit=3)
    assert (np.bincount(fewer.preferences.prompts) == 3).all()
    assert fewer.over_limit == 12 * count


def test_every_pair_of_sampled_questions_is_used_or_counted():
    rng = np.random.default_rng(8)
    asked = sample_questions(CAT, random_policy(rng), 300, rng, answers=7)
    found = pairs_from_scores(asked, rng)
    assert found.identical + found.tied + found.over_limit + len(found.preferences) == 300 * 21
    assert min(found.identical, found.tied, found.over_limit) > 0
    useful = [
        sum(
            a != b and s != t
            for i, (a, s) in enumerate(zip(responses, scores, strict=True))
            for b, t in zip(responses[:i], scores[:i], strict=True)
        )
        for responses, scores in zip(asked.responses, asked.scores, strict=True)
    ]
    # the prompt does not say which question a pair is from, but all of a prompt's pairs add up
    taken = np.bincount(asked.prompts, np.minimum(useful, 10))
    np.testing.assert_array_equal(np.bincount(found.preferences.prompts), taken)


def test_scores_that_all_tie_give_no_pairs():
    questions = hand_made_questions()._replace(
        upvotes=np.zeros((2, 4)), accepted=np.zeros((2, 4), dtype=bool)
    )
    message = "unequal scores at least once, got 1 identical pairs and 11 ties"
    with pytest.raises(ValueError, match=message):
        pairs_from_scores(questions, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda rng: sample_pairs(CAT, random_policy(rng), 0, rng), "count must be a whole number"),
        (lambda rng: sample_questions(CAT, random_policy(rng), 2.5, rng), "count must be a whole"),
        (
            lambda rng: sample_questions(CAT, random_policy(rng), 2, rng, answers=0),
            "answers must be a whole number",
        ),
        (
            lambda rng: sample_questions(CAT, random_policy(rng), 2, rng, noise=-1.0),
            "noise must be a finite number of at least 0",
        ),
        (
            lambda rng: pairs_from_scores(hand_made_questions(), rng, limit=0),
            "limit must be a whole number",
        ),
    ],
)
def test_impossible_requests_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.random.default_rng(0))


# ------------------------------------------------------------ too large, or no numbers


@pytest.mark.parametrize(("utility", "noise"), [(63.0, 0.0), (1e300, 0.0), (0.0, 1e300)])
def test_votes_beyond_an_int64_are_refused(utility, noise):
    """2^63 became the smallest int64: the best answer got the fewest votes."""
    rng = np.random.default_rng(0)
    task = replace(CAT, utility=lambda prompt, words, cut: utility if "cat" in words else 0.0)
    with pytest.raises(ValueError, match=r"utility \+ noise must be below 62, .* scale the task"):
        sample_questions(task, random_policy(rng), 50, rng, noise=noise)


def test_votes_below_the_limit_keep_the_order():
    rng = np.random.default_rng(0)
    task = replace(CAT, utility=lambda prompt, words, cut: 61.0 if "cat" in words else -1e300)
    questions = sample_questions(task, random_policy(rng), 50, rng, noise=0.0)
    better = np.array(["cat" in CAT.text(r) for r in questions.responses.ravel()])
    assert (questions.upvotes.ravel() == np.where(better, 2**61 - 1, -1)).all()


def test_the_score_of_the_most_votes_that_fit():
    most = np.iinfo(np.int64).max
    assert stack_exchange_score([most, -most], True).tolist() == [64, -1]
    with pytest.raises(ValueError, match="upvotes must be finite numbers"):
        stack_exchange_score([1.0, np.nan], False)


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
    utilities = np.zeros((2, 3))
    utilities[0] = unit * np.array([0.3, 0.1 + 0.2, 0.3 + 1e-9])
    utilities[1] = 1e9 * unit
    pairs = Pairs(np.zeros(2, int), np.array([0, 0]), np.array([1, 2]), 0)
    assert pairs.tied(utilities).tolist() == [True, False]
