"""The exact objective against plain sums, its optimum against the tilted reference."""

import numpy as np
import pytest
from cat import describe_the_cat
from scipy.special import log_softmax

from minirl.exact import sequences
from minirl.rlhf.language_model import full_prefix_policy, log_table
from minirl.rlhf.objective import Objective, reward_by_prompt

CAT = describe_the_cat()
UTILITIES = CAT.utilities


def random_policy(seed, scale=1.0):
    logits = scale * np.random.default_rng(seed).normal(size=(2, 13, 4))
    return full_prefix_policy(CAT, log_softmax(logits, axis=2))


REFERENCE = random_policy(0)
OBJECTIVE = Objective(CAT, REFERENCE, UTILITIES, 0.3)


def test_the_objective_against_plain_sums():
    policy, rewards = random_policy(5), np.random.default_rng(6).normal(size=UTILITIES.shape)
    own, theirs = (
        sequences.response_log_probs(log_table(CAT, model)) for model in (policy, REFERENCE)
    )
    reward = (np.exp(own) * rewards).sum() / 2
    kl = (np.exp(own) * (own - theirs)).sum() / 2
    objective = Objective(CAT, REFERENCE, rewards, 0.7)
    found = objective.value(policy)
    assert found.reward == pytest.approx(reward, abs=1e-12)
    assert found.kl == pytest.approx(kl, abs=1e-12)
    assert found.objective == pytest.approx(reward - 0.7 * kl, abs=1e-12)
    assert objective.measure(policy) == {
        "exact_objective": found.objective,
        "exact_reward": found.reward,
        "exact_reference_kl": found.kl,
    }


def test_the_optimum_is_the_tilted_reference():
    """pi*(y|x) = ref(y|x) exp(r / beta) / Z(x) and J* = beta mean log Z, by enumeration."""
    theirs = np.exp(sequences.response_log_probs(log_table(CAT, REFERENCE)))
    weights = theirs * np.exp(UTILITIES / 0.3)
    totals = weights.sum(axis=1, keepdims=True)
    best = np.exp(sequences.response_log_probs(log_table(CAT, OBJECTIVE.optimal_policy)))
    np.testing.assert_allclose(best, weights / totals, rtol=0, atol=1e-12)
    assert OBJECTIVE.optimum == pytest.approx(0.3 * np.log(totals).mean(), abs=1e-12)


def test_the_fraction_of_the_optimum():
    assert OBJECTIVE.fraction_of_optimum(REFERENCE) == 0.0
    assert OBJECTIVE.fraction_of_optimum(OBJECTIVE.optimal_policy) == 1.0
    assert OBJECTIVE.fraction_of_optimum(random_policy(7)) < 1
    opposite = Objective(CAT, REFERENCE, -UTILITIES, 0.3).optimal_policy
    assert OBJECTIVE.fraction_of_optimum(opposite) < -0.5
    start, best = OBJECTIVE.value(REFERENCE).objective, OBJECTIVE.optimum
    halfway = random_policy(8)
    expected = (OBJECTIVE.value(halfway).objective - start) / (best - start)
    assert OBJECTIVE.fraction_of_optimum(halfway) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("rewards", [np.zeros((2, 40)), np.full((2, 40), 0.1)])
@pytest.mark.parametrize("beta", [1e-3, 0.3, 1e3])
def test_with_nothing_to_gain_there_is_no_fraction(rewards, beta):
    """0 / 0, or rounding over rounding: once 1.5e15."""
    objective = Objective(CAT, REFERENCE, rewards, beta)
    for function in (
        lambda: objective.fraction_of_optimum(random_policy(1)),
        lambda: objective.fraction_reached(0.3),
    ):
        with pytest.raises(ValueError, match="there is nothing to gain: the reference is the opt"):
            function()


def test_a_reference_that_is_the_optimum_already_has_nothing_to_gain():
    best = np.full((2, 13, 4), -np.inf)
    best[:, :, 3] = 0.0
    objective = Objective(CAT, full_prefix_policy(CAT, best), UTILITIES, 0.3)
    with pytest.raises(ValueError, match="there is nothing to gain"):
        objective.fraction_of_optimum(objective.reference)


def test_the_fraction_reached_by_a_value():
    start, best = OBJECTIVE.reference_value, OBJECTIVE.optimum
    assert OBJECTIVE.fraction_reached(start) == 0.0
    assert OBJECTIVE.fraction_reached(best) == 1.0
    assert OBJECTIVE.fraction_reached(0.75 * start + 0.25 * best) == pytest.approx(0.25)


def test_the_reward_of_each_prompt_against_plain_sums():
    probs = np.exp(sequences.response_log_probs(log_table(CAT, REFERENCE)))
    for rewards in (None, np.random.default_rng(1).normal(size=UTILITIES.shape)):
        rows = zip(probs, UTILITIES if rewards is None else rewards, strict=True)
        expected = [sum(p * r for p, r in zip(*row, strict=True)) for row in rows]
        np.testing.assert_allclose(reward_by_prompt(CAT, REFERENCE, rewards), expected, atol=1e-13)
    assert reward_by_prompt(CAT, REFERENCE).mean() == pytest.approx(OBJECTIVE.reference_value)
    with pytest.raises(ValueError, match=r"rewards must have shape \(2, 40\)"):
        reward_by_prompt(CAT, REFERENCE, np.zeros((2, 3)))
