"""Rounds of imitation, exactly: what they compose to, and what a bigram table loses."""

import numpy as np
import pytest
from helpers import every_path, gradient_by_differences
from scipy.optimize import minimize
from scipy.special import log_softmax

from minirl.exact import sequences
from minirl.exact.search import bigram_projection, given_right, last_words

PROMPTS, WORDS, LONGEST = 2, 3, 3
CONTEXTS = 13
close = np.testing.assert_allclose


def random_task(seed):
    """A policy (X, C, V) and rewards (X, N) with many ties."""
    rng = np.random.default_rng(seed)
    policy = log_softmax(rng.normal(size=(PROMPTS, CONTEXTS, WORDS + 1)), axis=2)
    return policy, rng.integers(4, size=(PROMPTS, 1 + WORDS * CONTEXTS)).astype(float)


def fitted(log_probs):
    """The maximum of the likelihood of a table with a row for each context."""
    return sequences.response_log_probs(sequences.policy_of(log_probs, WORDS))


def distance(p, q):
    """The largest total variation distance over the prompts."""
    return np.abs(np.exp(p) - np.exp(q)).sum(axis=1).max() / 2


# ---------------------------------------------------------------- best-of-n of best-of-m


@pytest.mark.parametrize(("m", "n"), [(2, 2), (2, 8), (4, 4), (3, 5)])
def test_rounds_of_raft_compose(m, n):
    """With a table, the best of n of the best of m is the best of n m."""
    for seed in range(5):
        policy, rewards = random_task(seed)
        reference = sequences.response_log_probs(policy)
        first = fitted(sequences.best_of_n(reference, rewards, m))
        second = fitted(sequences.best_of_n(first, rewards, n))
        at_once = sequences.best_of_n(reference, rewards, m * n)
        close(np.exp(second), np.exp(at_once), atol=5e-15)


def test_rounds_with_different_tie_rules_do_not_compose():
    """The first round breaks ties at random, and the second prefers the smaller number."""
    distances = []
    for seed in range(20):
        policy, rewards = random_task(seed)
        reference = sequences.response_log_probs(policy)
        in_order = rewards - 1e-6 * np.arange(rewards.shape[1])
        at_once = sequences.best_of_n(reference, rewards, 16)
        first = sequences.best_of_n(reference, rewards, 4)
        mixed = sequences.best_of_n(first, in_order, 4)
        distances.append(distance(mixed, at_once))
        # The same rule in both rounds composes, whichever it is.
        first = sequences.best_of_n(reference, in_order, 4)
        again = sequences.best_of_n(first, in_order, 4)
        close(np.exp(again), np.exp(sequences.best_of_n(reference, in_order, 16)), atol=5e-15)
    assert min(distances) > 0.1


def test_a_round_with_a_bigram_table_does_not_compose():
    policy, rewards = random_task(0)
    policy = bigram_projection(policy)
    reference = sequences.response_log_probs(policy)

    def bigram_round(log_probs, n):
        chosen = sequences.best_of_n(log_probs, rewards, n)
        return sequences.response_log_probs(bigram_projection(sequences.policy_of(chosen, WORDS)))

    twice, at_once = bigram_round(bigram_round(reference, 4), 4), bigram_round(reference, 16)
    assert distance(twice, at_once) > 0.01


# ---------------------------------------------------------------- all right samples


def test_all_right_samples_are_the_policy_given_success():
    policy, rewards = random_task(1)
    rewards = (rewards == 3).astype(float)
    log_probs = sequences.response_log_probs(policy)
    result = given_right(log_probs, rewards)
    probs = np.exp(log_probs)
    success = (probs * rewards).sum(axis=1)
    for x in range(PROMPTS):
        for y in range(rewards.shape[1]):
            expected = probs[x, y] / success[x] if rewards[x, y] else 0.0
            assert np.exp(result[x, y]) == pytest.approx(expected, rel=1e-13)
    assert sequences.kl(result, log_probs) == pytest.approx(-np.log(success).mean(), rel=1e-12)


def test_a_second_round_of_all_right_samples_changes_nothing():
    policy, rewards = random_task(1)
    rewards = (rewards == 3).astype(float)
    reference = sequences.response_log_probs(policy)
    first = fitted(given_right(reference, rewards))
    close(np.exp(fitted(given_right(first, rewards))), np.exp(first), atol=1e-15)
    close(np.exp(sequences.best_of_n(first, rewards, 8)), np.exp(first), atol=1e-15)
    # A table that shares rows is not there after one round.
    bigrams = [bigram_projection(sequences.policy_of(given_right(reference, rewards), WORDS))]
    for _ in range(2):
        kept = given_right(sequences.response_log_probs(bigrams[-1]), rewards)
        bigrams.append(bigram_projection(sequences.policy_of(kept, WORDS)))
    first, second, third = (sequences.response_log_probs(table) for table in bigrams)
    assert distance(first, second) > 0.01
    assert distance(second, third) > 1e-3


def test_raft_approaches_the_policy_given_success():
    policy, rewards = random_task(1)
    rewards = (rewards == 3).astype(float)
    reference = sequences.response_log_probs(policy)
    limit = np.exp(given_right(reference, rewards))
    close(np.exp(sequences.best_of_n(reference, rewards, 10_000)), limit, atol=1e-12)


def test_the_first_step_of_the_fit_is_the_policy_gradient():
    """With every right sample counted once; with one sample per prompt, prompts weigh 1/p more."""
    policy, rewards = random_task(1)
    rewards = (rewards == 3).astype(float)
    probs = np.exp(sequences.response_log_probs(policy))

    def likelihood(logits, kept):
        log_probs = sequences.response_log_probs(log_softmax(logits, axis=2))
        return (kept * log_probs).sum() / PROMPTS

    kept = probs * rewards
    gradient = gradient_by_differences(lambda logits: likelihood(logits, kept), policy)
    exact = sequences.policy_gradient(policy, policy, rewards, 0.0)
    close(gradient, exact, atol=1e-9)
    success = kept.sum(axis=1)
    per_prompt = gradient_by_differences(
        lambda logits: likelihood(logits, kept / success[:, None]), policy
    )
    close(per_prompt, exact / success[:, None, None], atol=1e-9)
    assert np.abs(per_prompt - exact).max() > 0.01


# ---------------------------------------------------------------- the bigram projection


def test_expected_counts_by_enumeration():
    policy, _ = random_task(2)
    log_probs = sequences.response_log_probs(policy)
    projected = np.exp(bigram_projection(policy))
    rows = last_words(CONTEXTS, WORDS)
    for x in range(PROMPTS):
        counts = np.zeros((WORDS + 1, WORDS + 1))
        for response, steps in every_path(WORDS, LONGEST):
            for context, token in steps:
                previous = WORDS if context == 0 else (context - 1) % WORDS
                assert rows[context] == previous
                counts[previous, token] += np.exp(log_probs[x, response])
        expected = counts / counts.sum(axis=1, keepdims=True)
        close(projected[x], expected[rows], rtol=1e-12)


def test_no_bigram_table_is_nearer():
    """Against SciPy's minimiser over all bigram tables."""
    policy, rewards = random_task(3)
    target = sequences.best_of_n(sequences.response_log_probs(policy), rewards, 4)
    rows = last_words(CONTEXTS, WORDS)
    shape = PROMPTS, WORDS + 1, WORDS + 1

    def divergence(parameters):
        table = log_softmax(parameters.reshape(shape), axis=2)[:, rows]
        return sequences.kl(target, sequences.response_log_probs(table))

    best = minimize(divergence, np.zeros(np.prod(shape)), method="BFGS").fun
    projected = sequences.response_log_probs(bigram_projection(sequences.policy_of(target, WORDS)))
    assert sequences.kl(target, projected) == pytest.approx(best, abs=1e-8)
    assert best > 0.01  # there is something to lose
    unvisited = sequences.response_log_probs(bigram_projection(policy))
    assert sequences.kl(target, unvisited) > best + 0.01  # another table is further away


def test_a_bigram_policy_is_its_own_projection():
    policy, _ = random_task(4)
    once = bigram_projection(policy)
    close(np.exp(bigram_projection(once)), np.exp(once), atol=1e-15)
    never = np.full_like(policy, -np.inf)
    never[:, :, -1] = 0.0  # always EOS: the rows of the words are never reached
    assert np.exp(bigram_projection(never))[0, 1:] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ([[0.0, 0.5, 1.0]], "rewards must be 0 or 1, got 0.5; use the rewards of a verifier"),
        ([[0.0, 0.0, 0.0]], "got none for prompt 0: nothing would be left to imitate"),
        (
            [[0.0, 1.0]],
            r"rewards must have the shape \(X, N\) of log_probs, \(1, 3\), got",
        ),
    ],
)
def test_bad_rewards_are_one_clear_line(rewards, words):
    with pytest.raises(ValueError, match=words):
        given_right(np.log([[0.25, 0.25, 0.5]]), np.array(rewards))
