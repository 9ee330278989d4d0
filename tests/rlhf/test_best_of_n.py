"""Best-of-n against a loop over the same draws; and what it is worth on the task."""

import numpy as np
import pytest
from cat import describe_the_cat
from scipy.special import log_softmax

from minirl.envs.arithmetic import arithmetic
from minirl.exact import sequences
from minirl.rlhf.best_of_n import sample_best_of_n
from minirl.rlhf.language_model import full_prefix_policy, log_table, sample_responses
from minirl.rlhf.objective import Objective
from minirl.rlhf.sft import fine_tune, sample_demonstrations

CAT = describe_the_cat()
LOG_PROBS = log_softmax(0.7 * np.random.default_rng(0).normal(size=(2, 13, 4)), axis=2)
REFERENCE = full_prefix_policy(CAT, LOG_PROBS)


def test_the_best_of_the_draws_that_were_made_and_the_first_of_equals():
    """Against a loop over the same draws."""
    prompts, n = np.tile([1, 0, 1], 100), 6
    best = sample_best_of_n(CAT, REFERENCE, prompts, CAT.utilities, n, np.random.default_rng(4))
    draws = sample_responses(CAT, REFERENCE, np.repeat(prompts, n), np.random.default_rng(4))
    ties = 0
    for row, prompt in enumerate(prompts):
        candidates = draws[row * n : row * n + n].tolist()
        utilities = [CAT.utilities[prompt, candidate] for candidate in candidates]
        expected = candidates[utilities.index(max(utilities))]
        ties += len({c for c, u in zip(candidates, utilities, strict=True) if u == max(utilities)})
        assert best[row] == expected
    assert ties > 350  # often more than one answer is best


@pytest.mark.parametrize("as_good", [0.1 + 0.2, 0.3 + 1e-14])
def test_rounding_does_not_choose_among_equals(as_good):
    """To 1e-13 of the largest reward; only the order of drawing decides, as in the exact side."""
    rewards = np.zeros((2, 40))
    rewards[:, ::2], rewards[:, 1::2] = as_good, 0.3
    assert rewards[0, 0] != rewards[0, 1]
    prompts = np.tile([0, 1], 200)
    best = sample_best_of_n(CAT, REFERENCE, prompts, rewards, 4, np.random.default_rng(5))
    draws = sample_responses(CAT, REFERENCE, np.repeat(prompts, 4), np.random.default_rng(5))
    assert np.array_equal(best, draws.reshape(-1, 4)[:, 0])


# Mean over 100 corpora (seeds 0 .. 99) and about three standard deviations; none was further away.
FRACTIONS = {4: (0.8365, 0.010), 8: (0.9463, 0.008), 16: (0.9847, 0.004), 64: (0.9626, 0.007)}


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_what_it_reaches_on_the_arithmetic_task(seed):
    """It rises and falls: more draws than that pay more KL than they earn, at beta = 0.3."""
    task = arithmetic()
    corpus = sample_demonstrations(task, 2000, np.random.default_rng(seed))
    reference = fine_tune(task, corpus).policy
    objective = Objective(task, reference, task.utilities, 0.3)
    responses = sequences.response_log_probs(log_table(task, reference))
    start = objective.value(reference).objective
    fractions = {}
    for n, (expected, tolerance) in FRACTIONS.items():
        log_probs = sequences.best_of_n(responses, task.utilities, n)
        reward = sequences.expected_reward(log_probs, task.utilities)
        kl = sequences.kl(log_probs, responses)
        fractions[n] = (reward - 0.3 * kl - start) / (objective.optimum - start)
        assert fractions[n] == pytest.approx(expected, abs=tolerance)
    assert fractions[4] < fractions[8] < fractions[64] < fractions[16] < 1


@pytest.mark.parametrize("n", [0, 2.0])
def test_n_must_be_counted(n):
    with pytest.raises(ValueError, match="n must be a whole number of at least 1, got"):
        sample_best_of_n(CAT, REFERENCE, np.array([0]), CAT.utilities, n, np.random.default_rng(0))
