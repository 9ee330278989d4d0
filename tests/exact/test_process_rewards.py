"""Potential-based shaping, exactly: when it keeps the optimum, and its effect as a baseline."""

import numpy as np
import pytest
from helpers import every_path
from scipy.special import log_softmax

from minirl.exact import sequences
from minirl.exact.process_rewards import gradient_moments, path_sums, shaped_rewards

PROMPTS, WORDS, LONGEST, CONTEXTS = 2, 3, 3, 13
RESPONSES = 1 + WORDS * CONTEXTS
BETA = 0.5
close = np.testing.assert_allclose


def random_task(seed):
    """A reference (X, C, V), rewards (X, N) and a potential (X, C)."""
    rng = np.random.default_rng(seed)
    reference = log_softmax(rng.normal(size=(PROMPTS, CONTEXTS, WORDS + 1)), axis=2)
    return reference, rng.normal(size=(PROMPTS, RESPONSES)), rng.normal(size=(PROMPTS, CONTEXTS))


def change_of_the_optimum(seed, token_rewards, rewards=None):
    """The largest change of a probability of pi* if these are the rewards."""
    reference, plain, _ = random_task(seed)
    rewards = plain if rewards is None else rewards
    shaped = path_sums(token_rewards)
    before, after = (
        np.exp(sequences.response_log_probs(sequences.soft_optimal_policy(reference, r, BETA)[0]))
        for r in (rewards, shaped)
    )
    return np.abs(before - after).max()


def test_token_rewards_by_enumeration():
    _, rewards, potential = random_task(0)
    after_end = np.random.default_rng(9).normal(size=rewards.shape)
    shaped = shaped_rewards(rewards, potential, after_end, discount=0.9)
    for x in range(PROMPTS):
        for response, steps in every_path(WORDS, LONGEST):
            for t, (context, token) in enumerate(steps):
                last = t == len(steps) - 1
                following = after_end[x, response] if last else potential[x, steps[t + 1][0]]
                expected = last * rewards[x, response] + 0.9 * following - potential[x, context]
                assert shaped[x, context, token] == pytest.approx(expected, abs=1e-14)


def test_shaping_keeps_the_optimum():
    for seed in range(10):
        _, rewards, potential = random_task(seed)
        shaped = shaped_rewards(rewards, potential)
        assert change_of_the_optimum(seed, shaped) < 1e-14
        # On whole responses it adds a constant per prompt, and another constant at the end too.
        close(path_sums(shaped) - rewards, -potential[:, :1].repeat(RESPONSES, 1), atol=1e-14)
        constant = np.full_like(rewards, 0.7)
        assert change_of_the_optimum(seed, shaped_rewards(rewards, potential, constant)) < 1e-14


@pytest.mark.parametrize("wrong", ["cut", "discount", "reward at the end"])
def test_shaping_that_changes_the_optimum(wrong):
    """The negative control: each of these is a common implementation."""
    for seed in range(10):
        _, rewards, potential = random_task(seed)
        after_end, discount = np.zeros_like(rewards), 1.0
        if wrong == "cut":  # 0 after EOS, but the potential of what was written if it was cut
            after_end[:, CONTEXTS:] = np.random.default_rng(seed).normal(
                size=(PROMPTS, RESPONSES - CONTEXTS)
            )
        elif wrong == "discount":
            discount = 0.9
        else:
            after_end = rewards
        shaped = shaped_rewards(rewards, potential, after_end, discount)
        assert change_of_the_optimum(seed, shaped) > 1e-3
        if wrong == "reward at the end":  # it counts twice
            assert change_of_the_optimum(seed, shaped, 2 * rewards) < 1e-14


def test_soft_values_are_an_exact_process_reward_model():
    """At pi*, r + V*(s') - V*(s) - beta log(pi* / pi_ref) is 0 for every token."""
    for seed in range(10):
        reference, rewards, potential = random_task(seed)
        optimum, values = sequences.soft_optimal_policy(reference, rewards, BETA)
        residual = shaped_rewards(rewards, values) - BETA * (optimum - reference)
        assert np.abs(residual).max() < 1e-14
        wrong = shaped_rewards(rewards, values + 0.1 * potential) - BETA * (optimum - reference)
        assert np.abs(wrong).max() > 0.05


def estimates(policy, token_rewards, baseline):
    """Probability and gradient estimate of each (prompt, response), by enumeration."""
    for x in range(PROMPTS):
        for _, steps in every_path(WORDS, LONGEST):
            probability = np.exp(sum(policy[x, s, a] for s, a in steps)) / PROMPTS
            estimate = np.zeros(policy.shape)
            for t, (s, a) in enumerate(steps):
                to_go = sum(token_rewards[x, s, a] for s, a in steps[t:])
                score = -np.exp(policy[x, s])
                score[a] += 1
                estimate[x, s] += (to_go - baseline[x, s]) * score
            yield probability, estimate


def test_moments_of_the_gradient_by_enumeration():
    reference, rewards, potential = random_task(1)
    token_rewards = shaped_rewards(rewards, 0 * potential)
    token_rewards -= BETA * random_task(2)[0]  # any numbers per token
    moments = gradient_moments(reference, token_rewards, potential)
    rows = list(estimates(reference, token_rewards, potential))
    mean = sum(p * g for p, g in rows)
    variance = sum(p * ((g - mean) ** 2).sum() for p, g in rows)
    close(moments.mean, mean, atol=1e-14)
    assert moments.variance == pytest.approx(variance, rel=1e-12)


def test_the_mean_is_the_policy_gradient_of_the_objective():
    """Any potential leaves it unchanged, and a discount does not."""
    reference, rewards, potential = random_task(1)
    policy = random_task(2)[0]
    penalty = BETA * (policy - reference)
    exact = sequences.policy_gradient(policy, reference, rewards, BETA)
    shaped = shaped_rewards(rewards, 5 * potential) - penalty
    close(gradient_moments(policy, shaped, 0 * potential).mean, exact, atol=1e-13)
    wrong = shaped_rewards(rewards, 5 * potential, discount=0.9) - penalty
    assert np.abs(gradient_moments(policy, wrong, 0 * potential).mean - exact).max() > 0.01


def test_shaping_is_a_baseline_on_rewards_to_go():
    """For each sample, not only on average."""
    reference, rewards, potential = random_task(3)
    zero = np.zeros_like(potential)
    plain, shaped = shaped_rewards(rewards, zero), shaped_rewards(rewards, potential)
    pairs = zip(
        estimates(reference, shaped, zero), estimates(reference, plain, potential), strict=True
    )
    for (_, by_shaping), (_, by_baseline) in pairs:
        close(by_shaping, by_baseline, atol=1e-13)
    moments = gradient_moments(reference, plain, potential)
    assert gradient_moments(reference, shaped, zero).variance == pytest.approx(moments.variance)
    assert gradient_moments(reference, plain, zero).variance != pytest.approx(moments.variance)


def lowered(beta, seeds=200):
    """In how many random trees V* as potential lowers the variance at the reference."""
    count = 0
    for seed in range(seeds):
        reference, rewards, potential = random_task(seed)
        rewards = (rewards > 0.5).astype(float)
        _, values = sequences.soft_optimal_policy(reference, rewards, beta)
        plain = shaped_rewards(rewards, 0 * potential)
        without = gradient_moments(reference, plain, 0 * potential).variance
        count += gradient_moments(reference, plain, values).variance < without
    return count


def test_whether_soft_values_lower_the_variance_depends_on_beta():
    """V* tends to the best reward that can follow as beta falls: a poor estimate of the mean."""
    assert [lowered(beta) for beta in (0.1, 0.3, 1.0)] == [10, 137, 199]


def test_soft_values_leave_no_variance_at_the_optimum():
    """With the KL in the reward, every sample of pi* then has the advantage 0."""
    reference, rewards, potential = random_task(5)
    optimum, values = sequences.soft_optimal_policy(reference, rewards, BETA)
    zero = np.zeros_like(potential)
    plain = shaped_rewards(rewards, zero) - BETA * (optimum - reference)
    with_values = gradient_moments(optimum, plain, values)
    assert abs(with_values.variance) < 1e-13
    assert np.abs(with_values.mean).max() < 1e-14
    assert gradient_moments(optimum, plain, zero).variance > 0.1
    # The values of the reference's reward are another baseline.
    others = sequences.action_values(reference, reference, rewards, 0.0)[1]
    assert gradient_moments(optimum, plain, others).variance > 0.01


def test_a_wrong_potential_is_unbiased_and_raises_the_variance():
    reference, rewards, potential = random_task(4)
    plain = shaped_rewards(rewards, 0 * potential)
    without = gradient_moments(reference, plain, 0 * potential)
    wrong = gradient_moments(reference, plain, 5 * potential)
    close(wrong.mean, without.mean, atol=1e-13)
    assert wrong.variance > 10 * without.variance


@pytest.mark.parametrize(
    ("potential", "after_end", "words"),
    [
        (np.zeros((2, 12)), None, r"potential must have shape \(2, C\), one number per context"),
        (np.zeros((2, 13)), np.zeros((2, 13)), r"after_end must have shape \(2, 40\), got"),
        (np.full((2, 13), np.nan), None, "potential must consist of finite numbers, got nan"),
    ],
)
def test_a_wrong_potential_is_one_clear_line(potential, after_end, words):
    with pytest.raises(ValueError, match=words):
        shaped_rewards(np.zeros((2, RESPONSES)), potential, after_end)


def test_moments_need_one_tree():
    reference, rewards, potential = random_task(0)
    token_rewards = shaped_rewards(rewards, potential)
    with pytest.raises(ValueError, match=r"token_rewards must have shape \(2, 13, 4\), got"):
        gradient_moments(reference, token_rewards[:, 1:], potential)
    with pytest.raises(ValueError, match=r"baseline must have shape \(2, 13\), got"):
        gradient_moments(reference, token_rewards, potential[:1])
