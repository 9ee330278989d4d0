"""The exact side of the token task against loops over every response of tiny trees."""

import itertools
import math

import numpy as np
import pytest
from helpers import gradient_by_differences
from scipy.special import log_softmax, logsumexp

from minirl.exact import sequences

TREE = (2, 3, 3)  # prompts, words, longest response
trees = pytest.mark.parametrize("tree", [TREE, (3, 1, 4), (2, 4, 1)])
close = np.testing.assert_allclose


def random_policy(rng, tree=TREE, scale=1.0):
    prompts, words, longest = tree
    contexts = sum(words**length for length in range(longest))
    return log_softmax(scale * rng.normal(size=(prompts, contexts, words + 1)), axis=2)


def random_task(seed, tree=TREE):
    """A policy and a reference (X, C, V), rewards (X, N)."""
    rng = np.random.default_rng(seed)
    policy, reference = random_policy(rng, tree), random_policy(rng, tree)
    return policy, reference, 2.0 * rng.normal(size=(tree[0], 1 + tree[1] * policy.shape[1]))


def number(words, num_words):
    node = 0
    for word in words:
        node = num_words * node + 1 + word
    return node


def every_response(tree=TREE):
    """(prompt, number, [(context, token), ...]) of each response, in no particular order."""
    prompts, num_words, longest = tree
    for length in range(longest + 1):
        for words in itertools.product(range(num_words), repeat=length):
            steps = [(number(words[:t], num_words), word) for t, word in enumerate(words)]
            end = [] if length == longest else [(number(words, num_words), num_words)]
            for x in range(prompts):
                yield x, number(words, num_words), steps + end


def log_prob(policy, x, steps):
    return sum(policy[x, s, a] for s, a in steps)


def score(policy, x, steps):
    """d log pi(y|x) / d logits, (X, C, V)."""
    derivative = np.zeros(policy.shape)
    for s, a in steps:
        derivative[x, s] -= np.exp(policy[x, s])
        derivative[x, s, a] += 1.0
    return derivative


def mean(policy, quantity, tree=TREE):
    """Mean over prompts of E[quantity(x, n, steps)]."""
    return sum(
        math.exp(log_prob(policy, x, steps)) * quantity(x, n, steps) / tree[0]
        for x, n, steps in every_response(tree)
    )


# ------------------------------------------------------------ the objective and its gradient


@trees
def test_responses_visits_and_objective_by_enumeration(tree):
    policy, reference, rewards = random_task(0, tree)
    expected, visits = np.full(rewards.shape, np.nan), np.zeros(policy.shape[:2])
    for x, n, steps in every_response(tree):
        expected[x, n] = log_prob(policy, x, steps)
        for s, _ in steps:
            visits[x, s] += math.exp(expected[x, n]) / tree[0]
    log_probs = sequences.response_log_probs(policy)
    close(log_probs, expected, rtol=1e-13)
    close(np.exp(log_probs).sum(1), 1.0, rtol=1e-13)
    close(sequences.visitation(policy), visits, atol=1e-14)
    tokens = mean(policy, lambda x, n, steps: len(steps), tree)
    assert sequences.visitation(policy).sum() == pytest.approx(tokens, rel=1e-13)
    entropy = mean(policy, lambda x, n, steps: -expected[x, n], tree)
    assert sequences.entropy(log_probs) == pytest.approx(entropy, rel=1e-13)
    reward = mean(policy, lambda x, n, steps: rewards[x, n], tree)
    kl = mean(policy, lambda x, n, steps: expected[x, n] - log_prob(reference, x, steps), tree)
    evaluation = sequences.objective(policy, reference, rewards, 0.7)
    close(evaluation, [reward - 0.7 * kl, reward, kl], rtol=1e-12)


def test_kl_has_a_direction_and_knows_zeros():
    half, whole = np.log([[0.5, 0.5]]), np.array([[0.0, -np.inf]])
    assert sequences.kl(whole, half) == pytest.approx(math.log(2.0))
    assert sequences.kl(whole, whole) == sequences.entropy(whole) == 0.0
    with pytest.raises(ValueError, match="infinite: prompt 0, response 1 has probability 0.5"):
        sequences.kl(half, whole)


@trees
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_action_values_are_means_over_what_follows(tree, beta):
    policy, reference, rewards = random_task(1, tree)
    expected_q, expected_v = np.zeros(policy.shape), np.zeros(policy.shape[:2])
    for x, n, steps in every_response(tree):
        for t, (s, a) in enumerate(steps):
            paid = log_prob(policy, x, steps[t:]) - log_prob(reference, x, steps[t:])
            gain = rewards[x, n] - beta * paid
            expected_q[x, s, a] += math.exp(log_prob(policy, x, steps[t + 1 :])) * gain
            expected_v[x, s] += math.exp(log_prob(policy, x, steps[t:])) * gain
    token_values, state_values = sequences.action_values(policy, reference, rewards, beta)
    close(token_values, expected_q, atol=1e-12)
    close(state_values, expected_v, atol=1e-12)


@trees
@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_gradient_is_the_derivative_of_the_objective(tree, beta):
    policy, reference, rewards = random_task(2, tree)

    def objective(logits):
        return sequences.objective(log_softmax(logits, axis=2), reference, rewards, beta).objective

    numeric = gradient_by_differences(objective, policy)
    close(sequences.policy_gradient(policy, reference, rewards, beta), numeric, atol=1e-8)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_excluded_tokens_are_the_limit_of_rare_ones(beta):
    rare, reference, rewards = random_task(3)
    rare[0, 0, 1] = rare[1, 2, 3] = rare[1, 7, 0] = -300.0
    rare = log_softmax(rare, axis=2)
    never = np.where(rare < -100.0, -np.inf, rare)
    task = reference, rewards, beta
    close(sequences.objective(never, *task), sequences.objective(rare, *task), rtol=1e-13)
    token_values, state_values = sequences.action_values(never, *task)
    close(state_values, sequences.action_values(rare, *task)[1], atol=1e-12)
    assert np.isfinite(token_values).all()
    gradient = sequences.policy_gradient(never, *task)
    close(gradient, sequences.policy_gradient(rare, *task), atol=1e-13)
    assert (gradient[np.isneginf(never)] == 0.0).all()
    assert (gradient[0, [2, 7, 8, 9]] == 0.0).all()  # the contexts that begin with word 1


# ------------------------------------------------------------ scores


def test_fisher_product_is_the_mean_outer_product_of_scores():
    policy, _, _ = random_task(4)
    vector = np.random.default_rng(4).normal(size=policy.shape)

    def outer_product(x, n, steps):
        return score(policy, x, steps) * (score(policy, x, steps) * vector).sum()

    close(sequences.fisher_product(policy, vector), mean(policy, outer_product), atol=1e-9)


@trees
def test_score_sum_by_enumeration(tree):
    policy, _, coefficients = random_task(5, tree)
    terms = [coefficients[x, n] * score(policy, x, steps) for x, n, steps in every_response(tree)]
    close(sequences.score_sum(policy, coefficients), sum(terms), atol=1e-12)


# ------------------------------------------------------------ the optimum


@trees
@pytest.mark.parametrize("beta", [0.02, 0.3, 20.0])
def test_soft_optimum_is_the_tilted_reference(tree, beta):
    _, reference, rewards = random_task(8, tree)
    reference[0, 0, 0], reference[0, 0, 1:] = -np.inf, log_softmax(reference[0, 0, 1:])
    log_weights = rewards / beta
    for x, n, steps in every_response(tree):
        log_weights[x, n] += log_prob(reference, x, steps)
    log_totals = logsumexp(log_weights, axis=1)
    optimum, values = sequences.soft_optimal_policy(reference, rewards, beta)
    found = np.exp(sequences.response_log_probs(optimum))
    close(found, np.exp(log_weights - log_totals[:, None]), atol=1e-12)
    close(values[:, 0], beta * log_totals, rtol=1e-12)
    close(np.exp(optimum).sum(2), 1.0, rtol=1e-12)
    gradient = sequences.policy_gradient(optimum, reference, rewards, beta)
    close(gradient, 0.0, atol=1e-12)


@pytest.mark.parametrize("beta", [0.1, 0.3, 3.0])
def test_what_a_policy_lacks_is_its_kl_to_the_optimum(beta):
    _, reference, rewards = random_task(9)
    optimum, values = sequences.soft_optimal_policy(reference, rewards, beta)
    log_optimum, rng = sequences.response_log_probs(optimum), np.random.default_rng(9)
    for scale in (0.1, 1.0, 3.0):
        policy = random_policy(rng, scale=scale)
        objective = sequences.objective(policy, reference, rewards, beta).objective
        kl = sequences.kl(sequences.response_log_probs(policy), log_optimum)
        assert values[:, 0].mean() - objective == pytest.approx(beta * kl, abs=1e-10)


def test_nothing_lies_above_the_frontier():
    _, reference, rewards = random_task(11)
    betas, rng = np.geomspace(20.0, 0.02, 50), np.random.default_rng(11)
    frontier = sequences.reward_kl_frontier(reference, rewards, betas)
    np.testing.assert_array_equal(frontier.betas, betas)
    assert sequences.reward_kl_frontier(reference, rewards, [2, 1]).betas.dtype == np.float64
    for curve in (frontier.rewards, frontier.kls, frontier.objectives):
        assert (np.diff(curve) > 0.0).all()

    def above(reward, kl):
        return (reward - betas * kl > frontier.objectives + 1e-10).any()

    for beta, *row in zip(betas, frontier.objectives, frontier.rewards, frontier.kls, strict=True):
        optimum, _ = sequences.soft_optimal_policy(reference, rewards, beta)
        point = sequences.objective(optimum, reference, rewards, beta)
        close(row, point, atol=1e-11)
        assert not above(point.reward, point.kl)
        assert above(point.reward + 1e-6, point.kl)
        near = log_softmax(optimum + rng.normal(size=optimum.shape), axis=2)
        assert not above(*sequences.objective(near, reference, rewards, beta)[1:])


@pytest.mark.parametrize("tree", [TREE, (3, 1, 4), (2, 4, 1), (2, 1, 1)])
def test_policy_of_is_the_inverse_of_response_log_probs(tree):
    policy, reference, rewards = random_task(12, tree)
    found = sequences.policy_of(sequences.response_log_probs(policy), tree[1])
    close(found, policy, atol=1e-12)
    best = sequences.best_of_n(sequences.response_log_probs(reference), rewards, 4)
    close(sequences.response_log_probs(sequences.policy_of(best, tree[1])), best, atol=1e-12)


def test_policy_of_rare_and_unreached_contexts():
    policy, _, _ = random_task(13)
    policy[0, 0] = log_softmax([-900.0, -np.inf, 0.0, 1.0])
    found = sequences.policy_of(sequences.response_log_probs(policy), 3)
    policy[0, [2, 7, 8, 9]] = -math.log(4.0)  # the contexts that begin with word 1
    close(found, policy, atol=1e-12)


# ------------------------------------------------------------ best of n


@pytest.mark.parametrize("n", [1, 2, 3])
def test_best_of_n_against_every_draw(n):
    """One of the tied best draws is taken by a fair die; 0.1 + 0.2 ties with 0.3."""
    reference = np.array([[0.1, 0.25, 0.2, 0.05, 0.4, 0.0], [0.3, 0.0, 0.0, 0.0, 0.3, 0.4]])
    rewards = np.array([[0.3, -1, 0.1 + 0.2, 0.3 + 1e-6, -1, -1], [1, 5, 1, -2, 2, 2]])
    expected = np.zeros(reference.shape)
    for x, draws in itertools.product(range(2), itertools.product(range(6), repeat=n)):
        best = max(rewards[x, y] for y in draws)
        tied = [y for y in draws if abs(rewards[x, y] - best) < 1e-9]
        for y in tied:
            expected[x, y] += math.prod(reference[x, z] for z in draws) / len(tied)
    log_probs = np.log(reference, out=np.full((2, 6), -np.inf), where=reference > 0.0)
    found = sequences.best_of_n(log_probs, rewards, n)
    close(np.exp(found), expected, atol=1e-15)
    close(np.exp(found).sum(1), 1.0, rtol=1e-14)
    assert sequences.kl(found, log_probs) <= sequences.best_of_n_kl_bound(n) + 1e-15


def test_best_of_n_is_a_distribution_also_where_the_reference_is_rounded():
    """The shares of the masses count: a reference that misses 1 by rounding is scaled to 1."""
    masses, rewards = np.array([[0.2, 0.3, 0.5]]), np.array([[1.0, 2.0, 0.0]])
    for n in (1, 4, 1000):
        truth = sequences.best_of_n(np.log(masses), rewards, n)
        found = sequences.best_of_n(np.log((1 + 5e-7) * masses), rewards, n)
        close(found, truth, rtol=1e-9)
        close(np.exp(found).sum(1), 1.0, rtol=1e-12)


@pytest.mark.parametrize("unit", [1.0, 1e-14, 1e14])
def test_rewards_tie_if_they_agree_to_thirteen_digits_of_the_largest_of_their_prompt(unit):
    coin = np.log([[0.5, 0.5], [0.5, 0.5]])
    rewards = unit * np.array([[0.3, 0.3 + 1e-15], [0.3, 0.3 + 2e-12]])
    close(np.exp(sequences.best_of_n(coin, rewards, 2)), [[0.5, 0.5], [0.25, 0.75]])
    rewards[0] = 1e9 * unit  # the reward of one prompt must not hide the difference in another
    close(np.exp(sequences.best_of_n(coin, rewards, 2)), [[0.5, 0.5], [0.25, 0.75]])
    close(np.exp(sequences.best_of_n(coin, np.zeros((2, 2)), 2)), 0.5)


def test_best_of_n_bound_is_nearly_met_by_many_untied_responses():
    uniform = np.full((1, 10_000), -math.log(10_000))
    found = sequences.best_of_n(uniform, np.arange(10_000.0)[None], 4)
    assert math.log(4) - 0.75 - 1e-3 < sequences.kl(found, uniform)
    assert sequences.kl(found, uniform) < sequences.best_of_n_kl_bound(4) < math.log(4) - 0.749


def test_best_of_n_keeps_the_digits_of_a_rare_best():
    found = sequences.best_of_n(np.log([[1.0 - 1e-13, 1e-13]]), np.array([[0.0, 1.0]]), 4)
    assert found[0, 1] == pytest.approx(math.log(4e-13), abs=1e-11)


# ------------------------------------------------------------ full size, and errors


def test_arguments_are_left_alone_and_whole_rewards_do_not_round():
    task = random_task(15)
    policy, reference, rewards = (array.copy() for array in task)
    sequences.policy_gradient(policy, reference, rewards, 0.3)
    sequences.soft_optimal_policy(reference, rewards, 0.3)
    sequences.score_sum(policy, rewards)
    sequences.policy_of(log_softmax(rewards, axis=1), 3)
    for array, before in zip((policy, reference, rewards), task, strict=True):
        np.testing.assert_array_equal(array, before)
    whole = rewards.astype(int)
    _, found = sequences.action_values(policy, reference, whole, 0.3)
    _, expected = sequences.action_values(policy, reference, whole.astype(float), 0.3)
    np.testing.assert_array_equal(found, expected)


def test_errors():
    policy, reference, rewards = random_task(16)
    unknown, excluding = rewards.copy(), reference.copy()
    unknown[1, 7], excluding[1, 4, 2] = np.nan, -np.inf
    excluding = log_softmax(excluding, axis=2)
    s = sequences
    for message, function, *arguments in [
        ("12 is none of these for the 3 words", s.response_log_probs, policy[:, :12]),
        (r"log_policy must have shape \(X, C, V\)", s.visitation, policy[0]),
        (r"log_policy must have shape \(X, C, V\)", s.visitation, policy[:, :, :1]),
        (r"rewards must .* \(2, 40\), got", s.objective, policy, reference, rewards[:, 1:], 0.3),
        (r"log_reference must .* \(2, 13, 4\)", s.action_values, policy, policy[:1], rewards, 0.3),
        (r"coefficients must have shape \(2, 40\)", s.score_sum, policy, rewards[:1]),
        ("vector must have shape", s.fisher_product, policy, rewards),
        ("other must have shape", s.kl, rewards, rewards[:, :5]),
        ("finite numbers, got nan for prompt 1, response 7", s.score_sum, policy, unknown),
        ("rewards must be finite", s.soft_optimal_policy, reference, unknown, 0.3),
        ("rewards must be finite", s.best_of_n, rewards, unknown, 2),
        ("beta must be .* at least 0", s.objective, policy, reference, rewards, -0.1),
        ("beta must be .* at least 0", s.action_values, policy, reference, rewards, np.nan),
        ("beta must be .* at least 0", s.objective, policy, reference, rewards, np.inf),
        ("beta must be .* above 0", s.soft_optimal_policy, reference, rewards, 0.0),
        ("beta must be .* above 0", s.soft_optimal_policy, reference, rewards, np.inf),
        ("betas must be .* above 0", s.reward_kl_frontier, reference, rewards, [0.3, 0.0]),
        ("betas must be .* above 0", s.reward_kl_frontier, reference, rewards, [0.3, np.inf]),
        ("betas must be a list", s.reward_kl_frontier, reference, rewards, 0.3),
        ("prompt 1, context 4, token 2", s.policy_gradient, policy, excluding, rewards, 0.3),
        ("prompt 1, response 15", s.objective, policy, excluding, rewards, 0.3),
        ("words must be W .* got 4 for 40", s.policy_of, rewards, 4),
        ("words must be W .* got 0 for 40", s.policy_of, rewards, 0),
        ("words must be W .* got 1 for 1", s.policy_of, rewards[:, :1], 1),
        ("words must be W .* got 3.0 for 40", s.policy_of, rewards, 3.0),
        ("3 is none of these for the 13 words", s.policy_of, rewards, 13),
        ("n must be a whole number of at least 1, got 0", s.best_of_n, rewards, rewards, 0),
        ("n must be a whole number of at least 1, got 1.5", s.best_of_n_kl_bound, 1.5),
        (r"log_probs must have shape \(X, N\)", s.best_of_n, policy, rewards, 2),
        ("rewards must have shape", s.best_of_n, rewards, rewards[:, :5], 2),
    ]:
        with pytest.raises(ValueError, match=message):
            function(*arguments)


def test_probabilities_are_not_taken_for_log_probabilities():
    """The sums of exponentials tell: exp(p) sums to more than 1, so KL and entropy were wrong."""
    policy, reference, rewards = random_task(17)
    responses = sequences.response_log_probs(policy)
    probs, shifted = np.exp(responses), responses - 0.01
    s = sequences
    for name, function, *arguments in [
        ("log_probs", s.expected_reward, probs, rewards),
        ("log_probs", s.kl, probs, responses),
        ("other", s.kl, responses, probs),
        ("log_probs", s.entropy, probs),
        ("log_probs", s.policy_of, probs, 3),
        ("log_probs", s.best_of_n, probs, rewards, 2),
        ("log_policy", s.response_log_probs, np.exp(policy)),
        ("log_policy", s.visitation, np.exp(policy)),
        ("log_policy", s.fisher_product, np.exp(policy), policy),
        ("log_policy", s.score_sum, np.exp(policy), rewards),
        ("log_policy", s.objective, np.exp(policy), reference, rewards, 0.3),
        ("log_reference", s.objective, policy, np.exp(reference), rewards, 0.3),
        ("log_policy", s.action_values, np.exp(policy), reference, rewards, 0.3),
        ("log_reference", s.policy_gradient, policy, np.exp(reference), rewards, 0.3),
        ("log_reference", s.soft_optimal_policy, np.exp(reference), rewards, 0.3),
    ]:
        with pytest.raises(ValueError, match=f"^{name} must be log-probabilities"):
            function(*arguments)
    with pytest.raises(ValueError, match="probabilities: pass their logarithm"):
        s.entropy(probs)
    for wrong in (shifted, np.full_like(responses, np.nan), np.full_like(responses, 1e4)):
        with pytest.raises(ValueError, match="^log_probs must be log-probabilities"):
            s.entropy(wrong)
    with pytest.raises(ValueError, match="^log_probs must be an array"):
        s.entropy("text")
    float32 = np.log(probs.astype(np.float32))
    assert s.entropy(float32) == pytest.approx(s.entropy(responses), rel=1e-5)
    assert s.entropy(responses.tolist()) == s.entropy(responses)


@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e9])
def test_beta_must_be_within_reach_of_the_rewards(unit):
    """At both ends of the range the gain is right to 1e-4; beyond, rounding would decide it."""
    _, reference, rewards = random_task(18)
    rewards = unit * (rewards - rewards.mean())
    log_probs = sequences.response_log_probs(reference)
    start = sequences.expected_reward(log_probs, rewards)
    low, high = 1e-8 * np.abs(rewards).max(), 1e5 * np.ptp(rewards, axis=1).max()
    # The gain of the optimum is Var / (2 beta) for a large beta, and what the best answers earn for
    # a small one; the KL then is what it takes to say nothing else.
    probs, best = np.exp(log_probs), rewards.argmax(axis=1)
    means = (probs * rewards).sum(axis=1, keepdims=True)
    for beta, gain in [
        (low, rewards.max(axis=1).mean() - start),
        (high, (probs * (rewards - means) ** 2).sum(axis=1).mean() / (2 * high)),
    ]:
        beta = np.clip(beta, 1.0001 * low, 0.9999 * high)
        optimum, values = sequences.soft_optimal_policy(reference, rewards, beta)
        found = sequences.objective(optimum, reference, rewards, beta)
        frontier = sequences.reward_kl_frontier(reference, rewards, [beta])
        for objective in (found.objective, values[:, 0].mean(), frontier.objectives[0]):
            assert objective - start == pytest.approx(gain, rel=1e-3)
        assert frontier.kls[0] == pytest.approx(found.kl, abs=1e-6)
    narrow = sequences.reward_kl_frontier(reference, rewards, [1.0001 * low])
    assert narrow.kls[0] == pytest.approx(-log_probs[[0, 1], best].mean(), abs=1e-6)
    for beta in (0.99 * low, 1.01 * high, 1e300, 1e-300):
        for name, function, argument in [
            ("beta", sequences.soft_optimal_policy, beta),
            ("betas", sequences.reward_kl_frontier, [unit, beta]),
        ]:
            with pytest.raises(ValueError, match=f"^{name} must be from .* to .*for these rewards"):
                function(reference, rewards, argument)
    # Without a difference nothing is gained at any beta, and the optimum is the reference.
    same, _ = sequences.soft_optimal_policy(reference, np.ones_like(rewards), 1e-3)
    close(same, reference, atol=1e-9)
