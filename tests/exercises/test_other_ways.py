"""Unusual right answers are right, lucky ones are wrong, and no answer makes a check fail."""

import numpy as np
import pytest

from minirl.exercises import advantages, dpo, language_model, ppo, silent_bugs, trust_regions

ANSWERS = [
    # letters in any order and container
    *((dpo.unchanged, x, "right") for x in ("AD", "d, a", ["A", "D"], ("D", "A"), {"A", "D"})),
    *((dpo.unchanged, x, "wrong") for x in ("", "A", ["A", "B", "D"], ["AD", 1], 3)),
    (ppo.far_but_free, [0.0, np.nan, 1.0], "wrong"),
    (advantages.which_end, [...] * 4, "unanswered"),
    # dots anywhere are no answer
    *(
        (check, answer, "unanswered")
        for check in (silent_bugs.diagnosis, silent_bugs.gae_test, ppo.far_but_free)
        for answer in (..., None, [..., ..., ...], [...] * 4)
    ),
]


@pytest.mark.parametrize(("check", "answer", "outcome"), ANSWERS)
def test_outcomes(check, answer, outcome):
    assert check(answer).outcome == outcome


def test_a_reward_recovered_with_a_beta_of_ones_own_is_wrong():
    def recovered(log_optimum, log_reference, beta):
        implicit = beta * (log_optimum - log_reference)
        return implicit - (np.exp(log_reference) * implicit).sum(axis=1, keepdims=True)

    assert dpo.recovered_reward(recovered)
    hard_coded = dpo.recovered_reward(lambda own, reference, _: recovered(own, reference, dpo.BETA))
    assert hard_coded.outcome == "wrong"


def test_a_test_of_gae_may_pass_the_masks_by_name():
    def my_test(gae):
        rewards = np.array([[1.0], [100.0], [1.0]])
        terminated = np.array([[True], [False], [False]])
        truncated = np.array([[False], [True], [False]])
        estimate = gae(
            rewards=rewards,
            values=0 * rewards,
            next_values=np.full((3, 1), 10.0),
            terminated=terminated,
            truncated=truncated,
            discount=0.5,
            lam=1.0,
        )
        np.testing.assert_allclose(estimate.ravel(), [1.0, 105.0, 6.0])

    assert silent_bugs.gae_test(my_test)


@pytest.mark.parametrize("within", [np.less, np.less_equal])
@pytest.mark.parametrize("better", [np.greater, np.greater_equal])
def test_a_line_search_must_be_right_at_its_boundaries(within, better):
    def accepted(fractions, kls, improvements, max_kl):
        passes = within(kls, max_kl) & better(improvements, 0)
        return fractions[passes.argmax()] if passes.any() else 0.0

    right = within is np.less_equal and better is np.greater
    assert trust_regions.accepted_fraction(accepted).outcome == ("right" if right else "wrong")


@pytest.mark.parametrize("check", [silent_bugs.diagnosis, silent_bugs.gae_test, ppo.far_but_free])
@pytest.mark.parametrize("answer", ["abc", 3, [[1.0], [2.0, 3.0]], np.ones(2)])
def test_answers_of_another_kind_are_told_what_to_give(check, answer):
    result = check(answer)
    assert result.outcome == "wrong"
    assert result.message.startswith("Not yet: give ")


def test_a_test_that_never_calls_its_gae_is_unanswered_and_told_why():
    def stub(gae): ...

    def own(gae):
        np.testing.assert_allclose(np.ones(3).cumsum(), [1, 2, 3])

    def raising(gae):
        raise AssertionError

    for test in (stub, own, raising):
        verdict = silent_bugs.gae_test(test)
        assert verdict.outcome == "unanswered"
        assert verdict.message == "Not answered yet: the test never calls the gae it is given."


@pytest.mark.parametrize("answer", [True, [], [True], [True] * 3, [True] * 5, "death"])
def test_four_ends_need_four_answers(answer):
    message = advantages.which_end(answer).message
    assert message == "Not yet: give four answers, one for each end."


def test_the_formula_of_the_geometric_series_gets_a_hint_instead_of_an_error():
    verdict = language_model.num_responses(lambda W, L: (W ** (L + 1) - 1) // (W - 1))
    assert verdict.outcome == "wrong"
    assert "W - 1 = 0" in verdict.message


@pytest.mark.parametrize("result", [np.tri(8), (np.tri(3), np.arange(3)), (1.0, 2.0), 0])
def test_a_packed_block_needs_a_mask_and_position_ids(result):
    verdict = language_model.packed_block(lambda block, first_prompt: result)
    assert verdict.message.startswith("Not yet: return two arrays")
