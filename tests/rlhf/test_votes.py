"""Votes and scores against counts made by hand, and the score's formula."""

from dataclasses import replace

import numpy as np
import pytest
from cat import always_the_same, describe_the_cat, random_policy

from minirl.checks import three_sigma
from minirl.rlhf.preferences import sample_pairs
from minirl.rlhf.votes import Questions, pairs_from_scores, sample_questions, stack_exchange_score

CAT = describe_the_cat()


@pytest.mark.parametrize(
    ("upvotes", "score"),
    # log2(1 + n) is 0, 1, 1.58, 2, 2.32, 2.58, 3, 3.46, 3.58, 10
    [
        *[(-3, None), (-1, None), (0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (7, 3)],
        *[(10, 3), (11, 4), (1023, 10)],
    ],
)
def test_scores_by_hand(upvotes, score):
    refused, accepted = stack_exchange_score([upvotes, upvotes], [0, 7])  # 7 is true
    assert (refused, accepted) == ((-1, -1) if score is None else (score, score + 1))


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


def test_scores_that_all_tie_give_no_pairs():
    questions = hand_made_questions()._replace(
        upvotes=np.zeros((2, 4)), accepted=np.zeros((2, 4), dtype=bool)
    )
    message = "unequal scores at least once, got 1 identical pairs and 11 ties"
    with pytest.raises(ValueError, match=message):
        pairs_from_scores(questions, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("count", "options", "message"),
    [
        (2.5, {}, "count must be a whole"),
        (2, {"answers": 0}, "answers must be a whole number"),
        (2, {"noise": -1.0}, "noise must be a finite number of at least 0"),
    ],
)
def test_impossible_requests_are_named(count, options, message):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        sample_questions(CAT, random_policy(rng), count, rng, **options)
    with pytest.raises(ValueError, match="limit must be a whole number"):
        pairs_from_scores(hand_made_questions(), rng, limit=0)
    with pytest.raises(ValueError, match="count must be a whole number"):
        sample_pairs(CAT, random_policy(rng), 0, rng)


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
