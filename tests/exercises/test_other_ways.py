"""Right answers written in an unusual way are right, and a lucky constant is not."""

import numpy as np
import pytest

from minirl.exercises import dpo, silent_bugs


@pytest.mark.parametrize("answer", ["AD", "d, a", ["A", "D"], ("D", "A"), {"A", "D"}])
def test_letters_in_any_order_and_container(answer):
    assert dpo.unchanged(answer)


@pytest.mark.parametrize("answer", ["", "A", ["A", "B", "D"], ["AD", 1], 3])
def test_other_letters_are_wrong(answer):
    assert dpo.unchanged(answer).outcome == "wrong"


def test_a_reward_recovered_with_a_beta_of_ones_own_is_wrong():
    def recovered(log_optimum, log_reference, beta):
        found = beta * (log_optimum - log_reference)
        return found - (np.exp(log_reference) * found).sum(axis=1, keepdims=True)

    assert dpo.recovered_reward(recovered)
    hard_coded = dpo.recovered_reward(lambda own, reference, _: recovered(own, reference, dpo.BETA))
    assert hard_coded.outcome == "wrong"


def test_a_test_of_gae_may_pass_the_masks_by_name():
    def my_test(gae):
        rewards = np.array([[1.0], [100.0], [1.0]])
        terminated = np.array([[True], [False], [False]])
        truncated = np.array([[False], [True], [False]])
        found = gae(
            rewards=rewards,
            values=0 * rewards,
            next_values=np.full((3, 1), 10.0),
            terminated=terminated,
            truncated=truncated,
            discount=0.5,
            lam=1.0,
        )
        np.testing.assert_allclose(found.ravel(), [1.0, 105.0, 6.0])

    assert silent_bugs.gae_test(my_test)
